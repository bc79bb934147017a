"""Scores of free answers against a reference: exact match, BLEU, chrF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from wenet_osum.score import bootstrap
from wenet_osum.score.bootstrap import DEFAULT, Draws, FloatArray
from wenet_osum.score.normalizer import without_marks
from wenet_osum.text.normalize import process_text


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
    pairs = [(ref, hyps.get(key, "")) for key, ref in refs.items()]
    right = [(float(same_answer(r, h)), 1.0) for r, h in pairs]
    return {
        "metric": "exact",
        "value": 100.0 * sum(r for r, _ in right) / len(right) if right else None,
        "interval": bootstrap.interval(right, bootstrap.ratio, draws=draws),
        "bleu": _corpus_score(BLEU(tokenize="zh", effective_order=True), pairs, draws),
        "chrf": _corpus_score(CHRF(), pairs, draws),
        "counts": {"utterances": len(pairs), "exact": int(sum(r for r, _ in right))},
    }


def _corpus_score(metric: Any, pairs: list[tuple[str, str]], draws: Draws) -> dict[str, Any] | None:
    if not pairs:
        return None
    refs, hyps = [process_text(r) for r, _ in pairs], [process_text(h) for _, h in pairs]
    value = metric.corpus_score(hyps, [refs]).score
    signature = str(metric.get_signature())
    # sacrebleu's own bootstrap takes its seed from the environment and gives mean and half-width;
    # its per-sentence counts (not public API, steady since 2.0) let ours serve here too.
    counts = np.array(metric._extract_corpus_statistics(hyps, [refs]), dtype=np.float64)

    def statistic(sums: FloatArray) -> FloatArray:
        # it formats the counts as integers
        return np.array([metric._compute_score_from_stats([int(x) for x in row]).score for row in sums])

    return {
        "value": value,
        "interval": bootstrap.interval(counts, statistic, draws=draws),
        "signature": signature,
    }
