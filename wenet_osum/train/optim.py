"""Optimizer and learning-rate schedules under WeNet's names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from wenet_osum.errors import OsumError


def build_optimizer(model: Any, name: str, conf: dict[str, Any]) -> torch.optim.Optimizer:
    """Adam or AdamW over what learns. ``lr_scale`` gives parts of the model their own rate; so does a list of
    rates with ``modules``, in WeNet's way. Vectors (biases, norms) are not decayed.

    Raises:
        OsumError: an unknown part or module, nothing that learns, or something that learns in half precision.
    """
    conf = dict(conf)
    lr, decay, scales = conf.pop("lr"), conf.pop("weight_decay"), conf.pop("lr_scale")
    modules = conf.pop("modules", [])
    parts = by_module(model, modules) if modules else model.parts()
    rates = dict(zip(parts, lr)) if modules else {part: lr * scales.get(part, 1.0) for part in parts}
    for part in scales:
        if part not in parts:
            raise OsumError(
                f"optim_conf.lr_scale.{part}", "the model has no such part", f"choose from {', '.join(parts)}"
            )
    groups = []
    for part, parameters in parts.items():
        if any(p.requires_grad and p.element_size() < 4 for p in parameters):
            raise OsumError(
                "decoder_conf.dtype",
                f"{part} would learn in half precision, which rounds small steps away",
                "set decoder_conf.dtype: fp32, or freeze it (lora, model_conf.trainable)",
            )
        for decayed in (True, False):
            chosen = [p for p in parameters if p.requires_grad and (p.dim() > 1) == decayed]
            if chosen:
                groups.append(
                    {
                        "params": chosen,
                        "lr": rates[part],
                        "weight_decay": decay if decayed else 0.0,
                        "name": part,
                        "number": list(parts).index(part),
                    }
                )
    if not groups:
        raise OsumError("model_conf.trainable", "no parameter is left to train", "name at least one part")
    cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    return cls(groups, **{**conf, "betas": tuple(conf["betas"])})


def by_module(model: Any, names: list[str]) -> dict[str, list[torch.nn.Parameter]]:
    """The parameters of each named module (``encoder``, ``decoder.embed``), each once, and of the ``rest``.

    Raises:
        OsumError: the model has no such module.
    """
    left = {id(p): p for p in model.parameters()}
    parts: dict[str, list[torch.nn.Parameter]] = {}
    for name in names:
        try:
            module = model.get_submodule(name)
        except AttributeError:
            mend = f"choose from {', '.join(n for n, _ in model.named_children())}, or a part of one"
            raise OsumError("optim_conf.modules", f"the model has no {name!r}", mend) from None
        parts[name] = [left.pop(id(p)) for p in module.parameters() if id(p) in left]
    return {**parts, "rest": list(left.values())}


def freeze_modules(model: torch.nn.Module, words: list[str]) -> None:
    """``--freeze_modules``: weights with one of the words in their names do not learn.

    Raises:
        OsumError: a word that no name has.
    """
    for word in words:
        found = [p for name, p in model.named_parameters() if word in name]
        if not found:
            heads = ", ".join(f"{name}." for name, _ in model.named_children())
            raise OsumError(
                "--freeze_modules", f"no weight has {word!r} in its name", f"they begin with {heads}"
            )
        for p in found:
            p.requires_grad_(False)


def rate_at(step: int, scheduler: str, conf: dict[str, Any]) -> float:
    """Factor on the base rate at optimizer step ``step`` (from 1).

    ``warmuplr``           ``min(step / warmup, sqrt(warmup / step))``: WeNet's WarmupLR, OSUM's schedule.
    ``NoamHoldAnnealing``  up over ``warmup_steps``, flat for ``hold_steps``, then
                           ``((warmup - hold) / (step - hold)) ** decay_rate`` (NeMo, WeNet).
    ``linear``             up over ``warmup_steps``, then straight down to 0 at ``max_steps``.
    """
    warmup = max(1, conf["warmup_steps"])
    if step <= warmup:
        return step / warmup
    if scheduler == "warmuplr":
        return (warmup / step) ** 0.5
    if scheduler == "linear":
        return max(0.0, (conf["max_steps"] - step) / max(1, conf["max_steps"] - warmup))
    hold = conf["hold_steps"]
    return 1.0 if step <= warmup + hold else (warmup / (step - hold)) ** conf["decay_rate"]


def build_scheduler(
    optimizer: torch.optim.Optimizer, name: str, conf: dict[str, Any], step: int, total: int
) -> LambdaLR:
    """The schedule, standing at ``step``; ``max_steps: null`` means the run's ``total``. ``min_lr`` bounds
    the rate from below; ``warmup_ratio`` and ``hold_ratio`` are shares of ``max_steps``."""
    conf = {**conf, "max_steps": conf["max_steps"] or total}
    for steps, ratio in (("warmup_steps", "warmup_ratio"), ("hold_steps", "hold_ratio")):
        if conf.get(ratio) is not None:
            conf[steps] = int(conf[ratio] * conf["max_steps"])
    for group in optimizer.param_groups:
        # What an optimizer was loaded with is the rate of that step; the base is beside it.
        group["lr"] = group.setdefault("initial_lr", group["lr"])
    base = max(g["initial_lr"] for g in optimizer.param_groups)

    def factor(own: dict[str, Any], n: int) -> float:
        return max(rate_at(n + 1, name, own), own["min_lr"] / base)

    factors: list[Callable[[int], float]] = []
    for group in optimizer.param_groups:
        warmup = conf["warmup_steps"]
        own = {**conf, "warmup_steps": warmup[group["number"]] if isinstance(warmup, list) else warmup}
        factors.append(partial(factor, own))
    return LambdaLR(optimizer, factors, last_epoch=step - 1 if step else -1)
