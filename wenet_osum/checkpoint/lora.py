"""LoRA weights (Hu et al. 2021) as a standard peft folder, and merged into the matrices they adapt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from wenet_osum.checkpoint.files import read_json, read_safetensors
from wenet_osum.checkpoint.llm_folder import write_safetensors
from wenet_osum.errors import OsumError
from wenet_osum.models.llm_decoder import OSUM_LORA

# Our model's name and peft's: peft leaves its adapter's name ("default") out of files.
OURS, PEFT = "decoder.causal_lm.", "base_model.model."

# Keys of ``decoder_conf.lora`` under which an adapted matrix is W + alpha / r * B A.
PLAIN = {"r", "lora_alpha", "lora_dropout", "target_modules", "bias"}


def is_llm(name: str) -> bool:
    """Whether a weight of our model is the LLM's own, not LoRA's and no other part's."""
    return name.startswith(OURS) and "lora_" not in name


def hf_name(name: str) -> str:
    """Hugging Face's name of a weight of the LLM in our model."""
    return name.removeprefix(OURS).replace(".base_layer.", ".")


def write_lora(folder: Path, conf: dict[str, Any], tensors: dict[str, Tensor], llm: str | None) -> None:
    """Write an adapter that ``PeftModel.from_pretrained(llm, folder)`` loads.

    Args:
        conf: ``decoder_conf.lora``. tensors: by our model's names. llm: what it adapts, a hub id or None.
    """
    from peft import LoraConfig

    if other := sorted(set(conf) - PLAIN):
        raise OsumError(f"decoder_conf.lora.{other[0]}", "only plain LoRA goes into a folder", "keep the .pt")
    config = LoraConfig(
        task_type="CAUSAL_LM", inference_mode=True, base_model_name_or_path=llm, **{**OSUM_LORA, **conf}
    )
    config.save_pretrained(str(folder))
    named = {
        PEFT + re.sub(r"(lora_\w+)\.default\b", r"\1", n.removeprefix(OURS)): t for n, t in tensors.items()
    }
    write_safetensors(folder / "adapter_model.safetensors", named)


def read_lora(folder: Path, conf: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of a peft folder by our model's names.

    Raises:
        OsumError: the folder was written for another rank or alpha than ``conf`` says.
    """
    path = folder / "adapter_config.json"
    given, wanted = read_json(path), {**OSUM_LORA, **conf}
    for key in ("r", "lora_alpha"):
        if given.get(key) != wanted[key]:
            raise OsumError(
                str(path),
                f"{key} is {given.get(key)}, decoder_conf.lora has {wanted[key]}",
                "make them equal",
            )
    tensors = read_safetensors(folder / "adapter_model.safetensors")
    if strange := [n for n in tensors if not n.startswith(PEFT) or "lora_" not in n]:
        raise OsumError(str(folder), f"{strange[0]} is no LoRA weight", "give plain LoRA as peft writes it")
    return {
        OURS + re.sub(r"(lora_[A-Za-z]+)", r"\1.default", n.removeprefix(PEFT)): t for n, t in tensors.items()
    }


def merged(
    llm: Mapping[str, Tensor], lora: Mapping[str, Tensor], conf: dict[str, Any]
) -> Iterator[tuple[str, Tensor]]:
    """An LLM's weights with LoRA added, one after the other: W + alpha / r * B A.

    The sum is taken in float32 and rounded once to the matrix's own type.

    Args:
        llm: weights by Hugging Face's names. lora: by our model's names. conf: ``decoder_conf.lora``.

    Raises:
        OsumError: another kind of LoRA than the plain one, or an adapter of a matrix that is not there.
    """
    if other := sorted(set(conf) - PLAIN):
        raise OsumError(f"decoder_conf.lora.{other[0]}", "only plain LoRA can be merged", "keep it apart")
    whole = {**OSUM_LORA, **conf}
    scale = float(whole["lora_alpha"]) / int(whole["r"])
    pairs = {}
    for name in lora:
        if ".lora_A." in name:
            target = name.removeprefix(OURS).replace(".lora_A.default", "")
            if target not in llm:
                raise OsumError(name, "adapts a matrix that the LLM has not", "use the LLM it was made for")
            pairs[target] = (lora[name].float(), lora[name.replace("lora_A", "lora_B")].float())
    for name, weight in llm.items():
        if name in pairs:
            a, b = pairs[name]
            weight = (weight.float() + scale * (b @ a)).to(weight.dtype)
        yield name, weight
