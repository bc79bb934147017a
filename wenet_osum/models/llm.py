"""A Hugging Face causal language model: its shape, its weights, their number type."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import torch

from wenet_osum.device import DTYPES
from wenet_osum.errors import OsumError
from wenet_osum.hub import CONFIG_FILES, WEIGHT_FILES, fetch, is_hub_id
from wenet_osum.models.packed import SDPA, register_attention

QUANTS = ("none", "4bit", "8bit")


def llm_config_of(llm: str | None, llm_config: dict[str, Any] | None, vocab_size: int) -> Any:
    """The Hugging Face config: the folder's or hub id's, or the one ``llm_config`` describes.

    With both, the shape needs no hub; whether the two agree is seen when the weights are loaded.

    Raises:
        OsumError: neither is given, a key the model type has not, a folder without a config.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, AutoConfig

    if llm_config is None:
        if llm is None:
            raise OsumError("decoder_conf", "has neither llm nor llm_config", "llm: folder or hub id")
        return from_folder(AutoConfig, llm, CONFIG_FILES)
    conf = dict(llm_config)
    model_type = conf.pop("model_type", None)
    if model_type not in CONFIG_MAPPING:
        raise OsumError(
            "decoder_conf.llm_config.model_type",
            f"transformers knows no {model_type!r}",
            "for example qwen2 or llama",
        )
    try:
        config = AutoConfig.for_model(model_type, **{"vocab_size": vocab_size, **conf})
    except (ValueError, TypeError, StrictDataclassError) as e:
        reason = str(e).strip().splitlines()[-1].strip()
        raise OsumError("decoder_conf.llm_config", reason, "mend the shape") from None
    # transformers 5 keeps the two older names for what is now rope_parameters.
    known = {*type(config)().to_dict(), "rope_theta", "rope_scaling"}
    unknown = [k for k in conf if k not in known]
    if unknown:
        raise OsumError(
            f"decoder_conf.llm_config.{unknown[0]}", f"{model_type} has no such key", "see its config class"
        )
    return config


def from_folder(cls: Any, llm: str, files: list[str], **more: Any) -> Any:
    """``cls.from_pretrained`` of a folder, or of a hub id's ``files``; what goes wrong in one line."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    folder = str(fetch(llm, files, "decoder_conf.llm")) if is_hub_id(llm) else llm
    try:
        with _bar_for_eyes_only():
            return cls.from_pretrained(folder, **more)
    except (
        *(OSError, ValueError, TypeError, RuntimeError, ImportError, KeyError),
        *(SafetensorError, StrictDataclassError),
    ) as e:
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise OsumError(
            "decoder_conf.llm",
            f"{llm!r} cannot be loaded ({reason})",
            "give a local folder with config.json and weights, or a hub id that can be reached",
        ) from None


@contextlib.contextmanager
def _bar_for_eyes_only() -> Iterator[None]:
    """transformers shows how far it has come where stderr is a terminal alone, as all other bars here."""
    from transformers.utils import logging

    hidden = not sys.stderr.isatty() and logging.is_progress_bar_enabled()
    if hidden:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if hidden:
            logging.enable_progress_bar()


def check_agree(llm: str, llm_config: dict[str, Any], given: Any, found: Any) -> None:
    """The shape written in the config is the folder's."""
    theirs, ours = found.to_dict(), given.to_dict()
    for key in llm_config:
        name = "rope_parameters" if key.startswith("rope_") else key
        if theirs.get(name) != ours.get(name):
            raise OsumError(
                f"decoder_conf.llm_config.{key}",
                f"is {ours.get(name)!r}, {llm} has {theirs.get(name)!r}",
                "make them agree, or leave llm_config out",
            )


def quant_config(quant: str, dtype: torch.dtype | None) -> Any:
    """bitsandbytes' settings: nf4 with double quantisation (QLoRA, arXiv 2305.14314), or LLM.int8.

    Raises:
        OsumError: bitsandbytes is not installed, or supports no device of this machine.
    """
    from transformers import BitsAndBytesConfig

    where = f"decoder_conf.quant: {quant}"
    try:
        importlib.import_module("bitsandbytes")
    except ImportError:
        raise OsumError(where, "bitsandbytes is not installed", "pip install wenet_osum[quant]") from None
    from transformers.integrations import validate_bnb_backend_availability

    try:
        validate_bnb_backend_availability(raise_exception=True)
    except (RuntimeError, ImportError, ValueError):
        raise OsumError(
            where, "bitsandbytes supports no device here", "use a CUDA device, or quant: none"
        ) from None
    if quant == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype or torch.bfloat16,
    )


def build_llm(
    llm: str | None, llm_config: dict[str, Any] | None, vocab_size: int, dtype: str, quant: str, attn: str
) -> Any:
    """The Hugging Face model with the weights of ``llm``, or random ones of the shape ``llm_config``.

    Under ``torch.device("meta")`` there are no weights to load, and only the shape is built.

    Args:
        vocab_size: rows of the embedding where ``llm_config`` does not say.
        dtype: ``auto`` (the folder's; fp32 for random weights), fp32, bf16 or fp16.
        quant: one of ``QUANTS``.
        attn: transformers' ``attn_implementation``; its ``sdpa`` becomes ours, which can keep utterances apart.
    """
    from transformers import AutoModelForCausalLM

    register_attention()
    attn = SDPA if attn == "sdpa" else attn

    for key, value, choices in (("dtype", dtype, ("auto", *DTYPES)), ("quant", quant, QUANTS)):
        if value not in choices:
            raise OsumError(f"decoder_conf.{key}", f"is {value!r}", f"choose one of {', '.join(choices)}")
    config = llm_config_of(llm, llm_config, vocab_size)
    chosen = DTYPES.get(dtype)
    if llm is None or torch.get_default_device().type == "meta":
        if llm is None and quant != "none":
            raise OsumError("decoder_conf.quant", "is for pretrained weights", "give llm: folder or hub id")
        kept = config.dtype if llm is not None else None
        return AutoModelForCausalLM.from_config(
            config, dtype=chosen or kept or torch.float32, attn_implementation=attn
        )
    if llm_config is not None:
        check_agree(llm, llm_config, config, llm_config_of(llm, None, vocab_size))
    more = {} if quant == "none" else {"quantization_config": quant_config(quant, chosen)}
    model, report = from_folder(
        AutoModelForCausalLM,
        llm,
        CONFIG_FILES + WEIGHT_FILES,
        dtype=chosen or "auto",
        attn_implementation=attn,
        output_loading_info=True,
        **more,
    )
    if report["missing_keys"]:  # transformers would only warn, and leave them random
        raise OsumError(
            "decoder_conf.llm", f"{llm!r} lacks {min(report['missing_keys'])}", "copy the folder again, whole"
        )
    return model
