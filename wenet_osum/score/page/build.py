"""What the page shows, put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from markupsafe import Markup

from wenet_osum.score.bootstrap import DEFAULT, Draws
from wenet_osum.score.figure import Figure
from wenet_osum.score.page import svg
from wenet_osum.score.page.clips import Clips
from wenet_osum.score.page.examples import Example, describe
from wenet_osum.score.page.groups import Breakdown, Group, binned, breakdowns, counted
from wenet_osum.score.page.outcomes import Outcome, Sample, outcomes, seconds_of
from wenet_osum.score.page.run_facts import RunFacts, set_aside
from wenet_osum.score.page.worst import read_shares, sureness, worst
from wenet_osum.score.report import COLUMNS, comparison_rows, name_of, ordered, table_row
from wenet_osum.score.score import language_of
from wenet_osum.tasks import Task, TaskTable
from wenet_osum.text.normalize import split_words


@dataclass(frozen=True)
class Limits:
    """How much is shown: utterances a task, and characters of base64 audio in all."""

    worst: int = 10
    audio: int = 8_000_000


@dataclass(frozen=True)
class Decoded:
    """A decoded task: its answers (key -> text), the file they stand in (``TASK/MODE/text``), and its figure (``value``
    of `score.score_tree`)."""

    task: Task
    hyps: Mapping[str, str]
    path: Path
    figure: Figure


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix: a row a label of the references, a column an answer.

    Attributes:
        rows: of each label: name, counts, recall in percent (None without references).
        precision: of each column in percent (None without answers).
    """

    field: str
    columns: list[str]
    rows: list[tuple[str, list[int], float | None]]
    precision: list[float | None]


@dataclass
class TaskPart:
    """A task's section of the page; ``sure``: whether the model's probabilities are known."""

    task: Task
    metric: str
    unit: str
    score: Mapping[str, Any]
    utterances: int
    wrong: int
    sure: bool
    confusions: list[Confusion]
    plots: list[Markup]
    groups: list[tuple[Breakdown, list[tuple[Group, Markup]]]]
    examples: list[Example]


@dataclass
class Page:
    """The page. ``rows``: of the table of scores, each with the mark of its interval; ``compared``: rows of the comparison
    with another decode, if there was one."""

    title: str
    facts: RunFacts
    columns: Sequence[tuple[str, str]]
    rows: list[tuple[list[str], Markup]]
    compared: list[list[str]]
    data: list[tuple[str, str]]
    histograms: list[Markup]
    parts: list[TaskPart]
    clips: Clips
    set_aside: Counter[str] = field(default_factory=Counter)


def build_page(
    title: str,
    scores: Mapping[str, Mapping[str, Any]],
    decoded: Mapping[str, Decoded],
    samples: Sequence[Sample],
    tasks: TaskTable,
    facts: RunFacts,
    normalizer: str = "wenet",
    draws: Draws = DEFAULT,
    limits: Limits = Limits(),
) -> Page:
    """Put the page together.

    Args:
        scores: task name -> `score.score_task`'s result. decoded: the same tasks' answers.
        samples: the references.
        normalizer, draws: those the scores were made with.

    Raises:
        OsumError: a malformed ``answers.jsonl`` or list of utterances set aside.
    """
    scores = ordered(scores)
    parts = [_part(decoded[name], scores[name], samples, tasks, normalizer, draws, limits) for name in scores]
    by_key = {sample["key"]: sample for sample in samples}
    clips = Clips(limits.audio)
    chosen = [[(o.key, e) for o, e in shown] for _, shown in parts]
    # In turn, so that no task takes all the room.
    for rank in zip_longest(*chosen):
        for key, example in filter(None, rank):
            example.sound = clips.take(by_key[key])
    folders = [d.path.parent.parent for d in decoded.values()]
    return Page(
        title,
        facts,
        COLUMNS,
        [(table_row(name, score), _mark(score)) for name, score in scores.items()],
        comparison_rows(scores),
        _data(samples),
        _histograms(samples),
        [part for part, _ in parts],
        clips,
        set_aside(folders),
    )


def _part(
    decoded: Decoded,
    score: Mapping[str, Any],
    samples: Sequence[Sample],
    tasks: TaskTable,
    normalizer: str,
    draws: Draws,
    limits: Limits,
) -> tuple[TaskPart, list[tuple[Outcome, Example]]]:
    task = decoded.task
    found = outcomes(task, samples, decoded.hyps, decoded.figure)
    shares = read_shares(decoded.path.with_name("answers.jsonl")) if task.fields else {}
    shown, wrong = worst(task, found, shares, limits.worst)
    fields = list(tasks.fields.values())
    examples = [(o, describe(task, o, fields, normalizer, shares.get(o.key, {}))) for o in shown]
    metric, unit = name_of(score["metric"])
    part = TaskPart(
        task,
        metric,
        unit,
        score,
        len(found),
        wrong,
        bool(shares),
        [_confusion(name, f["confusion"]) for name, f in score.get("fields", {}).items()],
        _plots(decoded, found, shares, metric, unit, draws),
        _groups(decoded, found, tasks, draws),
        [example for _, example in examples],
    )
    return part, examples


