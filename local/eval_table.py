#!/usr/bin/env python3
"""The tables of the OSUM paper with one's own figures beside them: printed, and written as JSON and Markdown.

    python local/eval_table.py --checkpoint exp/tiny/final.pt --config exp/tiny/train.yaml \\
        --results exp/eval --given librispeech,aishell1

Reads ``RESULTS/decode/CORPUS/SUBSET/scores.json`` (of ``osum score``) for the corpora that were given, and writes
``RESULTS/eval.json`` and ``RESULTS/eval.md``. A row whose corpus was not given stands there as ``not given``, one
whose subset the given corpus lacks as ``not there``, one that nobody has public data for as ``no public data``, one
that was not decoded and scored yet as ``not scored``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval_rows import PAPER, TABLES, Row, Rows, read_rows  # beside this script

sys.path.append(str(Path(__file__).resolve().parent.parent))  # it runs uninstalled too

from wenet_osum.checkpoint.assemble import config_path, load_table
from wenet_osum.config import load_config
from wenet_osum.errors import OsumError, run_main
from wenet_osum.fileio import atomic_write
from wenet_osum.tasks import TaskTable, load_tasks
from wenet_osum.tasks.prompts import prompt_text

ROWS = Path(__file__).resolve().parent.parent / "examples/osum/eval_rows.yaml"


def get_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=Path, default=ROWS, help="YAML of the rows")
    parser.add_argument("--checkpoint", required=True, help="the model that was decoded with")
    parser.add_argument("--config", help="its train.yaml; default: that of a model folder")
    parser.add_argument("--results", type=Path, required=True, help="eval.sh's --dir")
    parser.add_argument("--given", default="", help="corpora that were given, with commas between")
    parser.add_argument("--mode", default="llm_greedy", help="of decoding")
    parser.add_argument("--partial", default="", help="corpora whose counts were not checked, likewise")
    return parser.parse_args(argv)


def find(scores: Mapping[str, Any], path: str) -> float | None:
    """The number at ``a.b.c`` of nested dicts, None where there is none."""
    value: Any = scores
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, (int, float)) else None


def fill(row: Row, results: Path, given: Sequence[str]) -> dict[str, Any]:
    """``state``, and for a measured row ``value``, ``interval`` and ``counts``.

    Raises:
        OsumError: a scores.json that cannot be read.
    """
    if not row.corpus:
        return {"state": "no public data"}
    if row.corpus not in given:
        return {"state": "not given"}
    prepared = results / "data" / row.corpus
    if prepared.is_dir() and not (prepared / row.subset).is_dir():
        return {"state": "not there"}
    path = results / "decode" / row.corpus / row.subset / "scores.json"
    if not path.is_file():
        return {"state": "not scored"}
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise OsumError(str(path), f"no JSON ({e})", "score again: eval.sh --stage 3") from None
    if row.task not in scores:
        return {"state": "not scored"}
    found = scores[row.task]
    value = find(found, row.score)
    beside = {name: find(found, f"{name}.value") for name in ("bleu", "chrf")}
    part = found
    for key in row.score.split(".")[:-1]:
        part = part.get(key) or {}
    state = "measured" if value is not None else "undefined"
    if "." in row.score and not part:
        state = f"no {row.score.partition('.')[0]}"
    return {
        "state": state,
        "value": value,
        "interval": part.get("interval"),
        "counts": found["counts"],
        **({"judge": part["model"]} if "model" in part else {}),
        "beside": {name: number for name, number in beside.items() if number is not None},
    }


def corpora_of(flag: str, names: str, rows: Rows) -> list[str]:
    """The corpora that a flag names.

    Raises:
        OsumError: one that the rows do not have.
    """
    corpora = [name for name in names.split(",") if name]
    for name in corpora:
        if name not in rows.corpora:
            raise OsumError(flag, f"no corpus {name!r}", f"take some of {', '.join(rows.corpora)}")
    return corpora


def table_of(args: argparse.Namespace, rows: Rows) -> dict[str, Any]:
    """Everything that eval.json holds."""
    configs = load_config(config_path(args.config, args.checkpoint))
    tasks: TaskTable = load_table(configs)
    prompts = configs["dataset_conf"]["prompt_conf"]
    given = corpora_of("--given", args.given, rows)
    return {
        "checkpoint": args.checkpoint,
        "mode": args.mode,
        "counts_not_checked": corpora_of("--partial", args.partial, rows),
        "rows": [
            {
                "name": row.name,
                "table": row.table,
                "task": row.task,
                "corpus": row.corpus,
                "subset": row.subset,
                "measure": row.measure,
                "normalizer": rows.normalizer,
                "prompt": prompt_text(tasks[row.task], row.lang, prompts, 0),
                **fill(row, args.results, given),
                "paper": row.paper,
                "note": row.note,
            }
            for row in rows.rows
        ],
    }


def number(value: float | None) -> str:
    """Two digits, or nothing where there is no figure."""
    return "" if value is None else f"{value:.2f}"


def grid(rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table with its columns in line; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def markdown(result: Mapping[str, Any]) -> str:
    """Both tables, then how each row was measured."""
    lines = [f"# {result['checkpoint']} ({result['mode']}) beside the paper", ""]
    if partial := result["counts_not_checked"]:
        what = f"The counts of {', '.join(partial)} were not checked against the published ones"
        lines += [f"{what} (--allow_partial).", ""]
    for table, title in TABLES.items():
        cells = [["row", "measure", "measured", "95 % interval", *PAPER.values()]]
        for row in result["rows"]:
            if row["table"] == table:
                bounds = row.get("interval")
                measured = row["state"] if row.get("value") is None else number(row["value"])
                interval = f"{bounds[0]:.2f} .. {bounds[1]:.2f}" if bounds else ""
                paper = [number(row["paper"].get(system)) for system in PAPER]
                cells.append([row["name"], row["measure"], measured, interval, *paper])
        lines += [f"## {title}", "", *grid(cells), ""]
    return "\n".join([*lines, "## How each row is measured", "", *map(_how, result["rows"]), ""])


def _how(row: Mapping[str, Any]) -> str:
    data = f"{row['corpus']} {row['subset']}" if row["corpus"] else "data of the paper's authors alone"
    parts = [f'{data}; task {row["task"]}, asked "{row["prompt"]}"; normaliser {row["normalizer"]}']
    if "counts" in row:
        counts = row["counts"]
        parts.append(
            f"{counts['utterances']} utterances, {counts['missing']} without an answer (errors), "
            f"{counts['unparseable']} with one that cannot be read"
        )
    if "judge" in row:
        parts.append(f"judged by {row['judge']}")
    if row.get("beside"):
        parts.append(", ".join(f"{name} {value:.2f}" for name, value in row["beside"].items()))
    return f"- {row['name']}: " + "; ".join([*parts, *filter(None, [row["note"]])])


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    args = get_args(argv)
    result = table_of(args, read_rows(args.rows, load_tasks()))
    text = markdown(result)
    with atomic_write(args.results / "eval.json") as f:
        json.dump(result, f, ensure_ascii=False, indent=2, allow_nan=False)
        f.write("\n")
    with atomic_write(args.results / "eval.md") as f:
        f.write(text)
    print(text, end="")
    return 0


if __name__ == "__main__":
    run_main(main)
