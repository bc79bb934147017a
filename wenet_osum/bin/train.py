"""Train a model: WeNet's ``train.py`` flags over our loop."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wenet_osum.bin.common import at_least, check_epochs, count_line, describe, make_index
from wenet_osum.bin.wenet_flags import TRAIN, add_engine_flags, add_idle_flags, idle_flags
from wenet_osum.checkpoint.assemble import leave_room, load_table, prepare_configs, resolve_beside
from wenet_osum.checkpoint.weights import init_modules, load_checkpoint, read_infos
from wenet_osum.config import load_config, save_config
from wenet_osum.dataset.loader import Loader
from wenet_osum.device import DEVICES, DTYPES, cuda_or_cpu
from wenet_osum.errors import OsumError, run_main
from wenet_osum.fileio import atomic_write
from wenet_osum.registry import DATASETS
from wenet_osum.tasks import TaskTable
from wenet_osum.text import init_tokenizer
from wenet_osum.train.engine import Engine, make_engine
from wenet_osum.train.optim import freeze_modules
from wenet_osum.train.state import check_unstated, find_state, only_run, read_facts
from wenet_osum.wenet.encoders import build_model

STOPPED = 143  # exit status of a run that SIGTERM stopped: its state is saved, and it is not at its end


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="osum train", description=__doc__)
    p.add_argument(
        "--train_engine",
        default="torch_ddp",
        choices=["torch_ddp", "torch_fsdp", "deepspeed"],
        help="torch_ddp: one process, or torchrun's ranks",
    )
    p.add_argument("--device", choices=DEVICES, help="default: cuda where there is one, else cpu")
    p.add_argument("--dtype", choices=DTYPES, help="autocast; weights that learn stay fp32; the config's")
    p.add_argument("--config", required=True, help="YAML of the run")
    p.add_argument("--data_type", default="raw", choices=["raw", "shard", "shard_full_data"])
    p.add_argument(
        "--train_data", required=True, nargs="+", help="list(s) to train on, or YAMLs of weighted lists"
    )
    p.add_argument("--cv_data", required=True, help="list to validate on")
    p.add_argument("--model_dir", required=True, help="checkpoints go here")
    p.add_argument("--checkpoint", help="go on from MODEL_DIR/epoch_N.pt, or start from a model folder")
    p.add_argument(
        "--resume",
        metavar="auto|none|STATE",
        help="go on exactly where a run stopped: from its newest whole state in MODEL_DIR/states (auto; from the "
        "start where there is none), or from that one; --checkpoint and --enc_init are then for nothing. none: begin "
        "anew and remove the states that are there",
    )
    p.add_argument(
        "--tensorboard_dir", default="tensorboard", help="logs go to its folder of MODEL_DIR's name"
    )
    p.add_argument("--override_config", action="append", default=[], metavar="KEY=VALUE")
    p.add_argument("--enc_init", help="checkpoint or model folder to take modules from")
    p.add_argument("--enc_init_mods", default="encoder.", help="their prefixes, separated by commas")
    p.add_argument(
        "--freeze_modules",
        default="",
        help="weights with one of these words in their names do not learn (commas)",
    )
    p.add_argument("--print_model", action="store_true")
    p.add_argument("--num_workers", type=at_least(0), default=0, help="data worker processes")
    p.add_argument("--prefetch", type=at_least(1), default=100, help="batches each worker prepares ahead")
    p.add_argument(
        "--worker_timeout",
        type=at_least(1),
        default=120,
        help="seconds that one batch of a data worker may take; then it counts as hung, and training stops",
    )
    p.add_argument("--pin_memory", action="store_true", help="for CUDA")
    p.add_argument(
        "--num_threads", type=at_least(0), default=0, help="threads of this process; 0: torch's choice"
    )
    p.add_argument(
        "--ddp.dist_backend", dest="dist_backend", default="nccl", choices=["nccl", "gloo", "hccl"]
    )
    p.add_argument("--use_amp", action="store_true", help="the same as --dtype fp16")
    p.add_argument("--fp16_grad_sync", action="store_true", help="ranks exchange gradients in half precision")
    add_engine_flags(p)
    add_idle_flags(p, TRAIN)
    return p.parse_args(argv)


def init_engine(args: argparse.Namespace, configs: dict[str, Any]) -> Engine:
    """Device, number type and ranks that the flags ask for; says which flags have no effect.

    Raises:
        OsumError: fp16 on a CPU, a device that is not here, an engine that cannot serve this config.
    """
    device = cuda_or_cpu(args.device)
    if args.use_amp and device == "cpu":
        raise OsumError("--use_amp", "is fp16, which is not for a CPU", "leave it out, or give --dtype bf16")
    configs["use_amp"], configs["dtype"] = args.use_amp, args.dtype or configs["dtype"]
    if args.use_amp:
        configs["dtype"] = "fp16"
    engine = make_engine(
        args.train_engine,
        device,
        configs["dtype"],
        args.dist_backend,
        args.fp16_grad_sync,
        args.timeout,
        args.fsdp_sharding_strategy,
        args.deepspeed_config,
        configs,
    )
    idle = ["--pin_memory"] if args.pin_memory and device == "cpu" else []
    ddp = args.train_engine == "torch_ddp" and engine.world_size > 1
    idle += ["--fp16_grad_sync"] if args.fp16_grad_sync and not ddp else []
    if line := idle_flags(args, *idle):
        logging.info(line)
    args.pin_memory &= device != "cpu"
    return engine


def quiet_on_full_disk(hook: threading.ExceptHookArgs) -> None:
    """TensorBoard writes from a thread of its own; a full disk is told once, by the main thread."""
    if not isinstance(hook.exc_value, OSError):
        threading.__excepthook__(hook)


def resume_point(checkpoint: str | None) -> tuple[int, int]:
    """Epoch and step to go on at, from the yaml beside a checkpoint; (0, 0) for plain initial weights."""
    infos = Path(checkpoint).with_suffix(".yaml") if checkpoint else None
    if infos is None or not infos.is_file() or Path(str(checkpoint)).is_dir():
        return 0, 0
    if infos.stem == "init":  # before the first step: WeNet's yaml of it tells neither epoch nor step
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
    level = logging.WARNING if int(os.environ.get("RANK", 0)) else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", force=True)
    configs = load_config(args.config, args.override_config)
    engine = init_engine(args, configs)
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
    with only_run(Path(args.model_dir)) if engine.rank == 0 else contextlib.nullcontext():
        return train(args, configs, engine, table, tokenizer)


def train(
    args: argparse.Namespace, configs: dict[str, Any], engine: Engine, table: TaskTable, tokenizer: Any
) -> int:
    """The run that the flags and the checked config describe; its exit status."""
    model_dir = Path(args.model_dir)
    model_dir.mkdir(parents=True, exist_ok=True)
    model = build_model(configs)
    resume = find_state(args.resume, model_dir)
    epoch = step = 0
    if resume is not None:
        check_epochs(read_facts(resume)["epoch"], configs["max_epoch"], str(resume))
    else:
        if args.enc_init:
            prefixes = [p for p in args.enc_init_mods.split(",") if p]
            logging.info("%d tensors from %s", init_modules(model, args.enc_init, prefixes), args.enc_init)
        if args.checkpoint:
            load_checkpoint(model, args.checkpoint)
        epoch, step = resume_point(args.checkpoint)
        check_epochs(epoch, configs["max_epoch"], args.checkpoint)
    if args.freeze_modules and configs["phases"]:
        raise OsumError("--freeze_modules", "is given beside phases", "keep one of the two")
    freeze_modules(model, [word for word in args.freeze_modules.split(",") if word])
    if args.print_model and engine.rank == 0:
        print(f"{model}\nthe number of model params: {sum(p.numel() for p in model.parameters()):,}")
    logging.info(describe(model))

    cls = DATASETS.find(configs["dataset"])
    conf = leave_room(model, configs["dataset_conf"], table, tokenizer.encode)
    loaders: dict[str, Loader] = {}
    for name, lists in (("train", args.train_data), ("dev", [args.cv_data])):
        store = model_dir / "index" / f"{name}.idx"
        index = make_index(lists, args.data_type, table, tokenizer.encode, conf, store)
        logging.info("%s: %d utterances, %.2f h%s", name, len(index), index.hours, count_line(index.skipped))
        dataset = cls(index, table, tokenizer, conf, configs["seed"], train=name == "train")
        workers = args.num_workers if name == "train" else 0
        loaders[name] = Loader(
            dataset,
            workers,
            args.prefetch,
            args.pin_memory,
            engine.rank,
            engine.world_size,
            args.worker_timeout,
        )
    if not args.checkpoint:
        check_unstated(args.resume, model_dir)
    from wenet_osum.train.evaluate import DevScorer
    from wenet_osum.train.loop import Trainer

    log_dir, scorer = Path(args.tensorboard_dir) / model_dir.name, None
    if configs["cv_decode_conf"]["utterances"]:
        scorer = DevScorer(loaders["dev"].dataset, tokenizer, table, configs, engine)
    trainer = Trainer(
        model,
        configs,
        loaders["train"],
        loaders["dev"],
        engine,
        model_dir,
        log_dir,
        epoch,
        step,
        resume,
        scorer,
    )
    if engine.rank == 0:
        save_config(configs, model_dir / "train.yaml")
    last = trainer.run()
    if last is None:
        if engine.rank == 0:
            print(f"stopped by SIGTERM at step {trainer.step}; go on with --resume auto", file=sys.stderr)
        engine.close()
        return STOPPED
    if engine.rank == 0:
        final = model_dir / "final.pt"
        with open(last, "rb") as source, atomic_write(final, "wb") as f:
            shutil.copyfileobj(source, f)
    engine.close()
    return 0


if __name__ == "__main__":
    run_main(main)
