"""Whether two systems differ on the same utterances: a paired bootstrap for every score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from wenet_osum.score.bootstrap import DEFAULT, Draws, central, resample
from wenet_osum.score.figure import Figure, scores_of

Tree = Mapping[str, Any]


def compare_figures(figure: Figure, other: Figure, draws: Draws = DEFAULT) -> dict[str, Any]:
    """One score of two systems, and how sure their difference is.

    Each draw takes the same utterances of both (paired bootstrap: Koehn, EMNLP 2004; Bisani and Ney, ICASSP
    2004), so that what is hard for both weighs on neither.

    Args:
        figure, other: the same score of both, over the same utterances in the same order.

    Returns:
        ``value`` and ``other`` of the two; ``difference``, the first less the second; ``interval``, the
        middle 95 % of the draws' differences; ``p``, two-sided: twice the share of draws on the far side of
        no difference, the data counted as one draw more (Davison and Hinkley 1997, section 4.2), so with R
        draws no less than 2 / (R + 1). None where the data do not tell: a score that is undefined, fewer
        than two utterances.
    """
    pairs, counts = np.unique(np.stack([figure.kinds, other.kinds], 1), axis=0, return_counts=True)
    rows = np.hstack([figure.rows[pairs[:, 0]], other.rows[pairs[:, 1]]])
    value, less = figure.value, other.value
    result: dict[str, Any] = {
        "value": value,
        "other": less,
        "difference": None if value is None or less is None else value - less,
        "interval": None,
        "p": None,
    }
    if len(figure.kinds) < 2 or result["difference"] is None:
        return result
    sums = resample(rows, counts, draws)
    columns = figure.rows.shape[1]
    drawn = scores_of(figure.statistic, sums[:, :columns]) - scores_of(other.statistic, sums[:, columns:])
    drawn = drawn[~np.isnan(drawn)]
    sides = [(1 + int(side.sum())) / (1 + len(drawn)) for side in (drawn <= 0, drawn >= 0)]
    return result | {"interval": central(drawn), "p": min(1.0, 2 * min(sides))}


def compare(tree: Tree, other: Tree, draws: Draws = DEFAULT) -> dict[str, dict[str, Any]]:
    """Every score that two trees of one task both hold (`score.score_tree` on the same references).

    Returns:
        the score's name (`figures_of`) -> see `compare_figures`.
    """
    others = dict(figures_of(other))
    return {name: compare_figures(f, others[name], draws) for name, f in figures_of(tree) if name in others}


def figures_of(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Figure]]:
    """Every score of a tree, with a name of its own: ``accuracy``, ``emotion macro_f1``, ``transcript mer``."""
    for name, part in tree.items():
        if isinstance(part, Figure):
            last = tree.get("metric", "") if name == "value" else name
            yield " ".join(dict.fromkeys([*path, last])).strip(), part
        elif name == "fields" and len(part) == 1:  # whose accuracy is the value itself
            yield from figures_of({k: {**v, "accuracy": None} for k, v in part.items()}, path)
        elif isinstance(part, Mapping):
            # these two only hold the scores apart
            yield from figures_of(part, path if name in ("fields", "by_lang") else (*path, name))
