"""A model folder of ours to a Hugging Face folder: LoRA merged, one tensor in memory at a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from wenet_osum.checkpoint.folder import read_whole
from wenet_osum.checkpoint.llm_folder import read_llm_config, write_sharded
from wenet_osum.checkpoint.lora import merged
from wenet_osum.errors import OsumError
from wenet_osum.hf import OsumConfig, OsumFeatureExtractor, OsumForConditionalGeneration, OsumProcessor
from wenet_osum.text import init_tokenizer

AUDIO_TOKEN = "<|audio|>"
# For engines that speak OpenAI's chat format: one message, its text before its speech. Without it they would
# take the template of the LLM's own tokenizer, whose roles OSUM never saw.
CHAT_TEMPLATE = """\
{%- if messages | length != 1 -%}{{- raise_exception('OSUM answers one question: give one message') -}}{%- endif -%}
{%- for message in messages -%}
{%- for item in message['content'] -%}{%- if item['type'] == 'text' -%}{{- item['text'] -}}{%- endif -%}{%- endfor -%}
{%- set speech = message['content'] | selectattr('type', 'equalto', 'audio') | list -%}
{%- if speech | length != 1 -%}{{- raise_exception('a message has one audio item, and a list of content') -}}{%- endif -%}
{%- endfor -%}
{{- 'AUDIO' -}}
""".replace("AUDIO", AUDIO_TOKEN)


def strides_of(configs: dict[str, Any]) -> list[int]:
    """By how much each layer of encoder and adapter thins the frames out: ceil(T / stride), one after the other."""
    encoder = configs["encoder_conf"].get("conv_strides", (1, 2))
    conf = configs["model_conf"].get("adapter_conf") or {}
    name = configs["model_conf"].get("adapter", "osum")
    if configs["encoder"] != "whisper_osum" or name not in ("osum", "conv", "linear"):
        raise OsumError(
            f"encoder {configs['encoder']}, adapter {name}",
            "have unknown strides",
            "export whisper_osum with osum",
        )
    adapter = (
        [conf.get("factor", 4)]
        if name == "linear"
        else conf.get("strides", (1, 2, 2) if name == "osum" else (2, 2))
    )
    return [*encoder, *adapter]


def write_hf(source: Path, configs: dict[str, Any], folder: Path) -> None:
    """Fill ``folder`` with what ``AutoModel`` and ``AutoProcessor`` load once ``wenet_osum.hf`` is imported.

    Args:
        source: a model folder. configs: its config, paths resolved.

    Raises:
        OsumError: the tokenizer is none of Hugging Face's, or the LLM is no local folder.
    """
    if configs["tokenizer"] != "huggingface":
        raise OsumError(
            f"tokenizer {configs['tokenizer']}",
            "is none of Hugging Face's",
            "train with tokenizer: huggingface",
        )
    tokenizer = init_tokenizer(configs).backend
    state, llm = read_whole(source, configs)
    lora = {n: t for n, t in state.items() if "lora_" in n}
    for name in state:
        if name.startswith("ctc."):
            logging.info("%s: dropped, generate does not use it", name)

    tokenizer.add_tokens([AUDIO_TOKEN], special_tokens=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    mel = configs["dataset_conf"]["log_mel_spectrogram_conf"]
    if mel["padding"] or mel["pad_or_trim"]:
        raise OsumError(
            "log_mel_spectrogram_conf", "pads, which the exported extractor does not", "train without padding"
        )
    encoder = configs["encoder_conf"]
    positions = encoder.get("max_positions", 1500) * math.prod(encoder.get("conv_strides", (1, 2)))
    extractor = OsumFeatureExtractor(
        mel["num_mel_bins"],
        configs["dataset_conf"]["resample_conf"]["resample_rate"],
        n_fft=mel["n_fft"],
        hop_length=mel["hop_length"],
        max_frames=min(positions, configs["dataset_conf"]["filter_conf"]["max_length"]),
    )
    OsumProcessor(
        extractor, tokenizer, CHAT_TEMPLATE, audio_token=AUDIO_TOKEN, strides=strides_of(configs)
    ).save_pretrained(folder)

    text_config = read_llm_config(configs["decoder_conf"]["llm"])
    config = OsumConfig(
        text_config,
        configs["encoder"],
        configs["encoder_conf"],
        configs["model_conf"].get("adapter", "osum"),
        configs["model_conf"].get("adapter_conf"),
        configs["input_dim"],
        tokenizer.convert_tokens_to_ids(AUDIO_TOKEN),
        architectures=[OsumForConditionalGeneration.__name__],
    )

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in state.items():
            if name.startswith(("encoder.", "adapter.", "speech_bounds.")):
                yield name, tensor
        whole = merged(llm, lora, configs["decoder_conf"]["lora"]) if lora else llm.items()
        for name, tensor in whole:
            if name != "lm_head.weight" or not text_config.tie_word_embeddings:
                yield f"language_model.{name}", tensor

    config.dtype = write_sharded(folder, tensors())
    config.save_pretrained(folder)
    eos = configs["tokenizer_conf"]["special_tokens"]["eos"]
    longest = configs["model_conf"].get("max_new_tokens", 400)
    GenerationConfig(
        eos_token_id=eos, pad_token_id=eos, max_new_tokens=longest, do_sample=False
    ).save_pretrained(folder)
