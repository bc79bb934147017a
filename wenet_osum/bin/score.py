"""Score decoded answers against references: a table on the terminal, a JSON file and a page.

Example:
    osum score --data data/test/data.list --decode_dir exp/tiny/decode --output exp/tiny/scores.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from wenet_osum.bin.score_report import add_report_flags, check_report_flags, report_facts, write_report
from wenet_osum.errors import OsumError, run_main
from wenet_osum.fileio import atomic_write
from wenet_osum.score.bootstrap import Draws
from wenet_osum.score.compare import compare
from wenet_osum.score.endpoint import Endpoint
from wenet_osum.score.figure import render
from wenet_osum.score.files import find_decoded, read_hypotheses, read_references
from wenet_osum.score.judge import judge_tree
from wenet_osum.score.normalizer import NORMALIZERS, get_normalizer
from wenet_osum.score.report import format_comparison, format_table, write_scores
from wenet_osum.score.score import score_tree
from wenet_osum.score.wenet_tokens import cuts_words
from wenet_osum.tasks import TaskTable, load_tasks

# A table that goes to a file or a log is not cut to a terminal's 80 columns.
_WIDTH_OF_A_FILE = 160
_KEY = "OPENAI_API_KEY"


def get_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="osum score", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", required=True, help="references: a Kaldi data dir or a raw list")
    parser.add_argument("--decode_dir", required=True, help="holds TASK/MODE/text for each decoded task")
    parser.add_argument("--mode", default="llm_greedy", help="decoding mode to score")
    parser.add_argument(
        "--task_conf", action="append", default=[], metavar="YAML", help="files with further tasks"
    )
    parser.add_argument("--output", help="JSON file of the scores (DECODE_DIR/scores.json)")
    parser.add_argument("--svg", help="also draw the table here")
    parser.add_argument("--require", default="", help="tasks (a,b,c) that must have a score, else exit 1")
    parser.add_argument(
        "--normalizer",
        default="wenet",
        help=f"for transcripts: {', '.join(NORMALIZERS)} or whisper_en:normalizer.json",
    )
    parser.add_argument(
        "--against", metavar="DECODE_DIR", help="another decode of the same data to compare with"
    )
    parser.add_argument("--against_mode", help="decoding mode of that (as --mode)")
    parser.add_argument("--judge", metavar="URL", help=f"chat endpoint that grades replies; key: ${_KEY}")
    parser.add_argument("--judge_model", help="the judge's model, as its endpoint calls it")
    parser.add_argument(
        "--judge_body",
        type=json.loads,
        default={"temperature": 0},
        help="JSON of further fields of a request",
    )
    parser.add_argument("--resamples", type=int, default=1000, help="draws of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    add_report_flags(parser)
    args = parser.parse_args(argv)
    check_report_flags(parser, args)
    if args.resamples < 1:
        parser.error("--resamples: give a positive number")
    if args.seed < 0:
        parser.error("--seed: give 0 or more")
    if bool(args.judge) != bool(args.judge_model):
        parser.error("give --judge and --judge_model together")
    if not isinstance(args.judge_body, dict):
        parser.error("--judge_body: give a JSON object")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = get_args(argv)
    tasks = load_tasks(*args.task_conf)
    required = [tasks.find(name).name for name in args.require.split(",") if name.strip()]
    get_normalizer(args.normalizer)  # what is wrong is told before the work, not after
    if args.against:
        find_decoded(args.against, args.against_mode or args.mode, tasks)
    facts = None if args.no_report else report_facts(args)
    samples = read_references(args.data, tasks)

    if args.normalizer == "wenet" and (cut := sum(cuts_words(s.get("txt") or "") for s in samples)):
        what = f"{cut} texts have letters beyond ASCII, at which WeNet's scripts cut a word"
        print(f"warning: {args.data}: {what}; --normalizer no_marks keeps words whole", file=sys.stderr)

    draws = Draws(args.resamples, args.seed)
    trees = score_dir(args, args.decode_dir, args.mode, tasks, samples)
    scores = {name: render(tree, draws) for name, tree in trees.items()}
    if args.against:
        mode = args.against_mode or args.mode
        others = score_dir(args, args.against, mode, tasks, samples)
        for name in trees:
            if name not in others:
                print(f"warning: {args.against}: no {name} to compare with", file=sys.stderr)
                continue
            found = compare(trees[name], others[name], draws)
            scores[name]["against"] = {"decode_dir": args.against, "mode": mode, "scores": found}

    output = Path(args.output or Path(args.decode_dir) / "scores.json")
    write_scores(scores, output)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE, record=bool(args.svg))
    console.print(format_table(scores, title=f"{args.decode_dir} ({args.mode})"))
    if args.svg:
        with atomic_write(args.svg) as f:
            f.write(console.export_svg(title="osum score"))
    if args.against:
        console.print(format_comparison(scores, title=f"{args.decode_dir} against {args.against}"))
    console.print(f"scores: {output}", markup=False, highlight=False, soft_wrap=True)
    if facts is not None:
        report = write_report(args, facts, trees, scores, samples, tasks, output)
        console.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)
    if without := [name for name in required if scores.get(name, {}).get("value") is None]:
        raise OsumError(args.decode_dir, f"no score for {', '.join(without)}", "decode what is required")
    return 0


def score_dir(
    args: argparse.Namespace,
    decode_dir: str,
    mode: str,
    tasks: TaskTable,
    samples: Sequence[dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Task name -> `score.score_tree`'s result, of what was decoded into a folder; tells what is not scored."""
    trees: dict[str, dict[str, Any]] = {}
    for name, path in find_decoded(decode_dir, mode, tasks).items():
        task, hyps = tasks[name], read_hypotheses(path)
        if not any(task.supported_by(sample) for sample in samples):
            print(f"warning: {path}: {args.data} has no reference for {name}; not scored", file=sys.stderr)
            continue
        if strangers := hyps.keys() - {sample["key"] for sample in samples}:
            what = f"{len(strangers)} answers to ids that {args.data} does not have, such as {min(strangers)}"
            print(f"warning: {path}: {what}; not scored", file=sys.stderr)
        trees[name] = score_tree(task, samples, hyps, args.normalizer)
        if args.judge and task.reply:
            endpoint = Endpoint(args.judge, args.judge_model, os.environ.get(_KEY), args.judge_body)
            trees[name]["judge"] = judge_tree(task, samples, hyps, endpoint, path.with_name("judge.jsonl"))
    if not trees:
        raise OsumError(args.data, f"no reference for any task in {decode_dir}", "give its own --data")
    return trees


if __name__ == "__main__":
    run_main(main)
