"""Which utterances go together in which batch: a pure function of an index, the budgets, the seed and the epoch.

Nothing is drawn one after the other while training runs, so that any batch of any epoch is known at once and
a run goes on in its middle by a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from wenet_osum.dataset.index import Index, TaskSets
from wenet_osum.dataset.mixing import occurrences
from wenet_osum.dataset.packing import fill_packs

# Utterances that are sorted together; they lie in so many whole blocks of the index, which are read at random.
WINDOW = 16384
# Audio lengths within this share of each other count as equal, and such utterances stay in random order. Sorted by
# their answers, batches would be of one task each, and as a step's loss is a mean over its tokens, those of short
# answers would count for more: on the demo corpus the error of transcripts is then 20.6 % in place of 6 (RESULTS.md).
BAND = 0.02
# A batch that uses less than this share of its budget goes on into the next window.
HALF_FULL = 0.5


class Item(NamedTuple):
    """One utterance in one epoch: its row in the index, the task it is asked, the epoch (for seeding), and its
    number among the times that the epoch takes it (0 but where a corpus has a weight above 1)."""

    row: int
    task: str
    epoch: int
    copy: int = 0


class Plan(Sequence[list[Item]]):
    """The batches of an epoch over all ranks, kept as flat arrays: ``plan[i]`` is a list of items, an empty one
    where there are fewer utterances than batches must be."""

    def __init__(
        self,
        tasks: TaskSets,
        epoch: int,
        rows: np.ndarray,
        slots: np.ndarray,
        copies: np.ndarray,
        bounds: np.ndarray,
    ):
        self._tasks, self.epoch = tasks, epoch
        self.rows, self.slots, self.copies, self.bounds = rows, slots, copies, bounds

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[n] for n in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        span = slice(self.bounds[i], self.bounds[i + 1])
        return [
            Item(row, self._tasks[row][slot], self.epoch, copy)
            for row, slot, copy in zip(
                self.rows[span].tolist(), self.slots[span].tolist(), self.copies[span].tolist()
            )
        ]


def plan_epoch(
    index: Index,
    conf: dict[str, Any],
    task_weights: dict[str, float],
    seed: int = 0,
    epoch: int = 0,
    group: int = 1,
    shuffle: bool = True,
    mix: bool = True,
    every: int | None = None,
) -> Plan:
    """The batches of an epoch.

    Args:
        conf: ``batch_conf``; see ``plan_batches``.
        task_weights: by name; see ``draw_slots``.
        group: see ``plan_batches``.
        mix: take each corpus by its weight; otherwise every utterance once.
        every: frames that each utterance is brought to (``pad_or_trim``); None: its own.
    """
    weights = index.weights if mix else [1.0] * len(index.weights)
    rows, copies = occurrences(index.corpus, weights, seed, epoch)
    slots = draw_slots(index.tasks, rows, task_weights, seed, epoch)
    # What an epoch takes again is put elsewhere in it.
    block = index.block[rows] + copies * (int(index.block.max(initial=0)) + 1)
    frames, tokens = index.frames[rows], index.tokens_for(rows, slots)
    if every is not None:
        frames = np.full_like(frames, every)
    order, bounds = plan_batches(frames, tokens, conf, seed, epoch, group, shuffle, block)
    narrow = rows[order].astype(np.int32), slots[order].astype(np.int16), copies[order].astype(np.int32)
    return Plan(index.tasks, epoch, *narrow, bounds)


def draw_slots(
    tasks: TaskSets, rows: np.ndarray, weights: dict[str, float], seed: int, epoch: int
) -> np.ndarray:
    """(n,) for each of ``rows`` the place in its task set of one task, drawn in proportion to the weights (1 when
    no weights are given)."""
    uniform = np.random.default_rng([seed, epoch, 1]).random(len(rows))
    slots = np.zeros(len(rows), np.int64)
    for names, at in tasks.groups(rows):
        chances = [weights.get(n, 0.0) for n in names]
        # A task that has no weight can still be asked for by name, when decoding.
        cumulative = np.cumsum(chances if any(chances) else [1.0] * len(names))
        slots[at] = np.searchsorted(cumulative, uniform[at] * cumulative[-1], side="right")
    return slots


def plan_batches(
    frames: np.ndarray,
    tokens: np.ndarray,
    conf: dict[str, Any],
    seed: int = 0,
    epoch: int = 0,
    group: int = 1,
    shuffle: bool = True,
    block: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut N utterances into batches.

    Whole blocks, in random order, make windows of about ``WINDOW`` utterances. Those of a window are sorted by
    audio length, in steps of 2 %, and cut where the next one would break a
    budget (``pack``: see ``fill_packs``). Batches of one window that cost the same make groups, whose order is
    random; what is left over, or not half full, goes to the next window. In the last one the costliest are halved until their
    number is a multiple of ``group``; when only single utterances are left, empty batches are added.

    Args:
        frames, tokens: (N,) lengths of the audio (10 ms frames) and of the answer.
        conf: ``batch_conf``. ``static``: ``batch_size`` utterances. ``bucket``: utterances between the same two
            ``bucket_boundaries``, as many as that bucket's ``bucket_batch_sizes``. ``dynamic``: longest x count
            within ``max_frames_in_batch`` and within ``max_tokens_in_batch``. ``pack``: sums within them. An
            utterance over a budget goes alone.
        group: batches i x group to (i + 1) x group are of nearly equal cost (``batch_costs``).
        shuffle: otherwise there is one window, sorted by length alone, and so are its batches.
        block: (N,) what lies near together; None: all.

    Returns:
        order (N,), bounds (B + 1,): batch i is ``order[bounds[i]:bounds[i + 1]]``; B is a multiple of ``group``.
    """
    rng = np.random.default_rng([seed, epoch, 0])
    if shuffle:
        windows = draw_windows(block, len(frames), window_size(frames, tokens, conf, group), rng)
    else:
        windows = [np.arange(len(frames))]
    orders, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    rest = np.zeros(0, np.int64)
    for n, window in enumerate(windows):
        window = np.concatenate([rest, window])
        order, bounds = cut_window(window, frames, tokens, conf, rng if shuffle else None)
        costs, shares = batch_costs(order, bounds, frames, tokens, conf)
        sizes = np.diff(bounds)
        chosen = np.arange(len(sizes))
        if n < len(windows) - 1:
            # The emptiest are made anew with the next window's: those at the end of a bucket or of all.
            empty = int((shares < HALF_FULL).sum())
            chosen = np.sort(np.argsort(shares, kind="stable")[empty + (len(shares) - empty) % group :])
            out = np.setdiff1d(np.arange(len(sizes)), chosen)
            rest = order[_spans(bounds[out], sizes[out])]
        else:
            bounds = halve_to_multiple(bounds, costs, group)
            costs, _ = batch_costs(order, bounds, frames, tokens, conf)
            sizes, chosen = np.diff(bounds), np.arange(len(bounds) - 1)
        if shuffle:
            groups = chosen[np.argsort(costs[chosen], kind="stable")].reshape(-1, group)
            chosen = rng.permuted(groups[rng.permutation(len(groups))], axis=1).ravel()
        orders.append(order[_spans(bounds[chosen], sizes[chosen])])
        counts.append(sizes[chosen])
    return np.concatenate(orders), np.concatenate([[0], np.cumsum(np.concatenate(counts))])


