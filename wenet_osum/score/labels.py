"""Scores of closed label sets: accuracy, macro F1, unweighted average recall, confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from wenet_osum.errors import OsumError
from wenet_osum.score.bootstrap import DEFAULT, Draws, FloatArray
from wenet_osum.score.figure import Figure, Statistic, render

NO_ANSWER = "(none)"  # column of the confusion matrix: no hypothesis, or none that parses


def label_scores(
    refs: Mapping[str, str],
    hyps: Mapping[str, str],
    values: Sequence[str],
    draws: Draws = DEFAULT,
) -> dict[str, Any]:
    """Scores of one label field, in percent, each with its bootstrap interval over utterances.

    ``accuracy`` = right / references. ``uar`` = mean over classes of recall (unweighted average
    recall, the balanced accuracy of the emotion challenges). ``macro_f1`` = mean over classes of
    2 TP / (2 TP + FP + FN). Both means are over the classes that occur in the references: a class
    without one has no recall. No answer is wrong in all three: it costs its class recall and no class
    precision.

    Args:
        refs: key -> reference label.
        hyps: key -> predicted label; absent when there was no hypothesis or no such label in it.
        values: the label set, in the order of the matrix.

    Returns:
        the figures, ``recall`` per class, and ``confusion``: {"labels", "columns", "matrix"} with a
        row a reference label and a column an answer, the last column `NO_ANSWER`.

    Raises:
        OsumError: a label outside ``values``.
    """
    return render(label_tree(refs, hyps, values), draws)


def label_tree(refs: Mapping[str, str], hyps: Mapping[str, str], values: Sequence[str]) -> dict[str, Any]:
    """What `figure.render` makes `label_scores`'."""
    columns = [*values, NO_ANSWER]
    index = {label: i for i, label in enumerate(columns)}
    rows = {label: i * len(columns) for i, label in enumerate(values)}
    cells = []
    for key, ref in refs.items():
        hyp = hyps.get(key, NO_ANSWER)
        if ref not in rows or hyp not in index:
            bad = hyp if ref in rows else ref
            raise OsumError(key, f"{bad!r} is none of {', '.join(values)}", "correct it or add an alias")
        cells.append(rows[ref] + index[hyp])

    shape = len(values), len(columns)
    kinds = np.array(cells, dtype=np.int64)
    tree: dict[str, Any] = {
        # an utterance adds one to its cell
        name: Figure(np.eye(shape[0] * shape[1]), kinds, partial(_percent, statistic, shape))
        for name, statistic in _STATISTICS.items()
    }
    matrix = np.bincount(kinds, minlength=shape[0] * shape[1]).reshape(shape)
    right, support = np.diagonal(matrix), matrix.sum(1)
    tree["recall"] = {v: 100.0 * float(r / n) for v, r, n in zip(values, right, support, strict=True) if n}
    tree["confusion"] = {"labels": list(values), "columns": columns, "matrix": matrix.tolist()}
    return tree


def _percent(statistic: Statistic, shape: tuple[int, int], cells: FloatArray) -> FloatArray:
    return 100.0 * statistic(cells.reshape(-1, *shape))


# The statistics take a stack of confusion matrices (R, C, C + 1) and give (R,) shares in [0, 1].


def _accuracy(matrix: FloatArray) -> FloatArray:
    return _divide(_hits(matrix).sum(1), matrix.sum((1, 2)))


def _uar(matrix: FloatArray) -> FloatArray:
    return _mean_of_defined(_divide(_hits(matrix), matrix.sum(2)))


def _macro_f1(matrix: FloatArray) -> FloatArray:
    support, answered = matrix.sum(2), matrix[:, :, :-1].sum(1)
    f1 = _divide(2 * _hits(matrix), support + answered)
    return _mean_of_defined(np.where(support > 0, f1, np.nan))


_STATISTICS = {"accuracy": _accuracy, "macro_f1": _macro_f1, "uar": _uar}


def _hits(matrix: FloatArray) -> FloatArray:
    return np.diagonal(matrix, axis1=1, axis2=2)


def _divide(a: FloatArray, b: FloatArray) -> FloatArray:
    return a / np.where(b == 0, np.nan, b)


def _mean_of_defined(per_class: FloatArray) -> FloatArray:
    defined = ~np.isnan(per_class)
    return _divide(np.where(defined, per_class, 0.0).sum(1), defined.sum(1).astype(np.float64))
