"""How large a batch may be: the worst batches that a size allows, and the search for the largest size.

The idea is that of NeMo's OOMptimizer: run the worst batch of each bucket for real, double its size until it
does not fit, then bisect. Here a size stands for every batch that the plan may make of it, so that an
utterance of another length cannot end a run after a day. Pure functions; ``train.trial`` runs the batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from wenet_osum.errors import OsumError

MOST = 1024  # the search ends at so many of the longest utterances in a batch
CLOSE = 0.05  # ... or when the sizes that do and do not fit are this share apart


class Shape(NamedTuple):
    """A batch of ``rows`` equal utterances of so many 10 ms frames and answer tokens."""

    rows: int
    frames: int
    tokens: int


class Room:
    """What ``filter_conf`` lets through, in whole frames and tokens.

    Raises:
        OsumError: nothing.
    """

    def __init__(self, limits: dict[str, Any]):
        self.limits = limits
        span = range(max(1, math.ceil(limits["min_length"])), math.floor(limits["max_length"]) + 1)
        self.lengths = [n for n in span if self.least(n) <= self.most(n)]
        if not self.lengths:
            mend = "widen max_length, token_max_length or the ratios"
            raise OsumError("dataset_conf.filter_conf", "lets no utterance through", mend)
        self.shortest, self.longest = self.lengths[0], self.lengths[-1]
        # The shortest of those that may have the most tokens there are.
        self.wordy = max(self.lengths, key=self.most)

    def least(self, frames: int) -> int:
        """The fewest answer tokens that an utterance of so many frames may have."""
        low = math.ceil(self.limits["min_output_input_ratio"] * frames - 1e-9)
        return max(1, self.limits["token_min_length"], low)

    def most(self, frames: int) -> int:
        """The most answer tokens that an utterance of so many frames may have."""
        high = math.floor(self.limits["max_output_input_ratio"] * frames + 1e-9)
        return int(min(self.limits["token_max_length"], high))


def worst_by_budget(frames: int, tokens: int, room: Room) -> list[Shape]:
    """The batches that fill ``max_frames_in_batch`` and ``max_tokens_in_batch`` in different ways.

    Memory grows with frames, with tokens, with rows (each has a prompt), and with the length of a row. So:
    the longest utterances; as many as there can be of the shortest; the longest answers; and the single
    utterance that is over a budget, which the plan lets go alone.
    """
    shapes = [Shape(1, room.longest, room.most(room.longest))]
    for length in (room.longest, room.wordy, room.shortest):
        rows = max(1, frames // length)
        # Both budgets are full when the rows share the tokens.
        each = max(room.least(length), min(room.most(length), tokens // rows))
        shapes.append(Shape(max(1, min(rows, tokens // each)), length, each))
    most = room.most(room.wordy)
    shapes.append(Shape(max(1, min(frames // room.wordy, tokens // most)), room.wordy, most))
    return undominated(shapes)


def worst_by_count(rows: int, room: Room, least: int = 0, below: float = math.inf) -> list[Shape]:
    """The one worst batch of ``rows`` utterances of ``least`` to under ``below`` frames: all the longest, with
    the longest answers; none where ``filter_conf`` lets no such utterance through."""
    inside = [n for n in room.lengths if least <= n < below]
    return [Shape(rows, inside[-1], room.most(inside[-1]))] if inside else []


def undominated(shapes: list[Shape]) -> list[Shape]:
    """The shapes that no other one exceeds in everything, without repeats."""
    kept: list[Shape] = []
    for shape in dict.fromkeys(shapes):
        others = (s for s in shapes if s != shape)
        if not any(all(a <= b for a, b in zip(shape, other)) for other in others):
            kept.append(shape)
    return kept


def feature_frames(frames: int, conf: dict[str, Any]) -> int:
    """Feature frames of an utterance that the plan counts as so many 10 ms frames; ``conf``: ``dataset_conf``.

    Slowed down by ``speed_perturb`` it is longer than the plan knows, up to ``max_length``.
    """
    mel, rate = conf["log_mel_spectrogram_conf"], conf["resample_conf"]["resample_rate"]
    if mel["pad_or_trim"]:
        return int(mel["max_duration"] * rate // mel["hop_length"])
    if conf["speed_perturb"]:
        slowest = min(1.0, *conf["speed_perturb_conf"]["speeds"])
        frames = min(math.ceil(frames / slowest), math.floor(conf["filter_conf"]["max_length"]))
    return max(1, int((frames * rate // 100 + mel["padding"]) // mel["hop_length"]))


def largest(fits: Callable[[int], bool], first: int, most: int) -> int:
    """The largest size from ``first`` to ``most`` that fits, within ``CLOSE``; 0 if ``first`` does not.

    ``fits`` must not come back to True once it was False. It is asked at ``first``, then at twice the last
    size that fitted, then between that and the first that did not.
    """
    if not fits(first):
        return 0
    low, high = first, most + 1
    while low < most and high > most:
        size = min(2 * low, most)
        low, high = (size, high) if fits(size) else (low, size)
    while high <= most and high - low > max(1, CLOSE * low):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