def _spans(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """``[start, start + 1, ..., start + size - 1]`` of each, one after the other."""
    ends = np.cumsum(sizes)
    return np.arange(int(sizes.sum())) + np.repeat(starts - (ends - sizes), sizes)


def window_size(frames: np.ndarray, tokens: np.ndarray, conf: dict[str, Any], group: int) -> int:
    """``WINDOW``, or more where its batches would be too few to find ``group`` that cost the same."""
    if conf["batch_type"] == "static":
        size = conf["batch_size"]
    elif conf["batch_type"] == "bucket":
        size = max(conf["bucket_batch_sizes"])
    else:
        size = conf["max_frames_in_batch"] / max(1.0, frames.mean() if len(frames) else 1.0)
        size = min(size, conf["max_tokens_in_batch"] / max(1.0, tokens.mean() if len(tokens) else 1.0))
    return max(WINDOW, round(16 * group * size))


def draw_windows(
    block: np.ndarray | None, count: int, size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Rows 0 to ``count`` - 1, shuffled, in windows of about ``size``; the rows of a block are in one window."""
    if block is None:
        block = np.zeros(count, np.int64)
    ids, inverse, counts = np.unique(block, return_inverse=True, return_counts=True)
    blocks = rng.permutation(len(ids))
    middle = np.cumsum(counts[blocks]) - counts[blocks] / 2
    windows = max(1, round(count / size))
    number = np.empty(len(ids), np.int64)
    number[blocks] = np.minimum(middle * windows // max(1, count), windows - 1)
    order = rng.permutation(count)
    of_row = number[inverse[order]]
    order = order[np.argsort(of_row, kind="stable")]
    cuts = np.cumsum(np.bincount(of_row, minlength=windows))[:-1]
    return [w for w in np.split(order, cuts) if len(w)] or [order]


def cut_window(
    rows: np.ndarray,
    frames: np.ndarray,
    tokens: np.ndarray,
    conf: dict[str, Any],
    rng: np.random.Generator | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The batches of some rows, as ``plan_batches`` returns them; without ``rng`` strictly by length."""
    f, t = frames[rows], tokens[rows]
    kind = conf["batch_type"]
    if kind == "pack":
        order, bounds = fill_packs(f, t, conf["max_frames_in_batch"], conf["max_tokens_in_batch"])
        return rows[order], bounds
    bucket = np.searchsorted(conf["bucket_boundaries"], f, side="right") if kind == "bucket" else f * 0
    if rng is None:
        order = np.lexsort((t, f))
    else:
        # Bands begin elsewhere in every window, so that no two utterances are always parted or always together;
        # by multiplication, since a logarithm's last bit is not the same on all machines.
        edges = [1 + BAND * rng.random()]
        while edges[-1] < f.max(initial=0):
            edges.append(edges[-1] * (1 + BAND))
        band = np.searchsorted(edges, f)
        order = np.lexsort((band, bucket))  # stable, and the rows come shuffled
    if kind == "dynamic":
        cuts = cut_dynamic(
            f[order].tolist(), t[order].tolist(), conf["max_frames_in_batch"], conf["max_tokens_in_batch"]
        )
    else:
        cuts = []
        sizes = conf["bucket_batch_sizes"] if kind == "bucket" else [conf["batch_size"]]
        starts = np.searchsorted(bucket[order], np.arange(len(sizes) + 1))
        for start, end, size in zip(starts[:-1], starts[1:], sizes):
            cuts += range(start, end, size)
    return rows[order], np.array([*cuts, len(rows)], np.int64)


def cut_dynamic(frames: list[int], tokens: list[int], max_frames: int, max_tokens: int) -> list[int]:
    """Where batches begin, each as long as longest x count is within both budgets."""
    cuts = []
    longest = most = count = 0
    for i, (f, t) in enumerate(zip(frames, tokens)):
        longest = f if f > longest else longest
        most = t if t > most else most
        count += 1
        if count == 1 or longest * count > max_frames or most * count > max_tokens:
            cuts.append(i)
            longest, most, count = f, t, 1
    return cuts


def batch_costs(
    order: np.ndarray, bounds: np.ndarray, frames: np.ndarray, tokens: np.ndarray, conf: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """(B,) frames with padding of each batch, and the share of its budget that is used."""
    sizes = np.diff(bounds)
    costs, words = np.zeros(len(sizes)), np.zeros(len(sizes))
    kind, full = conf["batch_type"], sizes > 0
    if full.any():
        starts = bounds[:-1][full]  # between two of them there are only empty batches
        f, t = frames[order].astype(np.int64), tokens[order].astype(np.int64)
        if kind == "pack":
            costs[full], words[full] = np.add.reduceat(f, starts), np.add.reduceat(t, starts)
        else:
            costs[full] = np.maximum.reduceat(f, starts) * sizes[full]
            words[full] = np.maximum.reduceat(t, starts) * sizes[full]
    if kind in ("dynamic", "pack"):
        return costs, np.maximum(costs / conf["max_frames_in_batch"], words / conf["max_tokens_in_batch"])
    if kind == "static":
        return costs, sizes / conf["batch_size"]
    longest = costs / np.maximum(sizes, 1)
    bucket = np.searchsorted(conf["bucket_boundaries"], longest, side="right")
    return costs, sizes / np.array(conf["bucket_batch_sizes"])[bucket]


def halve_to_multiple(bounds: np.ndarray, costs: np.ndarray, group: int) -> np.ndarray:
    """Halve the costliest batches of several utterances until there are a multiple of ``group``; then add empty
    ones."""
    cuts, left = bounds.tolist(), costs.tolist()
    while (len(cuts) - 1) % group:
        several = [i for i in range(len(left)) if cuts[i + 1] - cuts[i] > 1]
        if not several:
            cuts += [cuts[-1]] * (-(len(cuts) - 1) % group)
            break
        i = max(several, key=lambda i: left[i])
        cuts.insert(i + 1, (cuts[i] + cuts[i + 1]) // 2)
        left[i : i + 1] = [left[i] / 2] * 2
    return np.array(cuts, np.int64)
