"""A task's figure by language, speaker, label, duration and length."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from wenet_osum.score.bootstrap import Draws
from wenet_osum.score.figure import Figure
from wenet_osum.score.page.outcomes import Outcome
from wenet_osum.tasks import LabelField

MAX_GROUPS = 20  # shown of one kind; speakers can be thousands
MAX_BINS = 12

G = TypeVar("G", bound=Hashable)


@dataclass(frozen=True)
class Group:
    """Some of a task's utterances and their figure; None where it is not defined."""

    name: str
    utterances: int
    value: float | None
    interval: list[float] | None


@dataclass(frozen=True)
class Breakdown:
    """A task's utterances in groups of one kind; ``left_out``: groups that are not shown."""

    kind: str
    groups: list[Group]
    left_out: int = 0


@dataclass(frozen=True)
class Bin:
    """The utterances whose x is in ``low <= x < high``; the last bin also has all beyond it."""

    low: float
    high: float
    group: Group


def breakdowns(
    found: Sequence[Outcome],
    figure: Figure,
    fields: Iterable[LabelField],
    lower_is_better: bool,
    draws: Draws,
) -> list[Breakdown]:
    """By language, by each of ``fields`` and by speaker, wherever there are at least two kinds.

    Labels stand in their own order. Of more than `MAX_GROUPS` speakers those are shown that are worst.
    """
    result = []
    languages = _split(found, lambda o: o.language)
    if len(languages) > 1:
        result.append(Breakdown("language", _figures(languages, sorted(languages), figure, draws)))
    for f in fields:
        labels = _by_label(found, f)
        if len(labels) > 1:
            present = [value for value in f.values if value in labels]
            result.append(Breakdown(f.name, _figures(labels, present, figure, draws)))
    speakers = _split(found, lambda o: o.sample.get("speaker"))
    if len(speakers) > 1:
        sign = -1 if lower_is_better else 1
        values = {name: _part(figure, group).value for name, group in speakers.items()}
        worst = sorted(values, key=lambda n: (math.inf if (v := values[n]) is None else sign * v, n))
        shown = _figures(speakers, worst[:MAX_GROUPS], figure, draws)
        result.append(Breakdown("speaker", shown, len(worst) - len(shown)))
    return result


def binned(
    found: Sequence[Outcome],
    figure: Figure,
    x: Callable[[Outcome], float | None],
    draws: Draws,
    finest: float = 0.0,
) -> list[Bin]:
    """The figure by a number that utterances have, in bins of one round width, no less than ``finest``; utterances without it
    are left out. Nothing where fewer than two bins would be filled."""
    numbers = {o.number: value for o in found if (value := x(o)) is not None}
    edges = round_edges(list(numbers.values()), finest)
    if len(edges) < 3:
        return []
    bins = _split([o for o in found if o.number in numbers], lambda o: _bin_of(numbers[o.number], edges))
    whole = range(len(edges) - 1)
    groups = _figures({i: bins.get(i, []) for i in whole}, whole, figure, draws)
    return [Bin(edges[i], edges[i + 1], groups[i]) for i in whole]


def counted(values: Sequence[float]) -> list[Bin]:
    """The bins of `binned`, with nothing but how many values each has."""
    edges = round_edges(values)
    if len(edges) < 3:
        return []
    counts = Counter(_bin_of(value, edges) for value in values)
    return [Bin(edges[i], edges[i + 1], Group("", counts[i], None, None)) for i in range(len(edges) - 1)]


def round_edges(values: Sequence[float], finest: float = 0.0) -> list[float]:
    """Edges of at most `MAX_BINS` bins, each 1, 2 or 5 times a power of ten wide (of whole numbers no less than 1), from
    the least value to where 99 of 100 are; none where those are all the same."""
    if not values:
        return []
    ordered = sorted(values)
    low, high = ordered[0], ordered[math.ceil(0.99 * len(ordered)) - 1]
    if high - low < 1e-6 * max(1.0, abs(high)):
        return []
    least = max(finest, (high - low) / (MAX_BINS - 1))
    step = round_step(max(1.0, least) if all(value == int(value) for value in values) else least)
    first, last = math.floor(low / step + 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 2)]


def round_step(least: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(round(m * power, 12) for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))


def _split(found: Iterable[Outcome], of: Callable[[Outcome], G | None]) -> dict[G, list[int]]:
    """Group -> numbers of its utterances."""
    numbers: dict[G, list[int]] = {}
    for outcome in found:
        if (group := of(outcome)) is not None:
            numbers.setdefault(group, []).append(outcome.number)
    return numbers


def _by_label(found: Iterable[Outcome], field: LabelField) -> dict[str, list[int]]:
    canonical = functools.cache(field.canonical)
    return _split(found, lambda o: canonical(str(o.sample[field.name])) if o.sample.get(field.name) else None)


def _figures(groups: Mapping[G, list[int]], shown: Iterable[G], figure: Figure, draws: Draws) -> list[Group]:
    return [
        Group(str(name), len(groups[name]), (part := _part(figure, groups[name])).value, part.interval(draws))
        for name in shown
    ]


def _part(figure: Figure, numbers: list[int]) -> Figure:
    """The figure of some of its utterances, without the rows that none of them adds."""
    kept, kinds = np.unique(figure.kinds[np.array(numbers, dtype=np.int64)], return_inverse=True)
    return Figure(figure.rows[kept], kinds.ravel(), figure.statistic)


def _bin_of(value: float, edges: Sequence[float]) -> int:
    return max(0, min(len(edges) - 2, int((value - edges[0]) / (edges[1] - edges[0]) + 1e-9)))
