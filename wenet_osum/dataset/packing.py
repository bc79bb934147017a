"""Fill packs: several utterances in one row without padding, the sum of their lengths as near to a budget as can be."""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np

_TRIES = 16  # packs that are looked at before a new one is begun


def fill_packs(
    frames: np.ndarray, tokens: np.ndarray, max_frames: int, max_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Put utterances together so that sums of frames and of tokens are within the budgets; one that is over a
    budget by itself goes alone.

    Best fit decreasing (Johnson 1973): the longest first, each into the fullest pack that has room for it. What
    is longest is told by the budget that is used up first; the other one is kept to.

    Args:
        frames, tokens: (N,) lengths.

    Returns:
        order (N,), bounds (P + 1,): pack i is ``order[bounds[i]:bounds[i + 1]]``.
    """
    sizes, others, most, most_other = frames, tokens, max_frames, max_tokens
    if tokens.sum(dtype=np.int64) * max_frames > frames.sum(dtype=np.int64) * max_tokens:
        sizes, others, most, most_other = tokens, frames, max_tokens, max_frames
    packs: list[list[int]] = []
    left: list[int] = []  # of the other budget, by pack
    rooms: list[tuple[int, int]] = []  # (room, pack), the fullest first
    size, other = sizes.tolist(), others.tolist()
    for i in np.argsort(-sizes.astype(np.int64), kind="stable").tolist():
        start = bisect_left(rooms, (size[i], 0))
        for at in range(start, min(start + _TRIES, len(rooms))):
            room, pack = rooms[at]
            if left[pack] >= other[i]:
                del rooms[at]
                packs[pack].append(i)
                break
        else:
            room, pack = most, len(packs)
            packs.append([i])
            left.append(most_other)
        left[pack] -= other[i]
        insort(rooms, (room - size[i], pack))
    counts = np.cumsum([0, *map(len, packs)])
    return np.array([i for pack in packs for i in pack], np.int64), counts.astype(np.int64)
