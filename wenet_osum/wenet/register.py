"""Put our models, tokenizers and data into a live WeNet."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from wenet_osum.bin.common import check_epochs, make_index
from wenet_osum.checkpoint.weights import init_modules, llm_elsewhere, load_checkpoint
from wenet_osum.dataset.dataset import OsumDataset
from wenet_osum.errors import OsumError
from wenet_osum.models.attention import EncoderLayer
from wenet_osum.models.llm_decoder import LLMDecoder
from wenet_osum.models.osum import SpeechModel
from wenet_osum.registry import CTCS, DECODERS, ENCODERS, MODELS, load_models
from wenet_osum.train.optim import freeze_modules
from wenet_osum.wenet.find import import_wenet
from wenet_osum.wenet.lists import check_lists
from wenet_osum.wenet.loader import TaskSteps, WithoutSpeakerNames
from wenet_osum.wenet.mends import say
from wenet_osum.wenet.planned import PlannedBatches
from wenet_osum.wenet.run import Run, mel_bins

STEPS = ("tokenize", "filter", "detect_language", "detect_task", "padding")


class Plugin:
    """The functions of WeNet that ours stand before, and what one of them must know of another.

    Args:
        task: asked, when decoding, of an utterance whose list names none.
    """

    def __init__(self, task: str = "asr"):
        self.task = task
        self.runs: list[Run] = []  # one for each config that came by
        self.mode = "decode"  # what a dataset is built for; recognize.py builds its own directly
        self.planned: list[PlannedBatches] = []
        self.left_out: set[str] = set()  # weights that are not written to checkpoints

    def install(self) -> None:
        """Add to WeNet's tables; put our functions before WeNet's, wherever they were imported to."""
        load_models()
        self.models = import_wenet()
        for table, classes in (
            (self.models.WENET_ENCODER_CLASSES, ENCODERS),
            (self.models.WENET_DECODER_CLASSES, DECODERS),
            (self.models.WENET_CTC_CLASSES, CTCS),
            (self.models.WENET_MODEL_CLASSES, MODELS),
        ):
            for name, cls in classes.items():
                table.setdefault(name, cls)
        self.processor = importlib.import_module("wenet.dataset.processor")
        for module, name, ours in (
            ("utils.init_tokenizer", "init_tokenizer", self.init_tokenizer),
            ("utils.init_dataset", "init_dataset", self.init_dataset),
            ("utils.init_model", "init_model", self.init_model),
            ("utils.init_model", "init_speech_model", self.init_speech_model),
            ("utils.checkpoint", "load_checkpoint", self.load_checkpoint),
            ("utils.checkpoint", "load_trained_modules", self.load_trained_modules),
            ("utils.checkpoint", "save_state_dict_and_infos", self.save_state_dict_and_infos),
            ("dataset.dataset", "Dataset", self.dataset),
        ):
            replace(importlib.import_module(f"wenet.{module}"), name, ours)

    def run_of(self, configs: dict[str, Any], beside: str | None = None) -> Run:
        run = next((r for r in self.runs if r.configs is configs), None)
        if run is None:
            run = Run(configs, beside)
            self.runs.append(run)
        return run

    def init_tokenizer(self, stock: Callable[..., Any], configs: dict[str, Any]) -> Any:
        """Ours for our models, so that ids are the same in either home; ``huggingface`` for any model."""
        if is_ours(configs):
            return self.run_of(configs).tokenizer
        if configs.get("tokenizer") == "huggingface":
            from wenet_osum.text import init_tokenizer

            return init_tokenizer(configs)
        return stock(configs)

    def init_dataset(
        self,
        stock: Callable[..., Any],
        dataset_type: str,
        data_type: str,
        data_list_file: Any,
        tokenizer: Any = None,
        conf: Any = None,
        partition: bool = True,
        split: str = "train",
    ) -> Any:
        """``osum`` is our engine; any other is WeNet's, its processors joined by ours for our models."""
        if dataset_type == "osum":
            return self.plan(data_type, data_list_file, tokenizer, partition, split)
        self.mode = "train" if split == "train" else "dev"
        try:
            return stock(dataset_type, data_type, data_list_file, tokenizer, conf, partition, split)
        finally:
            self.mode = "decode"

    def plan(
        self, data_type: str, lists: str | list[str], tokenizer: Any, partition: bool, split: str
    ) -> PlannedBatches:
        run = next((r for r in self.runs if r.tokenizer is tokenizer), None)
        if run is None:
            raise OsumError("dataset", "osum is the data engine of our models only", "set dataset: asr")
        paths = [lists] if isinstance(lists, str) else lists
        index = make_index(paths, data_type, run.table, tokenizer.encode, run.fitting)
        for skipped in index.skipped:
            logging.warning("set aside: %s", skipped)
        seed = int(run.configs.get("seed", 777))
        train = split == "train"
        dataset = OsumDataset(index, run.table, tokenizer, run.fitting, seed, train)
        cycle = int(run.configs["dataset_conf"].get("cycle", 1)) if train else 1
        batches = PlannedBatches(dataset, partition, cycle)
        if train:
            self.planned.append(batches)
        return batches

    def dataset(
        self,
        stock: Callable[..., Any],
        data_type: str,
        data_list_file: Any,
        tokenizer: Any = None,
        conf: Any = None,
        partition: bool = True,
    ) -> Any:
        """WeNet's pipeline; for our models with our steps in it."""
        run = next((r for r in self.runs if r.tokenizer is tokenizer), None)
        check_lists(data_type, data_list_file, None if run is None else run.table)
        if run is not None:
            conf = {**run.conf, **(conf or {})}  # recognize.py copies it before we complete it
            ours = TaskSteps(self.processor, run, self.mode, self.task)
            steps = {name: getattr(ours, name) for name in STEPS}
        elif (conf or {}).get("speaker_conf") is None:
            steps = {"padding": WithoutSpeakerNames(self.processor)}
        else:
            steps = {}
        with standing_in(self.processor, steps):
            return stock(data_type, data_list_file, tokenizer, conf, partition)

    def init_speech_model(self, stock: Callable[..., Any], args: Any, configs: dict[str, Any]) -> Any:
        """For our models: our CTC head, prompts of their own, and the flags that WeNet reads too late."""
        if not is_ours(configs):
            if "input_dim" not in configs:  # train.py fills it in for asr_model alone
                data = configs["dataset_conf"]
                configs["input_dim"] = mel_bins(data, data.get("feats_type", "fbank"))
                say(f"input_dim is not in the config of a {configs.get('model')}: {configs['input_dim']}")
            return stock(args, configs)
        if getattr(args, "jit", False):
            raise OsumError("--jit", "a transformers LLM is no TorchScript", "leave it out")
        run = self.run_of(configs, getattr(args, "checkpoint", None))
        if hasattr(args, "train_engine"):
            run.fit_trainer()
        tables = self.models.WENET_CTC_CLASSES
        theirs = dict(tables)
        tables.update(CTCS)  # WeNet's "ctc" is another class, for its own models
        try:
            model, configs = stock(args, configs)
        finally:
            tables.update(theirs)
        model.prompts = run.prompts
        wrap_layers(model)
        if hasattr(args, "modes"):
            if not args.modes:
                raise OsumError("--modes", "is missing", f"choose from {', '.join(model.modes)}")
            model.check_modes(args.modes)
        if getattr(args, "freeze_modules", None):  # WeNet reads the flag and does nothing
            freeze_modules(model, args.freeze_modules)
        if hasattr(args, "train_engine") and not any(p.requires_grad for p in model.parameters()):
            raise OsumError("model_conf.trainable", "no parameter is left to train", "name at least one part")
        if getattr(args, "train_engine", None) == "torch_fsdp":
            fit_fsdp(model, args)
        return model, configs

    def init_model(self, stock: Callable[..., Any], args: Any, configs: dict[str, Any]) -> Any:
        model, configs = stock(args, configs)
        if isinstance(model, SpeechModel):
            self.left_out = llm_left_out(model)
            infos = configs["init_infos"]
            epoch = infos["epoch"] + 1 if str(infos.get("tag")).startswith("epoch_") else 0
            if hasattr(args, "train_engine") and "save_interval" not in configs:
                check_epochs(epoch, configs["max_epoch"], getattr(args, "checkpoint", None))
            for batches in self.planned:  # go on where the checkpoint stopped
                batches.epoch = epoch
        return model, configs

    def load_checkpoint(self, stock: Callable[..., Any], model: Any, path: str) -> dict[str, Any]:
        """For our models every key must fit; WeNet would log what does not and go on."""
        if not isinstance(model, SpeechModel):
            return stock(model, path)
        load_checkpoint(model, path)
        infos = Path(path).with_suffix(".yaml")
        facts = yaml.full_load(infos.read_text(encoding="utf-8")) if infos.is_file() else None
        return facts if isinstance(facts, dict) else {}

    def save_state_dict_and_infos(
        self, stock: Callable[..., Any], state_dict: dict[str, Any], path: str, infos: Any = None
    ) -> Any:
        return stock({n: t for n, t in state_dict.items() if n not in self.left_out}, path, infos)

    def load_trained_modules(self, stock: Callable[..., Any], model: Any, args: Any) -> dict[str, Any]:
        """``--enc_init``, by our rules for our models."""
        if not isinstance(model, SpeechModel):
            return stock(model, args)
        init_modules(model, args.enc_init, args.enc_init_mods)
        return {}


