"""How far timestamps are off: the average absolute shift of aligned words (AAS)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wenet_osum.score.bootstrap import DEFAULT, Draws, FloatArray
from wenet_osum.score.edits import edit_path
from wenet_osum.score.figure import Figure, ratio, render
from wenet_osum.score.normalizer import without_marks
from wenet_osum.tasks import Word


def word_shifts(refs: Sequence[Word], hyps: Sequence[Word]) -> list[tuple[float, float]]:
    """(start shift, end shift) in seconds, hypothesis minus reference, of each word both have.

    The two word sequences are aligned by `edits.edit_path`, case and tags aside; words that were
    substituted, inserted or deleted have no counterpart and so no shift.
    """
    shifts = []
    r = h = 0
    for step in edit_path([_token(w) for w in refs], [_token(w) for w in hyps]):
        if step == "C":
            shifts.append((hyps[h].start - refs[r].start, hyps[h].end - refs[r].end))
        r, h = r + (step != "I"), h + (step != "D")
    return shifts


def shift_scores(
    refs: Mapping[str, Sequence[Word]],
    hyps: Mapping[str, Sequence[Word]],
    draws: Draws = DEFAULT,
) -> dict[str, Any]:
    """AAS and its companions over a set of utterances.

    ``value`` (``aas_ms``) = mean of the absolute start and end shifts, over the boundaries of all
    aligned words, in milliseconds (accumulated averaging shift, Shi et al. 2023, arXiv:2301.12343).
    ``token_sum_ms`` = mean over aligned words of the sum of both shifts, twice the former: it is
    what the AAS script of FunASR prints, and those made after it, OSUM's author's among them; compare like
    with like.
    ``aligned`` = percent of reference words that have a shift. A missing or wordless hypothesis
    adds no shift but lowers ``aligned``, so the two are to be read together.
    ``start_bias_ms`` and ``end_bias_ms`` are mean signed shifts (positive: too late).

    Args:
        refs: key -> words with their times in seconds.
        hyps: the same; a key may be absent.

    Returns:
        a part of `score.score_task`'s result; value, interval and biases are None where nothing is aligned.
    """
    return render(shift_tree(refs, hyps), draws)


def shift_tree(refs: Mapping[str, Sequence[Word]], hyps: Mapping[str, Sequence[Word]]) -> dict[str, Any]:
    """What `figure.render` makes `shift_scores`'."""
    rows = []  # per utterance: sums of |start|, |end|, start, end; aligned words; reference words
    for key, words in refs.items():
        shifts = word_shifts(words, hyps.get(key, ()))
        starts, ends = [s for s, _ in shifts], [e for _, e in shifts]
        absolute = sum(map(abs, starts)), sum(map(abs, ends))
        rows.append([*absolute, sum(starts), sum(ends), len(shifts), len(words)])
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    start, end, start_signed, end_signed, aligned, ref_words = (math.fsum(column) for column in table.T)
    per_word = 1000.0 / aligned if aligned else None
    return {
        "metric": "aas_ms",
        "value": Figure.of(np.column_stack([table[:, 0] + table[:, 1], 2 * table[:, 4]]), _milliseconds),
        "aligned": Figure.of(table[:, 4:6], ratio),
        "token_sum_ms": (start + end) * per_word if per_word else None,
        "start_bias_ms": start_signed * per_word if per_word else None,
        "end_bias_ms": end_signed * per_word if per_word else None,
        "counts": {"utterances": len(refs), "ref_words": int(ref_words), "aligned_words": int(aligned)},
    }


def _milliseconds(sums: FloatArray) -> FloatArray:
    return 10.0 * ratio(sums)


def _token(word: Word) -> str:
    # a word made of nothing but marks still has a place in the alignment
    return without_marks(word.word).replace(" ", "") or "".join(word.word.split()) or "<>"
