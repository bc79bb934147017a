"""The least edits from a reference to a hypothesis: the way, and how many of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Edits(NamedTuple):
    """Counts of a shortest way from a reference to a hypothesis."""

    substitutions: int
    insertions: int
    deletions: int


def edit_path(ref: Sequence[str], hyp: Sequence[str]) -> str:
    """A shortest way from reference to hypothesis (Levenshtein), the one WeNet's compute-wer.py takes.

    Several shortest ways may exist, and they differ in what is paired. The one taken is found from the
    end backwards: a deletion where it is on a shortest way, else an insertion, else the pair.

    Returns:
        a letter a step: ``C`` a pair of equal tokens, ``S`` of different ones, ``D`` a token of the
        reference alone, ``I`` one of the hypothesis alone.

    >>> edit_path("a b c".split(), "b c d".split())
    'DCCI'
    """
    # A common beginning is paired whatever follows, so it needs no table. (A common end is not: "b" of
    # "b b" may be paired with either.)
    common = 0
    for a, b in zip(ref, hyp):
        if a != b:
            break
        common += 1
    i, j = len(ref) - common, len(hyp) - common
    back = []  # the steps, last one first
    if i and j:
        down, right = _rises(ref[common:], hyp[common:])
        while i and j:
            bit = 1 << (i - 1)
            if down[j - 1] & bit:
                back.append("D")
                i -= 1
            elif right[j - 1] & bit:
                back.append("I")
                j -= 1
            else:
                i, j = i - 1, j - 1
                back.append("C" if ref[common + i] == hyp[common + j] else "S")
    return "C" * common + "D" * i + "I" * j + "".join(reversed(back))


def count_edits(ref: Sequence[str], hyp: Sequence[str]) -> Edits:
    """How many edits `edit_path` has of each kind; their sum is the least number (Levenshtein).

    >>> count_edits("a b".split(), "b c".split())
    Edits(substitutions=0, insertions=1, deletions=1)
    """
    if ref == hyp:
        return Edits(0, 0, 0)
    path = edit_path(ref, hyp)
    return Edits(path.count("S"), path.count("I"), path.count("D"))


def _rises(ref: Sequence[str], hyp: Sequence[str]) -> tuple[list[int], list[int]]:
    """Where the table of distances rises, a column a hypothesis token, as the bits of whole numbers.

    With ``d(i, j)`` the distance of the first ``i`` tokens of ``ref`` to the first ``j`` of ``hyp``, bit
    ``i - 1`` of ``down[j - 1]`` is set where ``d(i, j) > d(i - 1, j)``, and of ``right[j - 1]`` where
    ``d(i, j) > d(i, j - 1)``. Neighbours differ by at most one, so a column takes a dozen operations on
    whole numbers of ``len(ref)`` bits (Myers 1999; Hyyro 2003, figure 3), and no table is kept.
    """
    places: dict[str, int] = {}
    for i, token in enumerate(ref):
        places[token] = places.get(token, 0) | 1 << i
    every = (1 << len(ref)) - 1
    up, low = every, 0  # d(i, j) - d(i - 1, j) is +1, is -1
    down, right = [], []
    for token in hyp:
        same = places.get(token, 0) | low
        kept = (((same & up) + up) ^ up) | same  # d(i, j) == d(i - 1, j - 1)
        rise = low | (every & ~(kept | up))  # d(i, j) - d(i, j - 1) is +1
        fall = kept & up
        right.append(rise)
        rise = rise << 1 | 1
        low = rise & kept & every
        up = (fall << 1 | ~(kept | rise)) & every
        down.append(up)
    return down, right
