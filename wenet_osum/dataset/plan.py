"""Which utterances go together in which batch: a pure function of lengths, seed, epoch and world size."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Item(NamedTuple):
    """One utterance in one epoch: its row in the index, the task it is asked, the epoch and which time in it
    (both for seeding)."""

    row: int
    task: str
    epoch: int
    copy: int = 0


def draw_tasks(offered: list[tuple[str, ...]], weights: dict[str, float], seed: int, epoch: int) -> list[str]:
    """One task an utterance, drawn among the ones it offers in proportion to their weights (1 when no
    weights are given)."""
    uniform = np.random.default_rng([seed, epoch, 1]).random(len(offered))
    out = []
    for names, u in zip(offered, uniform):
        chances = [weights.get(n, 0.0) for n in names]
        # A task that has no weight can still be asked for by name, when decoding.
        cumulative = np.cumsum(chances if any(chances) else [1.0] * len(names))
        out.append(names[int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))])
    return out


def over_budget(conf: dict[str, Any], count: int, shortest: int, longest: int, most_tokens: int) -> bool:
    """Whether a batch of ``count`` utterances breaks ``batch_conf``; lengths in 10 ms frames."""
    if conf["batch_type"] == "static":
        return count > conf["batch_size"]
    if conf["batch_type"] == "bucket":
        low, high = np.searchsorted(conf["bucket_boundaries"], (shortest, longest), side="right")
        return low != high or count > conf["bucket_batch_sizes"][high]
    return longest * count > conf["max_frames_in_batch"] or most_tokens * count > conf["max_tokens_in_batch"]


def plan_batches(
    frames: np.ndarray,
    tokens: np.ndarray,
    conf: dict[str, Any],
    seed: int = 0,
    epoch: int = 0,
    world_size: int = 1,
    shuffle: bool = True,
) -> list[list[int]]:
    """Batches of an epoch as rows of the index; rank r takes batches r, r + world_size, ...

    Utterances of like length go together: all are shuffled, then each window of them is sorted by
    length and cut where the next one would break a budget. The number of batches is a multiple of
    ``world_size`` (the largest are halved until it is; when only single utterances are left, the
    first ones come twice), and the ranks' batches of one step are neighbours in length.

    Args:
        frames, tokens: (N,) of the index.
        conf: ``batch_conf``. ``static``: ``batch_size`` utterances. ``bucket``: utterances between the same two
            ``bucket_boundaries``, as many as that bucket's ``bucket_batch_sizes``. ``dynamic``: longest x count
            within ``max_frames_in_batch`` and within ``max_tokens_in_batch``; an utterance over a budget goes alone.
    """
    rng = np.random.default_rng([seed, epoch, 0])
    order = rng.permutation(len(frames)) if shuffle else np.arange(len(frames))
    batches: list[list[int]] = []
    window = 2000 if shuffle else max(1, len(frames))
    for start in range(0, len(order), window):
        rows = order[start : start + window]
        rows = rows[np.argsort(frames[rows], kind="stable")]
        batch: list[int] = []
        longest = most_tokens = 0
        for row in rows.tolist():
            longest, most_tokens = max(longest, int(frames[row])), max(most_tokens, int(tokens[row]))
            shortest = int(frames[batch[0]]) if batch else longest  # the rows come by length
            if batch and over_budget(conf, len(batch) + 1, shortest, longest, most_tokens):
                batches.append(batch)
                batch, longest, most_tokens = [], int(frames[row]), int(tokens[row])
            batch.append(row)
        if batch:
            batches.append(batch)
    while len(batches) % world_size:
        largest = max(range(len(batches)), key=lambda i: len(batches[i]))
        batch = batches[largest]
        if len(batch) > 1:
            half = len(batch) // 2
            batches[largest : largest + 1] = [batch[:half], batch[half:]]
        else:
            batches += [batches[i % len(batches)] for i in range(-len(batches) % world_size)]
    steps = [batches[i : i + world_size] for i in range(0, len(batches), world_size)]
    if shuffle:
        steps = [steps[i] for i in rng.permutation(len(steps))]
    return [batch for step in steps for batch in step]