def is_ours(configs: dict[str, Any]) -> bool:
    return configs.get("model") in MODELS


def replace(module: Any, name: str, ours: Callable[..., Any]) -> None:
    """Put ``ours(stock, ...)`` in the place of ``module.name``, there and wherever WeNet has imported it to."""
    stock = getattr(module, name)
    new = partial(ours, stock)
    for loaded_name, loaded in list(sys.modules.items()):
        if loaded_name.partition(".")[0] == "wenet" and vars(loaded).get(name) is stock:
            setattr(loaded, name, new)


@contextmanager
def standing_in(module: Any, members: dict[str, Any]) -> Iterator[None]:
    """``module``'s members are others inside the context."""
    stock = {name: getattr(module, name) for name in members}
    vars(module).update(members)
    try:
        yield
    finally:
        vars(module).update(stock)


def wrap_layers(model: SpeechModel) -> None:
    """Tell WeNet's FSDP which layers to wrap; it knows its own classes only."""
    fsdp = importlib.import_module("wenet.utils.fsdp_utils")
    fsdp.WENET_ENCODER_LAYERS_CLASSES["osum_layer"] = EncoderLayer
    if isinstance(model.decoder, LLMDecoder):
        layers = model.decoder.causal_lm.base_model.layers
        fsdp.WENET_DECODER_LAYERS_CLASSES["llm_layer"] = type(layers[0])


