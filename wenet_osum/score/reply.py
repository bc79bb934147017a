"""Scores of free answers against a reference: exact match, BLEU, chrF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from wenet_osum.score.bootstrap import DEFAULT, Draws, FloatArray
from wenet_osum.score.figure import Figure, ratio, render
from wenet_osum.score.normalizer import without_marks
from wenet_osum.text.normalize import process_text

_PART = 1000  # references whose n-grams are held at once


def same_answer(ref: str, hyp: str) -> bool:
    """Equal after OSUM's text rule and `normalizer.without_marks` (case, spaces, 17 marks).

    >>> same_answer("It is Monday!", "it is monday")
    True
    """
    return without_marks(process_text(ref)) == without_marks(process_text(hyp))


def reply_scores(refs: Mapping[str, str], hyps: Mapping[str, str], draws: Draws = DEFAULT) -> dict[str, Any]:
    """Exact-answer rate, corpus BLEU and chrF in [0, 100], with bootstrap intervals over utterances.

    ``value`` (``exact``) = percent of references answered exactly (`same_answer`). BLEU and chrF
    are sacrebleu's (Post 2018; Popovic 2015), their ``signature`` beside them. BLEU's tokeniser is
    ``zh``: it cuts Chinese into characters and other text as ``13a``. Effective n-gram order is on,
    because a set of answers shorter than four words would have BLEU 0 otherwise; it
    changes nothing as soon as some answer is longer. An absent hypothesis is an empty answer.

    Args:
        refs: key -> reference answer.
        hyps: key -> answer.
    """
    return render(reply_tree(refs, hyps), draws)


def reply_tree(refs: Mapping[str, str], hyps: Mapping[str, str]) -> dict[str, Any]:
    """What `figure.render` makes `reply_scores`'."""
    ref_texts = [process_text(ref) for ref in refs.values()]
    hyp_texts = [process_text(hyps.get(key, "")) for key in refs]
    right = [without_marks(r) == without_marks(h) for r, h in zip(ref_texts, hyp_texts, strict=True)]
    return {
        "metric": "exact",
        "value": Figure.of([(r, 1) for r in right], ratio),
        "bleu": _corpus_score(BLEU(tokenize="zh", effective_order=True), ref_texts, hyp_texts),
        "chrf": _corpus_score(CHRF(), ref_texts, hyp_texts),
        "counts": {"utterances": len(right), "exact": sum(right)},
    }


def _corpus_score(metric: Any, refs: list[str], hyps: list[str]) -> dict[str, Any] | None:
    if not refs:
        return None
    # sacrebleu's own bootstrap takes its seed from the environment and gives mean and half-width;
    # its per-sentence counts (not public API, steady since 2.0) let ours serve here too.
    # A part at a time, for it holds the n-grams of all the references that it is given: 15 kB of each.
    parts = range(0, len(refs), _PART)
    counts = np.concatenate(
        [metric._extract_corpus_statistics(hyps[i : i + _PART], [refs[i : i + _PART]]) for i in parts]
    )

    def statistic(sums: FloatArray) -> FloatArray:
        # it formats the counts as integers
        return np.array([metric._compute_score_from_stats([round(x) for x in row]).score for row in sums])

    return {
        "value": Figure.of(counts, statistic, columns=counts.shape[1]),
        "signature": str(metric.get_signature()),
    }
