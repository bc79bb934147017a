"""The flags of ``osum score`` about its page, and the page written."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wenet_osum.fileio import atomic_write
from wenet_osum.score.bootstrap import Draws
from wenet_osum.score.files import find_decoded, read_hypotheses
from wenet_osum.score.page import Decoded, Limits, RunFacts, build_page, gather_facts, render
from wenet_osum.tasks import TaskTable


def add_report_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("report", "one HTML page that needs nothing else")
    group.add_argument("--report", metavar="HTML", help="the page (report.html beside the scores)")
    group.add_argument("--no_report", action="store_true", help="write no page")
    group.add_argument(
        "--report_worst", type=int, default=10, metavar="N", help="utterances shown of each task"
    )
    group.add_argument(
        "--report_audio_mb", type=float, default=8.0, metavar="MB", help="of recordings in it; 0: none"
    )
    group.add_argument(
        "--config", help="the training's, to be shown (train.yaml in DECODE_DIR or the folder above)"
    )


def check_report_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.report_worst < 0:
        parser.error("--report_worst: give 0 or more")
    if not 0 <= args.report_audio_mb < 1000:
        parser.error("--report_audio_mb: give 0 to 1000")
    if args.report and args.no_report:
        parser.error("--report and --no_report: give one of them")


def report_facts(args: argparse.Namespace) -> RunFacts:
    """What is known of the run before anything is scored.

    Raises:
        OsumError: ``--config`` cannot be read.
    """
    pairs = [
        ("references", args.data),
        ("decoded", f"{args.decode_dir}, mode {args.mode}"),
        ("normaliser", f"{args.normalizer}, for transcripts"),
        ("bootstrap", f"{args.resamples} draws, seed {args.seed}"),
    ]
    if args.against:
        pairs.append(("compared with", f"{args.against}, mode {args.against_mode or args.mode}"))
    if args.judge:
        pairs.append(("judge", f"{args.judge_model}"))
    return gather_facts(pairs, args.decode_dir, args.config)


def write_report(
    args: argparse.Namespace,
    facts: RunFacts,
    trees: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    tasks: TaskTable,
    output: Path,
) -> Path:
    """Write the page of the scores in ``output``; its path.

    Args:
        trees: task name -> `score.score_tree`'s result, which ``scores`` are made of.

    Raises:
        OsumError: a file of the decode dir cannot be read.
    """
    path = Path(args.report) if args.report else output.with_name("report.html")
    paths = find_decoded(args.decode_dir, args.mode, tasks)
    decoded = {
        name: Decoded(tasks[name], read_hypotheses(paths[name]), paths[name], tree["value"])
        for name, tree in trees.items()
    }
    page = build_page(
        f"{args.decode_dir} ({args.mode})",
        scores,
        decoded,
        samples,
        tasks,
        facts,
        args.normalizer,
        Draws(args.resamples, args.seed),
        Limits(args.report_worst, int(1e6 * args.report_audio_mb)),
    )
    with atomic_write(path) as f:
        f.write(render(page))
    return path
