"""Decode a list: WeNet's ``recognize.py`` flags, plus ``--task``. After a kill the same command goes on where it was;
under torchrun, or with RANK and WORLD_SIZE set, several processes share the list."""

from __future__ import annotations

import argparse
import logging
import os
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from wenet_osum import __version__
from wenet_osum.bin.common import at_least, causes_line, count_line
from wenet_osum.bin.decode_flags import (
    Loaded,
    add_decode_flags,
    add_model_flags,
    hotwords_of,
    load_answerer,
    load_model,
)
from wenet_osum.bin.wenet_flags import RECOGNIZE, add_idle_flags, idle_flags
from wenet_osum.dataset.fingerprint import digest, digest_file
from wenet_osum.dataset.index import Index, TaskSets
from wenet_osum.dataset.index_build import build_index
from wenet_osum.dataset.index_store import stamp
from wenet_osum.dataset.loader import Loader
from wenet_osum.decode.journal import Journal
from wenet_osum.decode.recognize import Ask, by_answerer, by_model, finish, recognize
from wenet_osum.decode.results import Totals
from wenet_osum.errors import OsumError, run_main
from wenet_osum.models.prompts import Prompts
from wenet_osum.registry import DATASETS
from wenet_osum.score.report import TASK_ORDER
from wenet_osum.tasks import TaskTable

LLM_MODES = ("llm_greedy", "llm_beam")


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="osum recognize", description=__doc__)
    add_model_flags(p)
    p.add_argument("--test_data", required=True, help="list to decode")
    p.add_argument("--data_type", default="raw", choices=["raw", "shard", "shard_full_data"])
    p.add_argument(
        "--result_dir",
        required=True,
        help="RESULT_DIR/MODE/text; RESULT_DIR/TASK/MODE/text for several tasks",
    )
    p.add_argument(
        "--modes", nargs="+", required=True, help="llm_greedy llm_beam ctc_greedy_search attention"
    )
    p.add_argument(
        "--task", default="asr", help="name or tag; several with commas between; all: the eight tasks"
    )
    p.add_argument(
        "--labelled_only", action="store_true", help="ask a task only where the list has its answer"
    )
    p.add_argument(
        "--restart", action="store_true", help="throw away what a decode that was killed has left here"
    )
    add_decode_flags(p)
    p.add_argument("--decoding_chunk_size", type=int, default=-1, help="for WeNet's streaming encoders")
    p.add_argument("--num_decoding_left_chunks", type=int, default=-1)
    p.add_argument("--num_workers", type=at_least(0), default=0)
    add_idle_flags(p, RECOGNIZE)
    return p.parse_args(argv)


def ranks() -> tuple[int, int]:
    """This process and how many share the list: torchrun's RANK and WORLD_SIZE, or set by hand.

    Raises:
        OsumError: they are no such numbers.
    """
    rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdigit() and size.isdigit() and int(rank) < int(size)):
        raise OsumError(f"RANK={rank} WORLD_SIZE={size}", "is no rank", "count from 0 to WORLD_SIZE - 1")
    return int(rank), int(size)


def make_asks(args: argparse.Namespace, loaded: Loaded) -> dict[str, Ask]:
    """How each mode asks: the LLM's through an ``Answerer``, the others by the model's ``decode``.

    Raises:
        OsumError: a mode that this model does not have.
    """
    model, table, tokenizer, engine = loaded.model, loaded.table, loaded.tokenizer, loaded.engine
    model.check_modes(args.modes)
    prompts = Prompts(table, tokenizer.encode, loaded.conf["prompt_conf"])
    how = {
        "decoding_chunk_size": args.decoding_chunk_size,
        "num_decoding_left_chunks": args.num_decoding_left_chunks,
    }
    asks = {}
    for mode in args.modes:
        if mode in LLM_MODES:
            asks[mode] = by_answerer(load_answerer(args, loaded, mode), table)
        else:
            asks[mode] = by_model(
                model, tokenizer, table, prompts, mode, engine.device, engine.autocast, **how
            )
    return asks


def without_effect(args: argparse.Namespace, streams: bool) -> list[str]:
    """The flags that were given for other modes or other encoders."""
    idle = []
    if not streams:
        idle += [f for f in ("decoding_chunk_size", "num_decoding_left_chunks") if getattr(args, f) != -1]
    if not any(mode in LLM_MODES for mode in args.modes):
        parser = argparse.ArgumentParser()
        add_decode_flags(parser)
        idle += [f for f, default in vars(parser.parse_args([])).items() if getattr(args, f) != default]
    return [f"--{name}" for name in idle]


