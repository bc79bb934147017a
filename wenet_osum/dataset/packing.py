"""Fill packs: several utterances in one row without padding, the sum of their lengths as near to a budget as can be."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

# How many of the next utterances are tried as the last but one of a pack.
_TRIES = 8


def fill_packs(
    frames: np.ndarray, tokens: np.ndarray, max_frames: int, max_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Put utterances together so that sums of frames and of tokens are within the budgets; one that is over a
    budget by itself goes alone.

    A pack takes utterances as they come until no more than two of the longest fit. Then it takes the pair, of
    one of the next few and one of all that are left, that fills it best, for as long as something fits.

    Args:
        frames, tokens: (N,) lengths, in random order.

    Returns:
        order (N,), bounds (P + 1,): pack i is ``order[bounds[i]:bounds[i + 1]]``.
    """
    pool = _Pool(frames, tokens)
    order: list[int] = []
    bounds = [0]
    reach = 2 * int(np.quantile(frames, 0.9)) if len(frames) else 0
    while pool.rest:
        first = pool.next()
        room, words = max_frames - pool.frames[first], max_tokens - pool.tokens[first]
        pack = [first]
        pool.take(first)
        while pool.rest:
            following = pool.next()
            if room - pool.frames[following] < reach or pool.tokens[following] > words:
                break
            room, words = room - pool.frames[following], words - pool.tokens[following]
            pool.take(following)
            pack.append(following)
        while pool.rest and (chosen := _best(pool, room, words)):
            for i in chosen:
                room, words = room - pool.frames[i], words - pool.tokens[i]
                pool.take(i)
            pack += chosen
        order += pack
        bounds.append(len(order))
    return np.array(order, np.int64), np.array(bounds, np.int64)


def _best(pool: _Pool, room: int, words: int) -> list[int]:
    """The one or two of a pool that fill ``room`` best; none where none fits."""
    alone = pool.longest(room, words)
    if alone is None:
        return []
    best, left = [alone], room - pool.frames[alone]
    for i in pool.upcoming(_TRIES):
        if left == 0:
            break
        if pool.frames[i] > room or pool.tokens[i] > words:
            continue
        other = pool.longest(room - pool.frames[i], words - pool.tokens[i], but=i)
        over = room - pool.frames[i] - (pool.frames[other] if other is not None else 0)
        if over < left:
            best, left = [i] if other is None else [i, other], over
    return best


class _Pool:
    """What is not packed yet: as it comes, and by length."""

    def __init__(self, frames: np.ndarray, tokens: np.ndarray):
        self.frames: list[int] = frames.tolist()
        self.tokens: list[int] = tokens.tolist()
        self._taken = bytearray(len(frames))
        self._at = 0  # before it everything is taken
        self.rest = len(frames)
        # Length x N + number: equal lengths are told apart by one search.
        self._by_length: list[int] = np.sort(
            frames.astype(np.int64) * len(frames) + np.arange(len(frames))
        ).tolist()

    def next(self) -> int:
        """The first as they come."""
        while self._taken[self._at]:
            self._at += 1
        return self._at

    def upcoming(self, count: int) -> list[int]:
        """The first ``count`` as they come."""
        out = []
        for i in range(self.next(), len(self._taken)):
            if not self._taken[i]:
                out.append(i)
                if len(out) == count:
                    break
        return out

    def longest(self, room: int, words: int, but: int = -1) -> int | None:
        """The longest that fits, other than ``but``, among the few next below ``room``."""
        count = len(self.frames)
        end = bisect_left(self._by_length, (room + 1) * count)
        for at in range(end - 1, max(-1, end - 1 - _TRIES), -1):
            i = self._by_length[at] % count
            if i != but and self.tokens[i] <= words:
                return i
        return None

    def take(self, i: int) -> None:
        self._taken[i] = 1
        self.rest -= 1
        del self._by_length[bisect_left(self._by_length, self.frames[i] * len(self.frames) + i)]
