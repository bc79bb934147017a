#!/usr/bin/env python3
"""The rows of published tables, read from YAML: see examples/osum/eval_rows.yaml for the form.

    python local/eval_rows.py examples/osum/eval_rows.yaml

prints what has to be prepared, decoded and scored for them, a line a subset with tabs between: corpus, script, subset,
its tasks, normaliser.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))  # it runs uninstalled too

from wenet_osum.errors import OsumError, run_main
from wenet_osum.fileio import read_yaml
from wenet_osum.tasks import TaskTable, load_tasks

PAPER = {"osum_v2": "OSUM v2", "osum_v1": "OSUM v1", "qwen2_audio": "Qwen2-Audio"}
TABLES = {"asr": "Speech recognition", "tasks": "Seven further tasks"}


@dataclass(frozen=True)
class Row:
    """One row; see the YAML file for what the keys mean. ``corpus`` "": no public data."""

    name: str
    table: str
    task: str
    lang: str
    measure: str
    paper: dict[str, float]
    corpus: str = ""
    subset: str = ""
    score: str = "value"
    note: str = ""


@dataclass(frozen=True)
class Rows:
    """A file of rows; ``corpora``: name -> script."""

    normalizer: str
    corpora: dict[str, str]
    rows: list[Row] = field(default_factory=list)

    def subsets(self, corpus: str) -> dict[str, list[str]]:
        """The subsets of a corpus that rows are measured on -> the tasks asked of each, in the rows' order."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row.corpus == corpus and row.task not in found.setdefault(row.subset, []):
                found[row.subset].append(row.task)
        return found


def read_rows(path: Path, tasks: TaskTable) -> Rows:
    """Read and check a file of rows.

    Raises:
        OsumError: a row with an unknown or missing key, task, table, corpus or system.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or set(content) != {"normalizer", "corpora", "rows"}:
        raise OsumError(str(path), "not a file of rows", "give it normalizer, corpora and rows")
    corpora = content["corpora"]
    rows = [_row(f"{path}: {name}", name, row, corpora, tasks) for name, row in content["rows"].items()]
    return Rows(content["normalizer"], corpora, rows)


def _row(where: str, name: str, given: Any, corpora: dict[str, str], tasks: TaskTable) -> Row:
    known = {f.name for f in fields(Row)} - {"name"}
    needed = {"table", "task", "lang", "measure", "paper"}
    if not isinstance(given, dict) or not needed <= set(given) <= known:
        raise OsumError(
            where, "malformed row", f"needs {', '.join(sorted(needed))}; knows {', '.join(sorted(known))}"
        )
    row = Row(name, **given)
    for what, value, allowed in (
        ("task", row.task, list(tasks)),
        ("table", row.table, list(TABLES)),
        ("corpus", row.corpus or next(iter(corpora)), list(corpora)),
        *(("system", system, list(PAPER)) for system in row.paper),
    ):
        if value not in allowed:
            raise OsumError(where, f"unknown {what} {value!r}", f"use one of {', '.join(allowed)}")
    if bool(row.corpus) != bool(row.subset):
        raise OsumError(where, "a corpus without subset, or the other way round", "give both or none")
    return row


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=Path, help="YAML of the rows")
    rows = read_rows(parser.parse_args(argv).rows, load_tasks())
    for corpus, script in rows.corpora.items():
        for subset, tasks in rows.subsets(corpus).items():
            print("\t".join((corpus, script, subset, ",".join(tasks), rows.normalizer)))
    return 0


if __name__ == "__main__":
    run_main(main)
