"""The table of scores, on the terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from wenet_osum.fileio import atomic_write

TASK_ORDER = ("asr", "srwt", "ved", "ser", "ssr", "sgc", "sap", "sttc")

_NAMES = {
    "mer": ("mixed error rate", "%"),
    "wer": ("word error rate", "%"),
    "cer": ("character error rate", "%"),
    "aas_ms": ("average absolute shift", "ms"),
    "accuracy": ("accuracy", "%"),
    "exact": ("exact answers", "%"),
}

Scores = Mapping[str, Mapping[str, Any]]


def ordered(scores: Scores) -> dict[str, Mapping[str, Any]]:
    """The eight tasks in the paper's order, then others by name."""
    rank = {name: i for i, name in enumerate(TASK_ORDER)}
    return {name: scores[name] for name in sorted(scores, key=lambda n: (rank.get(n, len(rank)), n))}


def write_scores(scores: Scores, path: str | Path) -> None:
    """Write task name -> `score.score_task`'s result as strict JSON (None where undefined, no NaN).

    The same scores give the same bytes; the file appears whole or not at all.
    """
    with atomic_write(path) as f:
        json.dump(ordered(scores), f, ensure_ascii=False, indent=2, allow_nan=False)
        f.write("\n")


COLUMNS = (
    *(("task", "left"), ("metric", "left"), ("value", "right"), ("interval", "right")),
    *(("utts", "right"), ("missing", "right"), ("unparseable", "right"), ("beside", "left")),
)
CAPTION = "interval: 95 %, bootstrap over utterances"


def table_row(name: str, score: Mapping[str, Any]) -> list[str]:
    """A task's row of the table, a cell for each of `COLUMNS`."""
    metric, unit = name_of(score["metric"])
    counts = score["counts"]
    return [
        name,
        metric,
        _number(score["value"], unit),
        _interval(score["interval"]),
        *(str(counts[what]) for what in ("utterances", "missing", "unparseable")),
        "; ".join(_beside(score)),
    ]


def format_table(scores: Scores, title: str = "") -> Table:
    """A rich table with a row a task: metric, value, interval, counts, and what stands beside it."""
    table = Table(title=title or None, caption=CAPTION)
    for name, justify in COLUMNS:
        table.add_column(name, justify=justify, no_wrap=name != "beside")  # type: ignore[arg-type]
    for name, score in ordered(scores).items():
        table.add_row(*table_row(name, score))
    return table


def name_of(metric: str) -> tuple[str, str]:
    """What a metric is called in words, and its unit."""
    return _NAMES.get(metric, (metric, ""))


COMPARED = (
    *(("task", "left"), ("score", "left"), ("value", "right"), ("other", "right")),
    *(("difference", "right"), ("interval", "right"), ("p", "right")),
)
COMPARED_CAPTION = "interval of the difference: 95 %, paired bootstrap over utterances"


def comparison_rows(scores: Scores) -> list[list[str]]:
    """A row a score of each task that was compared (`compare.compare`), a cell for each of `COMPARED`."""
    return [
        [
            task,
            name,
            _number(found["value"]),
            _number(found["other"]),
            _number(found["difference"]),
            _interval(found["interval"]),
            "" if found["p"] is None else f"{found['p']:.3f}",
        ]
        for task, score in ordered(scores).items()
        for name, found in score.get("against", {}).get("scores", {}).items()
    ]


def format_comparison(scores: Scores, title: str = "") -> Table:
    """A rich table of `comparison_rows`."""
    table = Table(title=title or None, caption=COMPARED_CAPTION)
    for name, justify in COMPARED:
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in comparison_rows(scores):
        table.add_row(*row)
    return table


def _beside(score: Mapping[str, Any]) -> list[str]:
    parts = []
    for lang, rate in score.get("by_lang", {}).items():
        parts.append(f"{lang} {rate['metric'].upper()} {_number(rate['value'], '%')}")
    if "aligned" in score:
        parts.append(f"aligned words {_number(score['aligned'], '%')}")
    for name, field in score.get("fields", {}).items():
        # a single field's accuracy is the value itself
        accuracy = f"accuracy {_number(field['accuracy'], '%')}, " if len(score["fields"]) > 1 else ""
        parts.append(f"{name}: {accuracy}F1 {_number(field['macro_f1'])}, UAR {_number(field['uar'])}")
    for name in ("bleu", "chrf", "judge"):
        if score.get(name):
            parts.append(f"{name} {_number(score[name]['value'])}")
    if "transcript" in score:
        transcript = score["transcript"]
        parts.append(f"transcript {transcript['metric'].upper()} {_number(transcript['value'], '%')}")
    return parts


def _number(value: float | None, unit: str = "") -> str:
    return "undefined" if value is None else f"{value:.2f} {unit}".rstrip()


def _interval(bounds: list[float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.2f} .. {bounds[1]:.2f}"
