"""The files of a decode: ``MODE/text`` as WeNet's ``recognize.py`` writes it, ``answers.jsonl`` beside it."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from wenet_osum.dataset.index import Index
from wenet_osum.fileio import atomic_write, sweep
from wenet_osum.tasks import Task
from wenet_osum.tasks.answer import Answer

Row = dict[str, Any]  # a line of answers.jsonl


def answer_row(
    key: str,
    task: Task,
    raw: str,
    answer: Answer | None = None,
    probabilities: Mapping[str, Mapping[str, float]] | None = None,
    drafted: tuple[int, int] = (0, 0),
) -> Row:
    """A line of ``answers.jsonl``.

    Args:
        raw: the answer as the model wrote it. answer: the same parsed; None: it is parsed here.
        probabilities: label field -> value -> its share of 1.
        drafted: tokens that drafts proposed, and those of them that were right.

    Returns:
        ``key``, ``task``, ``raw``, ``text``, each label by its field's name; where there are any ``align``
        (``[[start, end, word], ...]``), ``reply``, ``problems``, ``probabilities``, ``proposed`` and ``accepted``.
    """
    answer = answer or task.parse(raw)
    row: Row = {"key": key, "task": task.name, "raw": raw, "text": answer.text, **answer.labels}
    if answer.words is not None:
        row["align"] = [list(w) for w in answer.words]
    if task.reply:
        row["reply"] = answer.reply
    if answer.problems:
        row["problems"] = answer.problems
    if probabilities:
        row["probabilities"] = {name: rounded(shares) for name, shares in probabilities.items()}
    if drafted[0]:
        row["proposed"], row["accepted"] = drafted
    return row


def rounded(shares: Mapping[str, float], digits: int = 4) -> dict[str, float]:
    """Shares of 1 with so many digits, which sum to 1 as before: what rounding down leaves goes to those that lost
    most by it."""
    unit = 10**digits
    whole = {name: int(share * unit) for name, share in shares.items()}
    lost = sorted(shares, key=lambda name: whole[name] - shares[name] * unit)
    for name in lost[: round(sum(shares.values()) * unit) - sum(whole.values())]:
        whole[name] += 1
    return {name: n / unit for name, n in whole.items()}


@contextlib.contextmanager
def answer_files(folder: Path) -> Iterator[Callable[[Row], None]]:
    """Write ``text`` (WeNet: key, blank, text) and ``answers.jsonl`` in a folder by the function it gives, row by
    row; they are there when the block ends well."""
    with swept(folder / "answers.jsonl") as answers, swept(folder / "text") as text:

        def add(row: Row) -> None:
            text.write(f"{row['key']} {' '.join(row['raw'].split())}\n")
            answers.write(json.dumps(row, ensure_ascii=False) + "\n")

        yield add


@dataclass
class Totals:
    """What was found of a task: utterances answered, causes of those set aside, tokens that drafts proposed and
    those of them that were right."""

    answered: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    proposed: int = 0
    accepted: int = 0


def merge(
    entries: Iterable[dict[str, Any]], index: Index, modes: Sequence[str], folders: dict[str, Path]
) -> dict[str, Totals]:
    """Write the files of all tasks and modes.

    Args:
        entries: of every row of the index in order: ``row``, and ``answers`` (mode -> task -> row) or
            ``skipped``; as ``recognize`` keeps them.
        folders: task -> where its ``MODE/text`` goes, and the list of what was set aside.

    Returns:
        task -> what was found.
    """
    totals = {name: Totals() for name in folders}
    with contextlib.ExitStack() as stack:
        add = {
            (mode, name): stack.enter_context(answer_files(folder / mode))
            for name, folder in folders.items()
            for mode in modes
        }
        aside = {name: stack.enter_context(swept(skipped_list(folder))) for name, folder in folders.items()}

        def set_aside(name: str, skipped: dict[str, str]) -> None:
            aside[name].write(json.dumps(skipped, ensure_ascii=False) + "\n")
            totals[name].skipped[skipped["cause"]] += 1

        for name in folders:
            for skipped in index.skipped:
                set_aside(name, skipped)
        for entry in entries:
            for name in index.tasks[entry["row"]]:
                if "skipped" in entry:
                    set_aside(name, entry["skipped"])
                    continue
                totals[name].answered += 1
                for mode in modes:
                    row = entry["answers"][mode][name]
                    add[mode, name](row)
                    totals[name].proposed += row.get("proposed", 0)
                    totals[name].accepted += row.get("accepted", 0)
    return totals


def swept(path: Path) -> contextlib.AbstractContextManager[IO[Any]]:
    """``atomic_write``, after what a run that was killed in it has left is gone."""
    sweep(path)
    return atomic_write(path)


def skipped_list(folder: Path) -> Path:
    """Where what was set aside is listed: WeNet's recipes decode into the model's own folder, where training has
    its list."""
    training = (folder / "train.yaml").is_file()
    return folder / ("decode.skipped.jsonl" if training else "skipped.jsonl")
