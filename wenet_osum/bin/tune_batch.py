"""Find the largest batches that the device's memory holds, by training a step on the worst of each size.

Example:
    osum tune-batch conf/tiny.yaml --device cuda --write exp/tuned.yaml
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from wenet_osum.bin.common import at_least
from wenet_osum.checkpoint.assemble import (
    leave_room,
    load_table,
    longest_prompt,
    prepare_configs,
    resolve_beside,
)
from wenet_osum.config import apply_override, load_config, read_config
from wenet_osum.device import DTYPES, cuda_or_cpu
from wenet_osum.errors import OsumError, run_main
from wenet_osum.fileio import atomic_write
from wenet_osum.text import init_tokenizer
from wenet_osum.train.trial import GB, Outcome, Trial, free_memory, run_trial
from wenet_osum.train.tune import MOST, Room, Shape, largest, worst_by_budget, worst_by_count
from wenet_osum.wenet.encoders import build_model

Sizes = dict[str, Any]  # keys of batch_conf and their values


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="osum tune-batch", description=(__doc__ or "").partition("\n")[0])
    p.add_argument("config", help="YAML of a run; its batch_type says what is sought")
    p.add_argument(
        "--device", choices=["cpu", "cuda", "npu"], help="default: cuda where there is one, else cpu"
    )
    p.add_argument("--dtype", choices=DTYPES, help="autocast; default: the config's")
    p.add_argument("--memory", type=positive, help="GB that there are; default: what is free on the device")
    p.add_argument("--headroom", type=positive, default=0.9, help="share of it that training may take")
    p.add_argument("--override_config", action="append", default=[], metavar="KEY=VALUE")
    p.add_argument("--num_threads", type=at_least(0), default=0, help="as in training; 0: torch's choice")
    p.add_argument("--write", metavar="OUT.yaml", help="write the config with the sizes found here")
    p.add_argument(
        "--force", action="store_true", help="OUT.yaml may be there already, or be the config itself"
    )
    args = p.parse_args(argv)
    if args.headroom > 1:
        p.error("--headroom: give a share from 0 to 1")
    return args


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


class Tuner:
    """Tries shapes, keeps the rows of the table.

    Args:
        trial: what every trial shares. conf: ``dataset_conf`` with the model's own limits in it.
        run: ``train.trial.run_trial``.
    """

    def __init__(self, trial: Trial, conf: dict[str, Any], run: Callable[[Trial, list[Shape]], Outcome]):
        self.trial, self.conf, self.run = trial, conf, run
        self.room = Room(conf["filter_conf"])
        self.rows: list[tuple[str, list[Shape], Outcome]] = []

    def fits(self, what: str, shapes: list[Shape]) -> bool:
        outcome = self.run(self.trial, shapes)
        self.rows.append((what, shapes, outcome))
        logging.info("%s: %s, %s", what, words_of(outcome), "; ".join(map(words_of_shape, shapes)))
        return outcome.fits

    def sizes(self) -> Sizes:
        """The keys of ``batch_conf`` at their largest.

        Raises:
            OsumError: one utterance alone is too much.
        """
        batch = self.conf["batch_conf"]
        if batch["batch_type"] == "static":
            return {"batch_size": self.count("batch_size", 0, float("inf"))}
        if batch["batch_type"] == "bucket":
            edges = [0, *batch["bucket_boundaries"], float("inf")]
            found = [
                self.count(f"bucket {low} to {high}", low, high, given)
                for low, high, given in zip(edges, edges[1:], batch["bucket_batch_sizes"])
            ]
            return {"bucket_batch_sizes": found}
        return self.budgets(batch["max_tokens_in_batch"] / batch["max_frames_in_batch"])

    def count(self, what: str, low: float, high: float, given: int = 1) -> int:
        """Utterances of ``low`` to under ``high`` frames in a batch; ``given`` where there are no such."""
        if not worst_by_count(1, self.room, int(low), high):
            logging.info("%s: filter_conf lets no utterance of this length through, stays at %d", what, given)
            return given
        size = largest(
            lambda n: self.fits(f"{what}: {n}", worst_by_count(n, self.room, int(low), high)), 1, MOST
        )
        return size or self.too_small()

    def budgets(self, ratio: float) -> Sizes:
        """Both budgets, tokens and frames in the ratio they have in the config."""

        def both(frames: int) -> tuple[int, int]:
            return frames, max(1, round(frames * ratio))

        longest = self.room.longest
        size = largest(
            lambda n: self.fits(
                "{} frames, {} tokens".format(*both(n)), worst_by_budget(*both(n), self.room)
            ),
            longest,
            MOST * longest,
        )
        return dict(zip(("max_frames_in_batch", "max_tokens_in_batch"), both(size or self.too_small())))

    def too_small(self) -> int:
        """Raises:
        OsumError: always.
        """
        _, shapes, outcome = self.rows[-1]
        raise OsumError(
            f"--device {self.trial.device}",
            f"not even {' and '.join(map(words_of_shape, shapes))} fit in {outcome.limit / GB:.2f} GB",
            "lower filter_conf.max_length or token_max_length, or set gradient_checkpointing",
        )

    def table(self) -> Table:
        table = Table(title=f"{self.trial.device}, {self.trial.dtype}")
        for name in ("tried", "utterances x seconds, answers", "peak GB", "limit GB", ""):
            table.add_column(name, no_wrap=True, justify="right" if "GB" in name else "left")
        for what, shapes, o in self.rows:
            peak = f"{o.peak / GB:.2f}" if o.peak else ""
            lines = "\n".join(map(words_of_shape, shapes))
            table.add_row(what, lines, peak, f"{o.limit / GB:.2f}", "fits" if o.fits else o.why)
        return table


def words_of(outcome: Outcome) -> str:
    peak = f"{outcome.peak / GB:.2f} GB" if outcome.peak else "no figure"
    return f"{peak}, {'fits' if outcome.fits else outcome.why}"


def words_of_shape(shape: Shape) -> str:
    return f"{shape.rows} x {shape.frames / 100:.2f} s, {shape.tokens} tokens"


def write_copy(source: str, target: str, overrides: list[str], sizes: Sizes, force: bool) -> None:
    """The YAML as given, with overrides and sizes in it. Comments are not kept.

    Raises:
        OsumError: the file is there already.
    """
    given = read_config(source)
    for item in overrides:
        apply_override(given, item)
    data = given["dataset_conf"] = given.get("dataset_conf") or {}
    data["batch_conf"] = {**(data.get("batch_conf") or {}), **sizes}
    check_target(target, force)
    with atomic_write(target) as f:
        yaml.safe_dump(given, f, allow_unicode=True, sort_keys=False)


def check_target(target: str, force: bool) -> None:
    """Raises:
    OsumError: the file is there, and nobody said that it may go.
    """
    if Path(target).exists() and not force:
        raise OsumError(f"--write {target}", "is there already", "give another name, or --force")


def main(argv: list[str] | None = None) -> int:
    args = get_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    if args.write:
        check_target(args.write, args.force)  # before the work, not after
    configs = load_config(args.config, args.override_config)
    resolve_beside(configs, args.config)
    table, tokenizer = load_table(configs), init_tokenizer(configs)
    prepare_configs(configs, tokenizer)
    with torch.device("meta"):
        shape = build_model(configs)
    conf = leave_room(shape, configs["dataset_conf"], table, tokenizer.encode)
    configs["dataset_conf"] = conf
    device = cuda_or_cpu(args.device)
    memory = None if args.memory is None else round(args.memory * GB)
    if memory is None and device == "cpu":
        memory = free_memory()  # once, so that every trial has the same
    prompt = longest_prompt(conf, table, tokenizer.encode)
    trial = Trial(configs, build_model, prompt, device, args.dtype or configs["dtype"], memory, args.headroom)
    tuner = Tuner(trial, conf, lambda trial, shapes: run_trial(trial, shapes, args.num_threads))
    sizes = tuner.sizes()

    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(tuner.table())
    batch = {"batch_type": conf["batch_conf"]["batch_type"], **sizes}
    lines = yaml.safe_dump({"dataset_conf": {"batch_conf": batch}}, sort_keys=False, default_flow_style=None)
    console.print(lines, markup=False, highlight=False, end="")
    if args.write:
        write_copy(args.config, args.write, args.override_config, sizes, args.force)
        console.print(f"written: {args.write}", markup=False, highlight=False)
    return 0


if __name__ == "__main__":
    run_main(main)
