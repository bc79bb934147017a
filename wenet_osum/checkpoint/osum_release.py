"""OSUM's released ``infer.pt`` (github.com/ASLP-lab/OSUM, ``wenet/llm_asr/llmasr_model.py``) to our names and back.

The file is a flat state dict of 1,128 keys: Whisper-medium's encoder, the adapter, Qwen2-7B with LoRA
beside its matrices, buffers of positions, tables that are written twice and layers that nothing calls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wenet_osum.checkpoint.check import check_state
from wenet_osum.checkpoint.folder import skeleton
from wenet_osum.checkpoint.llm_folder import config_keys
from wenet_osum.checkpoint.lora import OURS
from wenet_osum.checkpoint.weights import read_state
from wenet_osum.config import DEFAULTS, fill
from wenet_osum.errors import OsumError

# Release's prefix -> ours.
PREFIXES = {
    "encoder.": "encoder.",
    "down_sample_2.": "adapter.down_sample.",
    "speech_transformer.": "adapter.transformer.",
    "speech_llama_proj.": "adapter.project.",
    "llama_model.base_model.model.": OURS,
}
BOUNDS = "speech_token_emded.weight"  # their spelling; the last two rows are speech begin and end
DUPLICATES = {
    "embed_tokens.weight": "llama_model.base_model.model.model.embed_tokens.weight",
    "lm_head.weight": "llama_model.base_model.model.lm_head.weight",
}
DEAD = ("ln_speech.weight", "ln_speech.bias", "speaker_head.weight", "speaker_head.bias")


class Release(NamedTuple):
    """What a release file holds, in our terms: a run's config, weights by our names, the LLM's transformers
    config, and a line about each thing that was left out."""

    configs: dict[str, Any]
    state: dict[str, Tensor]
    llm_config: Any
    notes: list[str]


def our_name(key: str) -> str | None:
    """Our name of a release key; None for one that belongs to no part of the model."""
    for theirs, ours in PREFIXES.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return "speech_bounds.weight" if key == BOUNDS else None


def their_name(name: str) -> str:
    """The release's key of a weight of ours."""
    for theirs, ours in PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return BOUNDS if name == "speech_bounds.weight" else name


def rename(release: dict[str, Tensor], where: str) -> tuple[dict[str, Tensor], list[str]]:
    """Weights by our names, duplicates and dead keys left out and told.

    Matrices under LoRA may be spelled ``q_proj.base_layer.weight`` (peft from 0.7) or ``q_proj.weight``.

    Raises:
        OsumError: a key that is left over, a weight that is there twice, duplicates that differ.
    """
    adapted = {our_name(k.split(".lora_A.")[0]) for k in release if ".lora_A." in k}
    state: dict[str, Tensor] = {}
    for key, tensor in release.items():
        if key in DEAD:
            continue
        if key in DUPLICATES:
            twin = release.get(DUPLICATES[key])
            if twin is not None and twin.data_ptr() != tensor.data_ptr() and not torch.equal(twin, tensor):
                raise OsumError(
                    where, f"{key} differs from {DUPLICATES[key]}", "take the file as it was released"
                )
            continue
        name = our_name(key)
        if name is None:
            raise OsumError(where, f"{key} is left over", "give OSUM's infer.pt, or a file of its layout")
        if not tensor.is_floating_point():
            raise OsumError(where, f"{key} is of type {tensor.dtype}", "give weights in bf16 or fp32")
        module, _, leaf = name.rpartition(".")
        if module in adapted:
            name = f"{module}.base_layer.{leaf}"
        if name in state:
            raise OsumError(where, f"{key} is there in both spellings of peft", "drop one")
        state[name] = tensor[-2:].clone() if key == BOUNDS else tensor
    notes = [f"{k}: dropped, the same as {DUPLICATES[k]}" for k in DUPLICATES if k in release]
    notes += [f"{k}: dropped, no part of the model calls it" for k in DEAD if k in release]
    if BOUNDS in release:
        notes.append(
            f"{BOUNDS}: rows before {len(release[BOUNDS]) - 2} dropped, no part of the model reads them"
        )
    return state, notes


