"""How many tokens were substituted, inserted and deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Edits(NamedTuple):
    """Counts of a shortest way from a reference to a hypothesis."""

    substitutions: int
    insertions: int
    deletions: int


def count_edits(ref: Sequence[str], hyp: Sequence[str]) -> Edits:
    """The least number of edits (Levenshtein), split as WeNet's compute-wer.py splits it.

    Several shortest ways may exist, and they differ in the split. The one taken is found from the end
    backwards: a deletion where it is on a shortest way, else an insertion, else the pair.

    >>> count_edits("a b".split(), "b c".split())
    Edits(substitutions=0, insertions=1, deletions=1)
    """
    ids = {token: i for i, token in enumerate({*ref, *hyp})}
    heard = np.array([ids[token] for token in hyp], dtype=np.int64)
    steps = np.arange(len(hyp) + 1)
    least = np.empty((len(ref) + 1, len(hyp) + 1), dtype=np.int32)  # edits of the two beginnings
    least[0] = steps
    for i, token in enumerate(ref):
        row = least[i] + 1
        row[1:] = np.minimum(row[1:], least[i, :-1] + (heard != ids[token]))
        # An insertion costs 1 a step to the right, whatever it starts from.
        least[i + 1] = np.minimum.accumulate(row - steps) + steps
    i, j = len(ref), len(hyp)
    substitutions = insertions = deletions = 0
    while i and j:
        if least[i - 1, j] < least[i, j]:
            deletions, i = deletions + 1, i - 1
        elif least[i, j - 1] < least[i, j]:
            insertions, j = insertions + 1, j - 1
        else:
            i, j = i - 1, j - 1
            substitutions += ref[i] != hyp[j]
    return Edits(substitutions, insertions + j, deletions + i)
