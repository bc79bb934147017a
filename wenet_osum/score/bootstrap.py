"""Percentile bootstrap over utterances, one for all scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_BLOCK_CELLS = 4_000_000  # of the (draws, kinds of rows) weight matrix held at once: 32 MB


@dataclass(frozen=True)
class Draws:
    """How resamples are drawn: their number, and the seed of numpy's default generator."""

    count: int = 1000
    seed: int = 0


DEFAULT = Draws()


def interval(
    rows: npt.ArrayLike,
    statistic: Callable[[FloatArray], FloatArray],
    weights: npt.ArrayLike | None = None,
    draws: Draws = DEFAULT,
) -> list[float] | None:
    """Percentile interval of a score that is computed from sums over utterances.

    Utterances are drawn with replacement, as many as there are, ``draws.count`` times; the score is
    computed for every draw; the interval holds the central 95 % of those scores (Efron and
    Tibshirani 1993, ch. 13). Utterances are the unit because the tokens of one are not independent
    (Bisani and Ney, ICASSP 2004).

    Args:
        rows: (N, K) what each utterance adds to the K sums.
        statistic: (R, K) sums over each of R draws -> (R,) scores; NaN where a draw leaves it undefined.
        weights: (N,) how many utterances share a row; one each by default.
        draws: how many, and from which seed; the same input and seed give the same interval.

    Returns:
        ``[low, high]`` in the statistic's unit, or None with fewer than two utterances or where
        no draw defines the score: there is then nothing to tell the spread from.

    Example:
        >>> interval([[1, 1], [0, 1]], lambda s: s[:, 0] / s[:, 1])
        [0.0, 1.0]
    """
    table = np.asarray(rows, dtype=np.float64)
    share = np.ones(len(table)) if weights is None else np.asarray(weights, dtype=np.float64)
    table, share = table[share > 0], share[share > 0]
    utterances = round(float(share.sum()))
    if utterances < 2:
        return None
    # Equal rows are drawn together: the same distribution, whatever the order, and far fewer numbers.
    table, kind = np.unique(table, axis=0, return_inverse=True)
    share = np.bincount(kind.ravel(), weights=share) / utterances
    rng = np.random.default_rng(draws.seed)
    block = max(1, _BLOCK_CELLS // len(table))
    scores = []
    for first in range(0, draws.count, block):
        drawn = rng.multinomial(utterances, share, size=min(block, draws.count - first))
        with np.errstate(divide="ignore", invalid="ignore"):
            scores.append(statistic(drawn @ table))
    values = np.concatenate(scores)
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return [float(low), float(high)]


def ratio(sums: FloatArray) -> FloatArray:
    """Column 0 over column 1, in percent: the statistic of error rates and accuracies."""
    return 100.0 * sums[:, 0] / np.where(sums[:, 1] == 0, np.nan, sums[:, 1])