def asked(index: Index, table: TaskTable, names: list[str], labelled_only: bool) -> Index:
    """The index with the tasks that each utterance is asked: all of ``names``, or with ``labelled_only`` those that
    it has the answer of."""
    if not labelled_only:
        return index.asking(TaskSets([tuple(names)], np.zeros(len(index), np.int32)))
    sets: dict[tuple[str, ...], int] = {}
    number = np.zeros(len(index), np.int32)
    for row, sample in enumerate(index.samples):
        mine = tuple(name for name in names if table[name].supported_by(sample))
        number[row] = sets.setdefault(mine, len(sets))
    return index.asking(TaskSets(list(sets), number))


# Flags that decide where and how fast answers are found, but not which, and names of files, which are looked into.
_NO_MATTER = (
    *("config", "checkpoint", "test_data", "result_dir", "restart", "modes", "task", "override_config"),
    *("gpu", "device", "num_workers", "num_threads", "hotwords"),
)


def facts(args: argparse.Namespace, loaded: Loaded, names: list[str], index: Index) -> dict[str, Any]:
    """All that decides the answers: parts of a list that were decoded with other facts do not go together."""
    weights = Path(args.checkpoint)
    files = sorted(p for p in weights.rglob("*") if p.is_file()) if weights.is_dir() else [weights]
    return {
        "version": __version__,
        "checkpoint": {p.name: stamp(str(p)) for p in files},
        "config": loaded.configs,
        "device": loaded.engine.device.type,
        "flags": {k: v for k, v in vars(args).items() if k not in _NO_MATTER},
        "hotwords": hotwords_of(args.hotwords),
        "modes": " ".join(args.modes),
        "task": ",".join(names),
        "test_data": {
            "lines": digest_file(args.test_data),
            "lengths": digest(index.frames.tobytes()),
            "utterances": len(index),
        },
    }


def main(argv: list[str] | None = None) -> int:
    args = get_args(argv)
    rank, world_size = ranks()
    logging.basicConfig(level=logging.WARNING if rank else logging.INFO, format="%(message)s", force=True)
    loaded = load_model(args)
    table, tokenizer, conf = loaded.table, loaded.tokenizer, loaded.conf
    tasks = TASK_ORDER if args.task == "all" else [table.find(t).name for t in args.task.split(",")]
    names = list(dict.fromkeys(tasks))
    if line := idle_flags(args, *without_effect(args, loaded.model.streams)):
        logging.info(line)
    asks = make_asks(args, loaded)
    conf["batch_conf"] = {**conf["batch_conf"], "batch_type": "static", "batch_size": args.batch_size}
    result_dir = Path(args.result_dir)
    with Journal(result_dir / f"partial.{'+'.join(args.modes)}", rank, world_size) as journal:
        everything = build_index(
            args.test_data,
            args.data_type,
            table,
            tokenizer.encode,
            conf,
            names,
            need_answer=False,
            store=journal.store,
        )
        if not len(everything):
            raise OsumError(
                args.test_data,
                "no utterance can be decoded" + count_line(everything.skipped),
                "check the list",
            )
        index = asked(everything, table, names, args.labelled_only)
        here = set(chain.from_iterable(index.tasks.sets[n] for n in np.unique(index.tasks.number)))
        for name in names:
            if name not in here:
                logging.info("%s: no utterance has an answer for it, nothing to decode", name)
        if not here:
            return 0
        dataset = DATASETS.find(loaded.configs["dataset"])(
            index, table, tokenizer, conf, loaded.configs["seed"], train=False
        )
        done = journal.begin(facts(args, loaded, names, everything), len(index), args.restart)
        if done.any():
            logging.info("%d of %d utterances are done already", done.sum(), len(index))
        recognize(Loader(dataset, args.num_workers), asks, journal, done)
        folders = {n: result_dir / n if len(names) > 1 else result_dir for n in names if n in here}
        found = finish(journal, index, args.modes, folders)
    if found is not None:
        logging.getLogger().setLevel(logging.INFO)  # of whatever rank was the last
        for name, totals in found.items():
            report(name, folders[name], totals)
    return 0


def report(name: str, folder: Path, totals: Totals) -> None:
    """Lines for the eye on what was found of a task."""
    aside = causes_line(totals.skipped)
    logging.info("%s: %d utterances -> %s%s", name, totals.answered, folder, aside)
    if totals.proposed:
        share = 100 * totals.accepted / totals.proposed
        logging.info(
            "%s: drafts: %d of %d tokens were right (%.1f %%)", name, totals.accepted, totals.proposed, share
        )


if __name__ == "__main__":
    run_main(main)
