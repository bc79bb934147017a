"""The flags of WeNet's programs that have no effect on our models: taken as WeNet takes them, told in one line;
and those of one engine, told when it is another.

With the flags in ``bin/train.py``, ``bin/recognize.py`` and ``bin/average_model.py`` these are all that WeNet's
programs know, so that a recipe's command line runs as it stands.
"""

from __future__ import annotations

import argparse
from typing import Any

_TEXT: dict[str, Any] = {"type": str}
_INT: dict[str, Any] = {"type": int}
_FLOAT: dict[str, Any] = {"type": float}
_SWITCH: dict[str, Any] = {"action": "store_true"}
_LORA: dict[str, dict[str, Any]] = {"--use_lora": _TEXT, "--lora_ckpt_path": _TEXT}

TRAIN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("--jit", "--deepspeed", "--deepscale"), _SWITCH),
    "--deepscale_config": _TEXT,
    "--deepspeed.save_states": {"choices": ["model_only", "model+optimizer"]},
    **dict.fromkeys(("--local_rank", "--lora_rank", "--lora_alpha"), _INT),
    **dict.fromkeys(("--fsdp_cpu_offload", "--fsdp_sync_module_states"), _TEXT),
    **_LORA,
    **dict.fromkeys(("--only_optimize_lora", "--lora_reinit", "--lora_init_yaml"), _TEXT),
    **dict.fromkeys(("--lora_modules", "--lora_attn_attr", "--lora_list"), _TEXT),
    "--lora_dropout": _FLOAT,
}
RECOGNIZE: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("--blank_penalty", "--search_ctc_weight", "--search_transducer_weight"), _FLOAT),
    **dict.fromkeys(("--ctc_weight", "--transducer_weight", "--attn_weight", "--reverse_weight"), _FLOAT),
    "--simulate_streaming": _SWITCH,
    **dict.fromkeys(("--word", "--hlg", "--context_bias_mode", "--context_list_path"), _TEXT),
    **dict.fromkeys(("--lm_scale", "--decoder_scale", "--r_decoder_scale", "--context_graph_score"), _FLOAT),
    **_LORA,
}
# Flags of one engine alone: the namespace's name, the engine.
ENGINES: dict[str, tuple[str, str]] = {
    "--deepspeed_config": ("deepspeed_config", "deepspeed"),
    "--fsdp_sharding_strategy": ("fsdp_sharding_strategy", "torch_fsdp"),
}
_MARK = "no effect "


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Let ``parser`` take the flags of the engines; None where they were not given."""
    parser.add_argument(
        "--deepspeed_config", metavar="JSON", help="DeepSpeed's, for --train_engine deepspeed"
    )
    parser.add_argument(
        "--fsdp_sharding_strategy",
        choices=["no_shard", "model", "zero2", "zero3"],
        help="for --train_engine torch_fsdp: gather each layer's weights once a step (zero2, the default) or for "
        "each pass (zero3); model: the encoder in one piece and the rest in another",
    )
    parser.add_argument(
        "--timeout",
        type=int,
        metavar="SECONDS",
        help="that a rank waits for the others before it counts them as lost (600; WeNet's 30 is its join's)",
    )


def add_idle_flags(parser: argparse.ArgumentParser, flags: dict[str, dict[str, Any]]) -> None:
    """Let ``parser`` take ``flags``."""
    group = parser.add_argument_group("WeNet's flags without effect here")
    for flag, how in flags.items():
        # Without a default, the namespace shows which were given.
        group.add_argument(flag, dest=_MARK + flag, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **how)


def idle_flags(args: argparse.Namespace, *more: str) -> str:
    """``no effect here: --jit, --timeout`` for the flags that were given, and ``more`` of them; else nothing."""
    engine = getattr(args, "train_engine", None)
    others = [f for f, (name, own) in ENGINES.items() if getattr(args, name, None) and engine != own]
    given = others + [name[len(_MARK) :] for name in vars(args) if name.startswith(_MARK)] + list(more)
    if not given:
        return ""
    line = f"no effect here: {', '.join(given)}"
    return f"{line}; LoRA is set by decoder_conf.lora" if any("lora" in flag for flag in given) else line
