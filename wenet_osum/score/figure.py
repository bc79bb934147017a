"""A score as what every utterance adds to it: one form for values, intervals and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wenet_osum.score.bootstrap import DEFAULT, Draws, FloatArray, IntArray, central, resample

Statistic = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Figure:
    """A score that is computed from sums over utterances.

    Attributes:
        rows: (K, D) what an utterance may add to the D sums.
        kinds: (N,) the row that each utterance adds, in the order of the references.
        statistic: (R, D) sums of R sets of utterances -> (R,) scores; NaN where a set leaves it undefined.
    """

    rows: FloatArray
    kinds: IntArray
    statistic: Statistic

    @classmethod
    def of(cls, table: npt.ArrayLike, statistic: Statistic, columns: int = 2) -> Figure:
        """From what each utterance adds, (N, ``columns``).

        Example:
            >>> Figure.of([[1, 4], [0, 4]], ratio).value
            12.5
        """
        rows, kinds = np.unique(
            np.asarray(table, dtype=np.float64).reshape(-1, columns), axis=0, return_inverse=True
        )
        return cls(rows, kinds.ravel(), statistic)

    @property
    def counts(self) -> IntArray:
        """(K,) how many utterances add each row."""
        return np.bincount(self.kinds, minlength=len(self.rows))

    @property
    def value(self) -> float | None:
        """The score, in the statistic's unit; None where it is undefined."""
        value = float(scores_of(self.statistic, (self.counts @ self.rows)[None])[0])
        return None if np.isnan(value) else value

    def interval(self, draws: Draws = DEFAULT) -> list[float] | None:
        """``[low, high]``: the middle 95 % of the scores of the draws (`bootstrap.resample`).

        None with fewer than two utterances or where no draw defines the score: there is then nothing to tell
        the spread from.

        Example:
            >>> Figure.of([[1, 1], [0, 1]], ratio).interval()
            [0.0, 100.0]
        """
        if len(self.kinds) < 2:
            return None
        return central(scores_of(self.statistic, resample(self.rows, self.counts, draws)))


def render(tree: Mapping[str, Any], draws: Draws = DEFAULT) -> dict[str, Any]:
    """A tree of results with every figure in it as JSON has it.

    A figure under ``value`` becomes its value, and ``interval`` after it; under another name ``accuracy``
    it becomes ``accuracy`` and ``accuracy_interval``. All else stays.
    """
    result: dict[str, Any] = {}
    for name, part in tree.items():
        if isinstance(part, Figure):
            result[name] = part.value
            result["interval" if name == "value" else f"{name}_interval"] = part.interval(draws)
        else:
            result[name] = render(part, draws) if isinstance(part, Mapping) else part
    return result


def ratio(sums: FloatArray) -> FloatArray:
    """Column 0 over column 1, in percent: the statistic of error rates and accuracies."""
    return mean(sums * [100.0, 1.0])


def mean(sums: FloatArray) -> FloatArray:
    """Column 0 over column 1."""
    return sums[:, 0] / np.where(sums[:, 1] == 0, np.nan, sums[:, 1])


def scores_of(statistic: Statistic, sums: FloatArray) -> FloatArray:
    """(R, D) sums -> (R,) scores, without a word where one is undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return statistic(sums)