def _confusion(name: str, confusion: Mapping[str, Any]) -> Confusion:
    matrix = confusion["matrix"]
    rows = []
    for i, (label, counts) in enumerate(zip(confusion["labels"], matrix)):
        rows.append((label, counts, 100 * counts[i] / sum(counts) if sum(counts) else None))
    sums = [sum(column) for column in zip(*matrix)][: len(matrix)]
    precision = [100 * matrix[i][i] / n if n else None for i, n in enumerate(sums)]
    return Confusion(name, confusion["columns"], rows, precision)


def _plots(
    decoded: Decoded,
    found: Sequence[Outcome],
    shares: Mapping[str, Any],
    metric: str,
    unit: str,
    draws: Draws,
) -> list[Markup]:
    """The figure by duration, by length, by how sure the model was; those that the data allow."""
    task = decoded.task
    kinds: list[tuple[str, str, Any, float]] = [("duration", "seconds", lambda o: o.seconds, 0.1)]
    if task.transcript:
        kinds.append(("length of the reference", "tokens", lambda o: o.tokens, 1.0))
    if shares:

        def sure(o: Outcome) -> float | None:
            return sureness(o, shares[o.key]) if o.hyp and o.key in shares else None

        kinds.append(("the answer's probability", "probability", sure, 0.1))
    plots = []
    for what, x_name, x, finest in kinds:
        bins = binned(found, decoded.figure, x, draws, finest)
        if bins:
            plots.append(svg.binned_plot(bins, f"{metric} by {what}", x_name, unit, _right_is_high(task)))
    return plots


def _groups(
    decoded: Decoded, found: Sequence[Outcome], tasks: TaskTable, draws: Draws
) -> list[tuple[Breakdown, list[tuple[Group, Markup]]]]:
    task = decoded.task
    own = set(task.fields)
    fields = [f for f in tasks.fields.values() if f not in own]
    result = []
    for kind in breakdowns(found, decoded.figure, fields, not _right_is_high(task), draws):
        top = 100.0 if _right_is_high(task) else svg.axis_top(kind.groups)
        result.append((kind, [(g, svg.interval_mark(g.value, g.interval, top)) for g in kind.groups]))
    return result


def _right_is_high(task: Task) -> bool:
    """Whether the task's figure is a share of right answers, and not of errors or a shift."""
    return not task.align and bool(task.fields or task.reply)


def _mark(score: Mapping[str, Any]) -> Markup:
    if name_of(score["metric"])[1] != "%":
        return Markup("")
    return svg.interval_mark(score["value"], score["interval"], 100.0)


def _data(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    seconds = [s for sample in samples if (s := seconds_of(sample)) is not None]
    languages = Counter(language_of(sample) for sample in samples)
    speakers = {sample["speaker"] for sample in samples if sample.get("speaker")}
    rows = [("utterances", f"{len(samples)}")]
    if seconds:
        of = "" if len(seconds) == len(samples) else f" (known of {len(seconds)} utterances)"
        total = f"{sum(seconds) / 3600:.2f} h" if sum(seconds) >= 3600 else f"{sum(seconds) / 60:.1f} min"
        rows.append(("speech", f"{total}{of}; {min(seconds):.1f} to {max(seconds):.1f} s an utterance"))
    else:
        rows.append(("speech", "durations are not in the data (utt2dur, or duration in a list)"))
    if speakers:
        rows.append(("speakers", f"{len(speakers)}"))
    languages_text = ", ".join(f"{name} {n}" for name, n in sorted(languages.items()))
    rows.append(("languages", languages_text))
    return rows


def _histograms(samples: Sequence[Sample]) -> list[Markup]:
    seconds = [s for sample in samples if (s := seconds_of(sample)) is not None]
    tokens = [float(len(split_words(sample["txt"]))) for sample in samples if sample.get("txt")]
    plots = []
    for values, title, x_name in (
        (seconds, "utterances by duration", "seconds"),
        (tokens, "utterances by length", "words and Chinese characters"),
    ):
        if bins := counted(values):
            plots.append(svg.histogram(bins, title, x_name))
    return plots
