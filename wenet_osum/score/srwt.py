"""How far timestamps are off: the average absolute shift of aligned words (AAS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jiwer
import numpy as np
from jiwer.transforms import ReduceToListOfListOfWords

from wenet_osum.score import bootstrap
from wenet_osum.score.bootstrap import DEFAULT, Draws
from wenet_osum.score.normalizer import without_marks
from wenet_osum.tasks import Word

_BY_SPACE = ReduceToListOfListOfWords()


def word_shifts(refs: Sequence[Word], hyps: Sequence[Word]) -> list[tuple[float, float]]:
    """(start shift, end shift) in seconds, hypothesis minus reference, of each word both have.

    The two word sequences are aligned by edit distance, case and tags aside; words that were
    substituted, inserted or deleted have no counterpart and so no shift.
    """
    ref_text, hyp_text = (" ".join(map(_token, words)) for words in (refs, hyps))
    chunks = jiwer.process_words([ref_text], [hyp_text], _BY_SPACE, _BY_SPACE).alignments[0]
    return [
        (hyps[h].start - refs[r].start, hyps[h].end - refs[r].end)
        for c in chunks
        if c.type == "equal"
        for r, h in zip(
            range(c.ref_start_idx, c.ref_end_idx), range(c.hyp_start_idx, c.hyp_end_idx), strict=True
        )
    ]


def shift_scores(
    refs: Mapping[str, Sequence[Word]],
    hyps: Mapping[str, Sequence[Word]],
    draws: Draws = DEFAULT,
) -> dict[str, Any]:
    """AAS and its companions over a set of utterances.

    ``value`` (``aas_ms``) = mean of the absolute start and end shifts, over the boundaries of all
    aligned words, in milliseconds (accumulated averaging shift, Shi et al. 2023, arXiv:2301.12343).
    ``token_sum_ms`` = mean over aligned words of the sum of both shifts, twice the former: it is
    what the AAS script of FunASR prints, and the scripts made after it; compare like with like.
    ``aligned`` = percent of reference words that have a shift. A missing or wordless hypothesis
    adds no shift but lowers ``aligned``, so the two are to be read together.
    ``start_bias_ms`` and ``end_bias_ms`` are mean signed shifts (positive: too late).

    Args:
        refs: key -> words with their times in seconds.
        hyps: the same; a key may be absent.

    Returns:
        a part of `score.score_task`'s result; value, interval and biases are None where nothing is aligned.
    """
    rows = []  # per utterance: sums of |start|, |end|, start, end; aligned words; reference words
    for key, words in refs.items():
        shifts = np.array(word_shifts(words, hyps.get(key, ())), dtype=np.float64).reshape(-1, 2)
        rows.append([*np.abs(shifts).sum(0), *shifts.sum(0), len(shifts), len(words)])
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    start, end, start_signed, end_signed, aligned, ref_words = table.sum(0).tolist()
    boundaries = np.column_stack([table[:, 0] + table[:, 1], 2 * table[:, 4]])
    aligned_of_all = table[:, 4:6]
    per_word = 1000.0 / aligned if aligned else None
    return {
        "metric": "aas_ms",
        "value": (start + end) / 2 * per_word if per_word else None,
        "interval": bootstrap.interval(boundaries, _milliseconds, draws=draws),
        "aligned": 100.0 * aligned / ref_words if ref_words else None,
        "aligned_interval": bootstrap.interval(aligned_of_all, bootstrap.ratio, draws=draws),
        "token_sum_ms": (start + end) * per_word if per_word else None,
        "start_bias_ms": start_signed * per_word if per_word else None,
        "end_bias_ms": end_signed * per_word if per_word else None,
        "counts": {"utterances": len(refs), "ref_words": int(ref_words), "aligned_words": int(aligned)},
    }


def _milliseconds(sums: bootstrap.FloatArray) -> bootstrap.FloatArray:
    return 10.0 * bootstrap.ratio(sums)


def _token(word: Word) -> str:
    # a word made of nothing but marks still has a place in the alignment
    return without_marks(word.word).replace(" ", "") or "".join(word.word.split()) or "<>"
