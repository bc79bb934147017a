"""Which token of a hypothesis stands for which of the reference."""

from __future__ import annotations

from collections.abc import Sequence

from wenet_osum.score.edits import edit_path

Pairs = list[tuple[str | None, str | None]]


def align(ref: Sequence[str], hyp: Sequence[str]) -> Pairs:
    """The tokens of both sides, in order, as ``(of the reference, of the hypothesis)``.

    None stands where one side has nothing: ``(None, token)`` was inserted, ``(token, None)`` deleted.
    The alignment is `edits.edit_path`'s, the one compute-wer.py prints, so the pairs that
    differ are those `edits.count_edits` counts.

    >>> align("the cat sat".split(), "a cat".split())
    [('the', 'a'), ('cat', 'cat'), ('sat', None)]
    """
    left, right = iter(ref), iter(hyp)
    return [
        (next(left) if step != "I" else None, next(right) if step != "D" else None)
        for step in edit_path(ref, hyp)
    ]