def llm_left_out(model: SpeechModel) -> set[str]:
    """Names of the weights that checkpoints go without: those of a frozen LLM that has a folder of its own."""
    elsewhere = llm_elsewhere(model)
    learns = {n for n, p in model.named_parameters() if p.requires_grad}
    return elsewhere if elsewhere.isdisjoint(learns) else set()


def fit_fsdp(model: SpeechModel, args: Any) -> None:
    """FSDP flattens the weights of a layer together, so they must be of one type; LoRA is fp32.

    Raises:
        OsumError: a way of sharding that cannot hold this model.
    """
    if getattr(args, "fsdp_sharding_strategy", None) == "model":
        what = "wraps the LLM whole, and its embeddings are read from outside"
        raise OsumError("--fsdp_sharding_strategy model", what, "take zero2 or zero3")
    if not all(p.is_floating_point() for p in model.parameters()):
        raise OsumError("decoder_conf.quant", "FSDP cannot shard 4 or 8 bits", "set decoder_conf.quant: none")
    if len({p.dtype for p in model.parameters()}) > 1:
        say("weights of several types, which FSDP cannot flatten together: fp32 for all")
        model.float()


_installed: list[Plugin] = []


def register(task: str = "asr") -> Plugin:
    """Put models ``osum`` and ``whisper_multitask``, encoder ``whisper_osum``, decoders ``llm`` and ``whisper``,
    tokenizer ``huggingface`` and ``dataset: osum`` into the WeNet on the path. A second call changes the task.

    Args:
        task: asked, when decoding, of an utterance whose list names none.

    Raises:
        OsumError: no WeNet, another package of that name, one that is too old or too new, or half of it.
    """
    if _installed:
        _installed[0].task = task
    else:
        plugin = Plugin(task)
        plugin.install()
        _installed.append(plugin)
    return _installed[0]
