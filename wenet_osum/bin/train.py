"""Train a model: WeNet's ``train.py`` flags over our loop."""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wenet_osum.bin.common import (
    at_least,
    build_model,
    count_line,
    describe,
    load_table,
    prepare_configs,
    resolve_beside,
)
from wenet_osum.checkpoint.weights import init_modules, load_checkpoint, read_infos
from wenet_osum.config import load_config, save_config
from wenet_osum.dataset.dataset import Loader
from wenet_osum.dataset.index import Index, build_index, join_indexes
from wenet_osum.device import DEVICES, DTYPES
from wenet_osum.errors import OsumError, run_main
from wenet_osum.fileio import atomic_write
from wenet_osum.registry import DATASETS
from wenet_osum.tasks.prompts import prompt_text
from wenet_osum.text import init_tokenizer
from wenet_osum.train.engine import Engine


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="osum train", description=__doc__)
    p.add_argument(
        "--train_engine", default="torch_ddp", choices=["torch_ddp"], help="one process, or torchrun's ranks"
    )
    p.add_argument("--device", default="cpu", choices=DEVICES)
    p.add_argument("--dtype", choices=DTYPES, help="autocast; weights that learn stay fp32; the config's")
    p.add_argument("--config", required=True, help="YAML of the run")
    p.add_argument("--data_type", default="raw", choices=["raw", "shard", "shard_full_data"])
    p.add_argument("--train_data", required=True, nargs="+", help="list(s) to train on")
    p.add_argument("--cv_data", required=True, help="list to validate on")
    p.add_argument("--model_dir", required=True, help="checkpoints go here")
    p.add_argument("--checkpoint", help="go on from MODEL_DIR/epoch_N.pt, or start from a model folder")
    p.add_argument(
        "--tensorboard_dir", default="tensorboard", help="logs go to its folder of MODEL_DIR's name"
    )
    p.add_argument("--override_config", action="append", default=[], metavar="KEY=VALUE")
    p.add_argument("--enc_init", help="checkpoint or model folder to take modules from")
    p.add_argument("--enc_init_mods", default="encoder.", help="their prefixes, separated by commas")
    p.add_argument("--num_workers", type=at_least(0), default=0, help="data worker processes")
    p.add_argument("--prefetch", type=at_least(1), default=10, help="batches each worker prepares ahead")
    p.add_argument("--pin_memory", action="store_true")
    p.add_argument(
        "--num_threads", type=at_least(0), default=0, help="threads of this process; 0: torch's choice"
    )
    p.add_argument("--ddp.dist_backend", dest="dist_backend", choices=["nccl", "gloo", "hccl"])
    return p.parse_args(argv)


def make_index(
    lists: list[str], args: argparse.Namespace, table: Any, tokenizer: Any, conf: dict[str, Any], name: str
) -> Index:
    """One index over several lists; says what it holds and what it set aside."""
    whole = join_indexes([build_index(p, args.data_type, table, tokenizer.encode, conf) for p in lists])
    logging.info("%s: %d utterances, %.2f h%s", name, len(whole), whole.hours, count_line(whole.skipped))
    if not len(whole):
        raise OsumError(
            ", ".join(lists),
            "no utterance can be used" + count_line(whole.skipped),
            "check the list and filter_conf",
        )
    return whole


def quiet_on_full_disk(hook: threading.ExceptHookArgs) -> None:
    """TensorBoard writes from a thread of its own; a full disk is told once, by the main thread."""
    if not isinstance(hook.exc_value, OSError):
        threading.__excepthook__(hook)


