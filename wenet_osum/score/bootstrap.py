"""Percentile bootstrap over utterances, one for all scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_BLOCK_CELLS = 4_000_000  # of the (draws, kinds of rows) matrix of counts held at once: 32 MB


@dataclass(frozen=True)
class Draws:
    """How resamples are drawn: their number, and the seed of numpy's default generator."""

    count: int = 1000
    seed: int = 0


DEFAULT = Draws()


def resample(rows: FloatArray, counts: IntArray, draws: Draws = DEFAULT) -> FloatArray:
    """The sums over utterances drawn with replacement, as many as there are (Efron and Tibshirani 1993, ch. 13).

    Utterances are the unit because the tokens of one are not independent (Bisani and Ney, ICASSP 2004).

    Args:
        rows: (K, D) what an utterance may add to D sums.
        counts: (K,) how many utterances add each of them. Those are drawn together: the same
            distribution, whatever the order of the utterances, and often far fewer numbers.
        draws: how many, and from which seed; the same input and seed give the same sums.

    Returns:
        (draws.count, D) the sums of every draw.
    """
    rows, counts = rows[counts > 0], counts[counts > 0]
    utterances = int(counts.sum())
    rng = np.random.default_rng(draws.seed)
    block = max(1, _BLOCK_CELLS // len(rows))
    sums = np.empty((draws.count, rows.shape[1]))
    owner = np.repeat(np.arange(len(rows)), counts)
    for first in range(0, draws.count, block):
        size = min(block, draws.count - first)
        # Both ways draw from the same distribution; a number of the multinomial takes ten times as long as
        # an utterance's.
        if 10 * len(rows) < utterances:
            drawn = rng.multinomial(utterances, counts / utterances, size=size).astype(np.float64)
        else:
            drawn = np.empty((size, len(rows)))
            for draw in drawn:
                picked = owner[rng.integers(utterances, size=utterances, dtype=np.uint32)]
                draw[:] = np.bincount(picked, minlength=len(rows))
        sums[first : first + size] = drawn @ rows
    return sums


def central(values: FloatArray, share: float = 0.95) -> list[float] | None:
    """``[low, high]`` of the middle ``share`` of the values; None without any. NaN: a draw that leaves
    the score undefined; it is passed over."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2])
    return [float(low), float(high)]
