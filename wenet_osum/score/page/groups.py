"""A task's figure by language, speaker, label, duration and length."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from wenet_osum.score import bootstrap
from wenet_osum.score.bootstrap import Draws, FloatArray
from wenet_osum.score.page.outcomes import Outcome, Sample
from wenet_osum.score.score import language_of
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


_EMPTY = Group("", 0, None, None)


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
    fields: Iterable[LabelField],
    scale: float,
    lower_is_better: bool,
    draws: Draws,
) -> list[Breakdown]:
    """By language, by each of ``fields`` and by speaker, wherever there are at least two kinds.

    Labels stand in their own order. Of more than `MAX_GROUPS` speakers those are shown that are worst.
    """
    result = []
    languages = _groups(found, lambda o: language_of(o.sample), scale, draws)
    if len(languages) > 1:
        result.append(Breakdown("language", _by_name(languages)))
    for f in fields:
        groups = _groups(found, lambda o, f=f: _label(o.sample, f), scale, draws)  # type: ignore[misc]
        if len(groups) > 1:
            result.append(Breakdown(f.name, [groups[v] for v in f.values if v in groups]))
    no_draws = Draws(0)
    speakers = _groups(found, lambda o: o.sample.get("speaker"), scale, no_draws)
    if len(speakers) > 1:
        sign = -1 if lower_is_better else 1
        worst = sorted(
            speakers.values(), key=lambda g: (math.inf if g.value is None else sign * g.value, g.name)
        )
        shown = {g.name for g in worst[:MAX_GROUPS]}
        kept = _groups([o for o in found if o.sample.get("speaker") in shown], _speaker, scale, draws)
        result.append(
            Breakdown("speaker", [kept[g.name] for g in worst[:MAX_GROUPS]], len(worst) - len(kept))
        )
    return result


def binned(
    found: Sequence[Outcome], x: Callable[[Outcome], float | None], scale: float, draws: Draws
) -> list[Bin]:
    """The figure by a number that utterances have, in bins of one round width; utterances without it are left
    out. Nothing where fewer than two bins would be filled."""
    numbers = [(value, o) for o in found if (value := x(o)) is not None]
    edges = round_edges([value for value, _ in numbers])
    if len(edges) < 3:
        return []
    at = {id(o): _bin_of(value, edges) for value, o in numbers}
    groups = _groups([o for _, o in numbers], lambda o: at[id(o)], scale, draws)
    return [Bin(edges[i], edges[i + 1], groups.get(i, _EMPTY)) for i in range(len(edges) - 1)]


def counted(values: Sequence[float]) -> list[Bin]:
    """The bins of `binned`, with nothing but how many values each has."""
    edges = round_edges(values)
    if len(edges) < 3:
        return []
    counts = Counter(_bin_of(value, edges) for value in values)
    return [Bin(edges[i], edges[i + 1], Group("", counts[i], None, None)) for i in range(len(edges) - 1)]


def seconds_of(sample: Sample) -> float | None:
    """How long an utterance is, where its data tell without a look at the audio."""
    if sample.get("duration"):
        return float(sample["duration"])
    end = sample.get("end")
    return float(end) - float(sample.get("start") or 0) if end not in (None, -1) else None


def round_edges(values: Sequence[float]) -> list[float]:
    """Edges of at most `MAX_BINS` bins, each 1, 2 or 5 times a power of ten wide, from the least value to where
    99 of 100 are."""
    if not values:
        return []
    ordered = sorted(values)
    low, high = ordered[0], ordered[math.ceil(0.99 * len(ordered)) - 1]
    if high <= low:
        return []
    step = round_step((high - low) / (MAX_BINS - 1))
    first, last = math.floor(low / step + 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 9) for i in range(first, last + 2)]


def round_step(least: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(round(m * power, 12) for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))


def _groups(
    found: Iterable[Outcome], of: Callable[[Outcome], G | None], scale: float, draws: Draws
) -> dict[G, Group]:
    rows: dict[G, list[tuple[float, float]]] = {}
    for outcome in found:
        if (group := of(outcome)) is not None:
            rows.setdefault(group, []).append(outcome.adds)

    def statistic(sums: FloatArray) -> FloatArray:
        return scale / 100 * bootstrap.ratio(sums)

    result = {}
    for group, adds in rows.items():
        over, under = (sum(part) for part in zip(*adds))
        interval = bootstrap.interval(adds, statistic, draws=draws) if draws.count else None
        result[group] = Group(str(group), len(adds), scale * over / under if under else None, interval)
    return result


def _bin_of(value: float, edges: Sequence[float]) -> int:
    return max(0, min(len(edges) - 2, int((value - edges[0]) / (edges[1] - edges[0]) + 1e-9)))


def _speaker(outcome: Outcome) -> str | None:
    return outcome.sample.get("speaker")


def _label(sample: Sample, field: LabelField) -> str | None:
    value = sample.get(field.name)
    return field.canonical(str(value)) if value else None


def _by_name(groups: dict[str, Group]) -> list[Group]:
    return [groups[name] for name in sorted(groups)]