def leave_room(model: Any, conf: dict[str, Any], table: Any, tokenizer: Any) -> dict[str, Any]:
    """``dataset_conf`` with ``token_max_length`` lowered to what Whisper's decoder has positions for beside
    the longest prompt and the start id; as it is for other decoders."""
    if not hasattr(model.decoder, "positions"):
        return conf
    prompts, limits = conf["prompt_conf"], conf["filter_conf"]
    langs = ("zh", "en") if prompts["lang"] == "auto" else (prompts["lang"],)
    questions = (
        prompt_text(t, lang, prompts, i)
        for t in table.values()
        for lang in langs
        for i in range(prompts["number"])
    )
    longest = max(len(tokenizer.encode(q)) for q in questions)
    room = min(limits["token_max_length"], model.decoder.positions.size(0) - longest - 1)
    return {**conf, "filter_conf": {**limits, "token_max_length": room}}


def resume_point(checkpoint: str | None) -> tuple[int, int]:
    """Epoch and step to go on at, from the yaml beside a checkpoint; (0, 0) for plain initial weights."""
    infos = Path(checkpoint).with_suffix(".yaml") if checkpoint else None
    if infos is None or not infos.is_file() or Path(str(checkpoint)).is_dir():
        return 0, 0
    facts = read_infos(infos)
    if str(facts.get("tag", "")).startswith("step_"):
        raise OsumError(
            str(checkpoint), "was saved inside an epoch", "go on from an epoch_N.pt, or take it as --enc_init"
        )
    return facts["epoch"] + 1, facts["step"]


def main(argv: list[str] | None = None) -> int:
    args = get_args(argv)
    threading.excepthook = quiet_on_full_disk
    configs = load_config(args.config, args.override_config)
    configs["dtype"] = args.dtype or configs["dtype"]
    engine = Engine(args.device, configs["dtype"], args.dist_backend)
    logging.basicConfig(
        level=logging.INFO if engine.rank == 0 else logging.WARNING, format="%(message)s", force=True
    )
    if args.num_threads:
        torch.set_num_threads(args.num_threads)
    resolve_beside(configs, args.config)
    random.seed(configs["seed"])
    np.random.seed(configs["seed"])
    torch.manual_seed(configs["seed"])
    table = load_table(configs)
    tokenizer = init_tokenizer(configs)
    prepare_configs(configs, tokenizer)
    configs.update(train_engine=args.train_engine, model_dir=args.model_dir)
    model_dir = Path(args.model_dir)
    model_dir.mkdir(parents=True, exist_ok=True)

    model = build_model(configs)
    if args.enc_init:
        prefixes = [p for p in args.enc_init_mods.split(",") if p]
        logging.info("%d tensors from %s", init_modules(model, args.enc_init, prefixes), args.enc_init)
    if args.checkpoint:
        load_checkpoint(model, args.checkpoint)
    epoch, step = resume_point(args.checkpoint)
    if epoch >= configs["max_epoch"]:
        raise OsumError(
            str(args.checkpoint),
            f"{epoch} of {configs['max_epoch']} epochs are done",
            "raise max_epoch to go on",
        )
    logging.info(describe(model))

    cls = DATASETS.find(configs["dataset"])
    conf = leave_room(model, configs["dataset_conf"], table, tokenizer)
    loaders: dict[str, Loader] = {}
    for name, lists in (("train", args.train_data), ("dev", [args.cv_data])):
        index = make_index(lists, args, table, tokenizer, conf, name)
        dataset = cls(index, table, tokenizer, conf, configs["seed"], train=name == "train")
        workers = args.num_workers if name == "train" else 0
        loaders[name] = Loader(
            dataset, workers, args.prefetch, args.pin_memory, engine.rank, engine.world_size
        )
    if engine.rank == 0:
        save_config(configs, model_dir / "train.yaml")

    from wenet_osum.train.loop import Trainer

    log_dir = Path(args.tensorboard_dir) / model_dir.name
    trainer = Trainer(
        model, configs, loaders["train"], loaders["dev"], engine, model_dir, log_dir, epoch, step
    )
    last = trainer.run()
    if engine.rank == 0:
        final = model_dir / "final.pt"
        with open(last, "rb") as source, atomic_write(final, "wb") as f:
            shutil.copyfileobj(source, f)
    engine.close()
    return 0


if __name__ == "__main__":
    run_main(main)
