"""A model ready to be asked, by a few facts that any process can be told."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from wenet_osum.checkpoint.assemble import (
    config_path,
    leave_room,
    load_table,
    prepare_configs,
    resolve_beside,
)
from wenet_osum.checkpoint.weights import load_checkpoint
from wenet_osum.config import load_config
from wenet_osum.dataset.filter import WIDE_OPEN
from wenet_osum.device import card
from wenet_osum.errors import OsumError
from wenet_osum.tasks import TaskTable
from wenet_osum.text import init_tokenizer
from wenet_osum.train.engine import Engine


@dataclass(frozen=True)
class LoadSpec:
    """Which model, where, and how it looks for answers. Each is the flag of that name of ``osum transcribe``.

    Attributes:
        checkpoint: a ``.pt``, or a model folder. config: of the run; None: ``config.yaml`` of the model folder.
        gpu: a CUDA card's number; -1: see ``device``. dtype: None: the config's.
        num_threads: of the process; 0: torch's choice.
        override_config: ``KEY=VALUE``, several.
        mode: ``llm_greedy`` or ``llm_beam``, with ``beam_size`` hypotheses.
        draft: ``none``, ``exact`` or ``relaxed``.
    """

    checkpoint: str
    config: str | None = None
    device: str = "cpu"
    gpu: int = -1
    dtype: str | None = None
    num_threads: int = 0
    override_config: tuple[str, ...] = ()
    mode: str = "llm_greedy"
    beam_size: int = 10
    draft: str = "none"


@dataclass
class Loaded:
    """A model on its device, and what belongs to it. ``conf``: ``dataset_conf`` for decoding: whatever the
    encoder has room for."""

    model: Any
    tokenizer: Any
    table: TaskTable
    configs: dict[str, Any]
    conf: dict[str, Any]
    engine: Engine


def init_engine(spec: LoadSpec, dtype: str) -> Engine:
    """Device and number type that ``spec``, or else the config's ``dtype``, asks for."""
    device, index = (spec.device, None) if spec.gpu == -1 else card(spec.gpu)
    if spec.dtype is None and dtype == "fp16" and device == "cpu":
        logging.info("trained in fp16, which is not for a CPU: decoding in fp32")
        dtype = "fp32"
    # Ranks share a result folder and nothing else.
    return Engine(device, spec.dtype or dtype, index=index, alone=True)


def load_model(spec: LoadSpec, build: Callable[[dict[str, Any]], Any]) -> Loaded:
    """The model of ``spec``, in evaluation mode. ``build`` makes it of its config."""
    # oneDNN keeps a kernel for each shape that it meets, 1,024 of them: some 100 MB where batches differ.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    config = config_path(spec.config, spec.checkpoint)
    configs = load_config(config, list(spec.override_config))
    engine = init_engine(spec, configs["dtype"])
    if spec.num_threads:
        torch.set_num_threads(spec.num_threads)
    resolve_beside(configs, config)
    torch.manual_seed(configs["seed"])
    table = load_table(configs)
    tokenizer = init_tokenizer(configs)
    prepare_configs(configs, tokenizer)
    model = build(configs)
    model.to(engine.device)
    load_checkpoint(model, spec.checkpoint)
    model.eval()
    conf = leave_room(model, {**configs["dataset_conf"], "filter_conf": WIDE_OPEN}, table, tokenizer.encode)
    return Loaded(model, tokenizer, table, configs, conf, engine)


def check_answers(loaded: Loaded, checkpoint: str) -> None:
    """Raises:
    OsumError: a stage-1 model, which answers in ``recognize`` only.
    """
    if not hasattr(loaded.model, "hear"):
        raise OsumError(checkpoint, "is a stage-1 model, without an LLM", "ask it with osum recognize")


def most_seconds(conf: dict[str, Any]) -> float:
    """Seconds of audio that a model takes at a time, by ``leave_room``'s ``dataset_conf``."""
    mel = conf["log_mel_spectrogram_conf"]
    return mel["max_duration"] if mel["pad_or_trim"] else conf["filter_conf"]["max_length"] / 100
