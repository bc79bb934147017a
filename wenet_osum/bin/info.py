"""Count a config's model: parameters by part, what learns, memory. Needs no weights and no device."""

from __future__ import annotations

import argparse
import logging
import math
from typing import Any

import torch
from torch import nn

from wenet_osum.bin.common import at_least
from wenet_osum.checkpoint.assemble import max_frames, resolve_beside
from wenet_osum.config import load_config
from wenet_osum.errors import run_main
from wenet_osum.models.memory import Load, inference, training
from wenet_osum.registry import init_model
from wenet_osum.text import init_tokenizer

# OSUM's released model, part by part (its state dict counted): a model of these sizes is told apart from it.
RELEASE = {"encoder": 305_680_384, "adapter": 51_970_560, "llm": 7_615_616_512, "lora": 15_138_816, "ctc": 0}
# What its checkpoint holds beside them. None of it takes part in an answer; `link` trained it all the same.
BESIDE = {
    "speech token rows 0 to 4,096 of 4,099": 4097 * 3584,
    "speaker_head (never called)": 4097 * 3584 + 4097,
    "ln_speech (never called)": 2 * 1024,
}


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="osum info", description=__doc__)
    p.add_argument("config", help="YAML of a run")
    p.add_argument("--override_config", action="append", default=[], metavar="KEY=VALUE")
    p.add_argument("--batch_size", type=at_least(1), default=16, help="utterances of 30 s decoded at once")
    return p.parse_args(argv)


def vocabulary(configs: dict[str, Any]) -> int:
    """Rows of the vocabulary: as the config says, else the LLM's, else the tokenizer's."""
    shape = (configs["decoder_conf"] or {}).get("llm_config") or {}
    return configs["vocab_size"] or shape.get("vocab_size") or init_tokenizer(configs).vocab_size()


def build_shape(configs: dict[str, Any]) -> Any:
    """The model on the meta device: shapes and number types without numbers."""
    configs["vocab_size"] = vocabulary(configs)
    special = configs["tokenizer_conf"].setdefault("special_tokens", {})
    for name in ("sos", "eos"):
        special.setdefault(name, 0)  # any id: the model only keeps it
    with torch.device("meta"):
        return init_model(configs)


def size(parameters: list[nn.Parameter]) -> tuple[int, int]:
    """Parameters, and those that learn."""
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def number_types(parameters: list[nn.Parameter]) -> str:
    names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    return ", ".join(sorted({names[p.dtype] for p in parameters}))


def line(name: str, total: int, learns: int, note: str = "") -> str:
    return f"{name:40}{total:>16,}{learns:>16,}  {note}".rstrip()


def adapter_rows(model: Any) -> list[str]:
    """The adapter's own parts; the two speech bounds belong to it."""
    children = [*model.adapter.named_children(), ("speech_bounds", model.speech_bounds)]
    sizes = [(name, size(list(child.parameters()))) for name, child in children]
    return [line(f"  {name}", *counts) for name, counts in sizes if counts[0]]


def parameter_table(model: Any, quant: str) -> list[str]:
    parts = model.parts()
    rows = [f"{'part':40}{'parameters':>16}{'learn':>16}  type"]
    for name, parameters in parts.items():
        if parameters:
            note = number_types(parameters) + (
                f", matrices in {quant}" if name == "llm" and quant != "none" else ""
            )
            rows.append(line(name, *size(parameters), note))
            rows += adapter_rows(model) if name == "adapter" else []
    total, learns = size([p for parameters in parts.values() for p in parameters])
    rows.append(
        line(
            "total", total, learns, f"{total / 1e9:.2f} B, {learns / 1e6:.1f} M learn ({learns / total:.2%})"
        )
    )
    if {name: size(parameters)[0] for name, parameters in parts.items()} == RELEASE:
        # It learned where the adapter did.
        beside = {name: (n, n if size(parts["adapter"])[1] else 0) for name, n in BESIDE.items()}
        rows += ["", "beside these, in OSUM's released checkpoint (dead weight, not built here)"]
        rows += [line(f"  {name}", *counts) for name, counts in beside.items()]
        total, learns = (
            total + sum(b[0] for b in beside.values()),
            learns + sum(b[1] for b in beside.values()),
        )
        rows.append(
            line("total as released", total, learns, f"{total / 1e9:.2f} B, {learns / 1e6:.0f} M learn")
        )
    return rows


def training_load(conf: dict[str, Any], longest: int | None) -> Load:
    """The fullest batch that ``batch_conf`` allows; utterances counted at 10 s each where it does not say.
    ``longest``: frames that the encoder has positions for."""
    batch, limits = conf["batch_conf"], conf["filter_conf"]
    if batch["batch_type"] == "static":
        n = batch["batch_size"]
        return Load(
            n * min(limits["max_length"], longest or limits["max_length"]), n * limits["token_max_length"], n
        )
    if batch["batch_type"] == "bucket":
        ends = [*batch["bucket_boundaries"], min(limits["max_length"], longest or limits["max_length"])]
        end, n = max(zip(ends, batch["bucket_batch_sizes"]), key=math.prod)
        return Load(n * end, n * limits["token_max_length"], n)
    frames = batch["max_frames_in_batch"]
    return Load(frames, batch["max_tokens_in_batch"], max(1, frames // 1000))


def memory_table(title: str, kinds: dict[str, float]) -> list[str]:
    rows = ["", title]
    rows += [f"  {name:38}{value / 2**30:>16.2f} GiB" for name, value in kinds.items() if value]
    return [*rows, f"  {'sum':38}{sum(kinds.values()) / 2**30:>16.2f} GiB"]


def main(argv: list[str] | None = None) -> int:
    args = get_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    configs = load_config(args.config, args.override_config)
    resolve_beside(configs, args.config)
    half, quant = configs["dtype"] != "fp32", (configs["decoder_conf"] or {}).get("quant", "none")
    model = build_shape(configs)
    load, tokens = (
        training_load(configs["dataset_conf"], max_frames(model.encoder)),
        (configs["model_conf"] or {}).get("max_new_tokens", 400),
    )
    n = args.batch_size
    step = f"training, estimated: a batch of {load.frames / 100:.0f} s and {load.answer:,} answer tokens, {configs['dtype']}"
    decode = f"inference, estimated: 30 s of audio, {n} at once, answers of {tokens} tokens"
    rows = [f"{args.config}: model {configs['model']}", "", *parameter_table(model, quant)]
    rows += memory_table(step, training(model, load, half, quant))
    rows += memory_table(decode, inference(model, Load(3000 * n, tokens * n, n), half, quant))
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    run_main(main)
