"""A model as a folder that can be moved, shared and read part by part.

    config.yaml           the run's config, whole; paths in it are relative to the folder
    tokenizer/            the tokenizer's files
    encoder.safetensors   adapter.safetensors   ctc.safetensors (with a CTC head)
    lora/                 a standard peft adapter (with LoRA)
    llm/                  a standard Hugging Face folder, unless config.yaml names the LLM elsewhere

Tensors bear the names they have in our model (``encoder.embed.conv.0.weight``), less in ``llm/`` and
``lora/``, where they bear Hugging Face's and peft's.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wenet_osum.checkpoint.check import check_state
from wenet_osum.checkpoint.files import read_hf_folder, read_safetensors
from wenet_osum.checkpoint.llm_folder import (
    config_keys,
    read_llm_config,
    write_llm,
    write_safetensors,
)
from wenet_osum.checkpoint.lora import hf_name, is_llm, read_lora, write_lora
from wenet_osum.config import load_config, save_config
from wenet_osum.errors import OsumError
from wenet_osum.registry import init_model

CONFIG = "config.yaml"
PARTS: dict[str, tuple[str, ...]] = {
    "encoder.safetensors": ("encoder.",),
    "adapter.safetensors": ("adapter.", "speech_bounds."),
    "ctc.safetensors": ("ctc.",),
}
COPIED_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "config.json"),
)


def skeleton(configs: dict[str, Any]) -> Any:
    """The model of a config on the meta device: every name and shape, no memory. A pretrained LLM is known
    by its ``config.json`` alone."""
    conf = {**configs["decoder_conf"], "quant": "none"}
    if conf.get("llm") is not None and Path(conf["llm"]).exists():
        conf["llm_config"] = config_keys(read_llm_config(conf.pop("llm")))
    with torch.device("meta"):
        return init_model({**configs, "decoder_conf": conf})


def llm_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The LLM's own weights in a state dict of ours, by Hugging Face's names."""
    return {hf_name(n): t for n, t in state.items() if is_llm(n)}


def write_folder(
    folder: Path,
    configs: dict[str, Any],
    state: dict[str, Tensor],
    llm_config: Any,
    llm: Iterable[tuple[str, Tensor]] = (),
) -> None:
    """Fill a new folder.

    Args:
        configs: of the run; its tokenizer's files are copied.
        state: weights by our model's names. Without the LLM's own, the folder names the config's LLM.
        llm_config: the transformers config of the LLM.
        llm: the LLM's weights by Hugging Face's names, in place of those in ``state``.
    """
    configs = copy.deepcopy(configs)
    take_files(folder, configs)
    conf = configs["decoder_conf"]
    for file, prefixes in PARTS.items():
        if part := {n: t for n, t in state.items() if n.startswith(prefixes)}:
            write_safetensors(folder / file, part)
    own = llm_part(state)
    if llm or own:
        write_llm(folder / "llm", llm_config, llm or own.items())
        conf.pop("llm_config", None)
        conf["llm"] = "llm"
    elif Path(conf["llm"]).exists():
        conf["llm"] = str(Path(conf["llm"]).resolve())
    if lora := {n: t for n, t in state.items() if "lora_" in n}:
        write_lora(folder / "lora", conf["lora"], lora, None if conf["llm"] == "llm" else conf["llm"])
    save_config(configs, folder / CONFIG)


def take_files(folder: Path, configs: dict[str, Any]) -> None:
    """Copy the tokenizer's files and the file of further tasks, and name the copies in ``configs``.

    Raises:
        OsumError: a local tokenizer folder without a tokenizer.
    """
    conf = configs["tokenizer_conf"]
    for key in ("model_path", "symbol_table_path", "non_lang_syms_path"):
        # "tokenizer" alone is the converter's word for files that come later, no folder that is here by chance.
        if conf.get(key) in (None, "tokenizer"):
            continue
        source = Path(conf[key])
        if not source.exists():  # a hub id, or files that come later
            continue
        there = folder / "tokenizer"
        there.mkdir(exist_ok=True)
        files = [source / n for n in COPIED_FILES] if source.is_dir() else [source]
        files = [f for f in files if f.is_file()]
        if not any("tok" in f.name or "vocab" in f.name or f == source for f in files):
            raise OsumError(str(source), "no tokenizer files in it", "give the tokenizer's folder")
        for file in files:
            shutil.copyfile(file, there / file.name)
        conf[key] = "tokenizer" if source.is_dir() else f"tokenizer/{source.name}"
    if configs["tasks"]:
        shutil.copyfile(configs["tasks"], folder / "tasks.yaml")
        configs["tasks"] = "tasks.yaml"


def read_folder(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder less those of the LLM itself, by our model's names.

    Raises:
        OsumError: no folder of this kind, a file of it missing or not whole, or a stranger's tensor in one.
    """
    conf = load_config(folder / CONFIG)["decoder_conf"]
    state: dict[str, Tensor] = {}
    for file, prefixes in PARTS.items():
        if file == "ctc.safetensors" and not (folder / file).exists():
            continue
        part = read_safetensors(folder / file)
        if strange := [n for n in part if not n.startswith(prefixes)]:
            raise OsumError(
                str(folder / file), f"{strange[0]} does not belong in it", "convert the model again"
            )
        state.update(part)
    if conf.get("lora") is not None:
        state.update(read_lora(folder / "lora", conf["lora"]))
    return state


def read_whole(folder: Path, configs: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """``read_folder`` and the LLM's weights by Hugging Face's names; ``configs`` is the folder's config
    with its paths resolved.

    Raises:
        OsumError: also when the LLM is no local folder, or a name or shape is not the model's.
    """
    llm = configs["decoder_conf"].get("llm")
    if llm is None or not Path(llm).is_dir():
        raise OsumError(
            str(folder / CONFIG),
            f"decoder_conf.llm is {llm!r}, no local folder",
            "download it and name its folder",
        )
    state, weights = read_folder(folder), read_hf_folder(llm)
    model = skeleton({**configs, "vocab_size": configs["vocab_size"] or 1})
    own = model.state_dict()
    mend = "copy or convert it again"
    rest = {n: t for n, t in own.items() if not is_llm(n)}
    check_state(state, rest, str(folder), mend=mend)
    spare = ("lm_head.weight",) if model.decoder.causal_lm.config.tie_word_embeddings else ()
    check_state(weights, llm_part(own), str(llm), spare, mend)
    return state, weights
