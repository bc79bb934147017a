"""Decode a list: WeNet's ``recognize.py`` flags, plus ``--task``."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch

from wenet_osum.bin.common import (
    at_least,
    build_model,
    config_path,
    count_line,
    leave_room,
    load_table,
    prepare_configs,
    resolve_beside,
)
from wenet_osum.bin.wenet_flags import RECOGNIZE, add_idle_flags, idle_flags
from wenet_osum.checkpoint.weights import load_checkpoint
from wenet_osum.config import load_config
from wenet_osum.dataset.filter import WIDE_OPEN
from wenet_osum.dataset.index import Index
from wenet_osum.dataset.index_build import build_index
from wenet_osum.dataset.loader import Loader
from wenet_osum.device import DEVICES, DTYPES, card
from wenet_osum.errors import OsumError, run_main
from wenet_osum.fileio import atomic_write
from wenet_osum.registry import DATASETS
from wenet_osum.score.report import TASK_ORDER
from wenet_osum.tasks import TaskTable
from wenet_osum.text import init_tokenizer
from wenet_osum.train.engine import Engine


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="osum recognize", description=__doc__)
    p.add_argument("--config", help="train.yaml of the run; default: config.yaml of a model folder")
    p.add_argument("--test_data", required=True, help="list to decode")
    p.add_argument("--data_type", default="raw", choices=["raw", "shard", "shard_full_data"])
    p.add_argument("--checkpoint", required=True, help=".pt, or a model folder (osum convert)")
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
    p.add_argument("--gpu", type=int, default=-1, help="run on this CUDA card; -1: see --device")
    p.add_argument("--device", default="cpu", choices=DEVICES)
    p.add_argument("--dtype", choices=DTYPES, help="autocast; default: the config's")
    p.add_argument("--batch_size", type=at_least(1), default=16)
    p.add_argument("--beam_size", type=at_least(1), default=10, help="for llm_beam")
    p.add_argument("--length_penalty", type=float, default=0.0, help="for llm_beam")
    p.add_argument("--decoding_chunk_size", type=int, default=-1, help="for WeNet's streaming encoders")
    p.add_argument("--num_decoding_left_chunks", type=int, default=-1)
    p.add_argument("--num_workers", type=at_least(0), default=0)
    p.add_argument(
        "--num_threads", type=at_least(0), default=0, help="threads of this process; 0: torch's choice"
    )
    p.add_argument("--override_config", action="append", default=[], metavar="KEY=VALUE")
    add_idle_flags(p, RECOGNIZE)
    return p.parse_args(argv)


def init_engine(args: argparse.Namespace, dtype: str) -> Engine:
    """Device and number type that the flags, or else the config's ``dtype``, ask for."""
    device, index = (args.device, None) if args.gpu == -1 else card(args.gpu)
    if args.dtype is None and dtype == "fp16" and device == "cpu":
        logging.info("trained in fp16, which is not for a CPU: decoding in fp32")
        dtype = "fp32"
    return Engine(device, args.dtype or dtype, index=index)


def labelled(index: Index, table: TaskTable, name: str) -> Index:
    """The part of an index that has the answer of a task."""
    keep = [i for i, s in enumerate(index.samples) if table[name].supported_by(s)]
    return index.asking(name, keep)


def main(argv: list[str] | None = None) -> int:
    args = get_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    config = config_path(args.config, args.checkpoint)
    configs = load_config(config, args.override_config)
    engine = init_engine(args, configs["dtype"])
    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    resolve_beside(configs, config)
    torch.manual_seed(configs["seed"])
    table = load_table(configs)
    names = list(TASK_ORDER) if args.task == "all" else [table.find(t).name for t in args.task.split(",")]
    tokenizer = init_tokenizer(configs)
    prepare_configs(configs, tokenizer)
    model = build_model(configs)
    model.check_modes(args.modes)
    chunks = {
        "--decoding_chunk_size": args.decoding_chunk_size,
        "--num_decoding_left_chunks": args.num_decoding_left_chunks,
    }
    if line := idle_flags(args, *(f for f, size in chunks.items() if size != -1 and not model.streams)):
        logging.info(line)
    model.to(engine.device)
    load_checkpoint(model, args.checkpoint)

    conf = leave_room(model, {**configs["dataset_conf"], "filter_conf": WIDE_OPEN}, table, tokenizer.encode)
    conf["batch_conf"] = {**conf["batch_conf"], "batch_type": "static", "batch_size": args.batch_size}
    everything = build_index(
        args.test_data, args.data_type, table, tokenizer.encode, conf, names, need_answer=False
    )
    if not len(everything):
        raise OsumError(
            args.test_data, "no utterance can be decoded" + count_line(everything.skipped), "check the list"
        )
    from wenet_osum.decode.recognize import recognize, write_answers

    result_dir = Path(args.result_dir)
    for name in names:
        index = labelled(everything, table, name) if args.labelled_only else everything.asking(name)
        if not len(index):
            logging.info("%s: no utterance has an answer for it, nothing to decode", name)
            continue
        dataset = DATASETS.find(configs["dataset"])(
            index, table, tokenizer, conf, configs["seed"], train=False
        )
        answers, skipped = recognize(
            model,
            Loader(dataset, args.num_workers),
            tokenizer,
            args.modes,
            engine.device,
            engine.autocast(),
            beam_size=args.beam_size,
            length_penalty=args.length_penalty,
            decoding_chunk_size=args.decoding_chunk_size,
            num_decoding_left_chunks=args.num_decoding_left_chunks,
        )
        skipped = everything.skipped + skipped
        here = result_dir / name if len(names) > 1 else result_dir
        write_answers(answers, [s["key"] for s in index.samples], table[name], here)
        # WeNet's recipes decode into the model's own folder, where training has its list.
        training = (here / "train.yaml").is_file()
        with atomic_write(here / ("decode.skipped.jsonl" if training else "skipped.jsonl")) as f:
            f.writelines(json.dumps(s, ensure_ascii=False) + "\n" for s in skipped)
        logging.info(
            "%s: %d utterances -> %s%s",
            name,
            len(index) - len(skipped) + len(everything.skipped),
            here,
            count_line(skipped),
        )
    return 0


if __name__ == "__main__":
    run_main(main)