def sizes(
    state: dict[str, Tensor], where: str, lora_alpha: float, encoder_heads: int | None, adapter_heads: int
) -> dict[str, Any]:
    """The sections of a config that follow from the weights' shapes. Heads and alpha leave no trace there.

    Raises:
        OsumError: a weight is missing that the sizes are read from.
    """

    def shape(name: str) -> torch.Size:
        if name not in state:
            raise OsumError(
                where, f"{their_name(name)} is missing", "give OSUM's infer.pt, or a file of its layout"
            )
        return state[name].shape

    def layers(prefix: str) -> int:
        return len({n[len(prefix) :].split(".")[0] for n in state if n.startswith(prefix)})

    size = shape("encoder.after_norm.weight")[0]
    mels = shape("encoder.embed.conv.0.weight")[1]
    encoder = {
        "output_size": size,
        "attention_heads": encoder_heads or max(1, size // 64),  # of 64 dimensions in every Whisper
        "linear_units": shape("encoder.encoders.0.feed_forward.w_1.weight")[0],
        "num_blocks": layers("encoder.encoders."),
        "max_positions": shape("encoder.embed.pos_enc.pe")[1],
    }
    adapter = {
        "attention_heads": adapter_heads,
        "linear_units": shape("adapter.transformer.encoders.0.feed_forward.w_1.weight")[0],
        "num_blocks": layers("adapter.transformer.encoders."),
        "max_positions": shape("adapter.transformer.embed.pos_enc.pe")[1],
    }
    ranks = {n: t.shape[0] for n, t in state.items() if ".lora_A." in n}
    if not ranks:
        raise OsumError(where, "no LoRA weights in it", "give OSUM's infer.pt, or a file of its layout")
    lora = {
        "r": next(iter(ranks.values())),
        "lora_alpha": lora_alpha,
        "target_modules": sorted({n.split(".lora_A.")[0].split(".")[-1] for n in ranks}),
    }
    return {
        "input_dim": mels,
        "encoder_conf": encoder,
        "model_conf": {"adapter": "osum", "adapter_conf": adapter},
        "decoder_conf": {"lora": lora},
        "dataset_conf": {"log_mel_spectrogram_conf": {"num_mel_bins": mels}, "prompt_conf": {"lang": "zh"}},
    }


def read_release(
    path: str | Path,
    llm_config: Any,
    eos_id: int,
    lora_alpha: float = 32,
    encoder_heads: int | None = None,
    adapter_heads: int = 4,
) -> Release:
    """Read a release file; its tensors stay in the file (mmap) until they are used.

    Args:
        llm_config: transformers config of its LLM. eos_id: the id that ends an answer.
        lora_alpha, encoder_heads, adapter_heads: as it was trained; None: one head a 64 dimensions.

    Raises:
        OsumError: a key that is missing, left over or of another shape than its model's.
    """
    where = str(path)
    state, notes = rename(read_state(path), where)
    given = sizes(state, where, lora_alpha, encoder_heads, adapter_heads)
    given["tokenizer_conf"] = {"special_tokens": {"eos": eos_id, "sos": eos_id}}
    configs = fill(given, DEFAULTS, where)
    llm = {"lora": configs["decoder_conf"]["lora"], "llm_config": config_keys(llm_config)}
    own = skeleton({**configs, "vocab_size": 1, "decoder_conf": llm}).state_dict()
    if llm_config.tie_word_embeddings:  # then the output layer is a second name of the embedding
        own.pop(OURS + "lm_head.weight", None)
        head = state.pop(OURS + "lm_head.weight", None)
        if head is not None and not torch.equal(head, state[OURS + "model.embed_tokens.weight"]):
            raise OsumError(
                where,
                f"{their_name(OURS + 'lm_head.weight')} is not the embedding, the LLM's config ties them",
                "give the config of its LLM",
            )
    theirs, expected = ({their_name(n): t for n, t in tensors.items()} for tensors in (state, own))
    check_state(theirs, expected, where, mend="give OSUM's infer.pt, and the config of its LLM")
    return Release(configs, state, llm_config, notes)


def to_release(
    configs: dict[str, Any],
    state: dict[str, Tensor],
    llm: dict[str, Tensor],
    where: str,
    speech_token_num: int = 4097,
) -> tuple[dict[str, Tensor], list[str]]:
    """The flat state dict that OSUM's own code loads, with every key of the release, and notes.

    Args:
        configs: of the model. state: its weights by our names, less the LLM's. llm: those by Hugging Face's.
        speech_token_num: of the config it is for; the table has two more rows.

    Raises:
        OsumError: the model has parts that the layout has no place for.
    """
    adapter = configs["model_conf"].get("adapter", "osum"), configs["model_conf"].get("adapter_conf") or {}
    for key, value, needed in (
        ("model", configs["model"], "osum"),
        ("model_conf.adapter", adapter[0], "osum"),
        ("model_conf.adapter_conf.strides", list(adapter[1].get("strides", (1, 2, 2))), [1, 2, 2]),
        ("model_conf.adapter_conf.embed_scale", adapter[1].get("embed_scale", 1.0), 1.0),
        ("encoder_conf.conv_strides", list(configs["encoder_conf"].get("conv_strides", (1, 2))), [1, 2]),
    ):
        if value != needed:
            raise OsumError(
                where, f"{key} is {value}, OSUM's layout has {needed}", "keep it in our own format"
            )
    adapted = {n.split(".lora_A.")[0].removeprefix(OURS) for n in state if ".lora_A." in n}
    if not adapted:
        raise OsumError(where, "no LoRA in this model", "keep it in our own format")
    notes = [f"{n}: dropped, OSUM's layout has no CTC head" for n in state if n.startswith("ctc.")]
    release: dict[str, Tensor] = {}
    for name, tensor in llm.items():
        module, _, leaf = name.rpartition(".")
        name = f"{module}.base_layer.{leaf}" if module in adapted else name
        release[their_name(OURS + name)] = tensor
    release.update((their_name(n), t) for n, t in state.items() if not n.startswith("ctc."))
    bounds = state["speech_bounds.weight"]
    size, hidden = state["encoder.after_norm.weight"].shape[0], bounds.shape[1]
    embedding = release[DUPLICATES["embed_tokens.weight"]]
    release.setdefault(DUPLICATES["lm_head.weight"], embedding)  # tied
    zeros = torch.zeros(speech_token_num, hidden, dtype=bounds.dtype)
    release[BOUNDS] = torch.cat([zeros, bounds])
    dead = torch.ones(size), torch.zeros(size), zeros, torch.zeros(speech_token_num)
    release.update((n, t.to(bounds.dtype)) for n, t in zip(DEAD, dead))
    release.update((twin, release[name]) for twin, name in DUPLICATES.items())
    notes.append(f"{', '.join(DEAD)}, rows of {BOUNDS} before {speech_token_num}: written as a fresh model's")
    return release, notes
