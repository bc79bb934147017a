"""Optimizer and learning-rate schedules under WeNet's names."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from wenet_osum.errors import OsumError


def build_optimizer(model: Any, name: str, conf: dict[str, Any]) -> torch.optim.Optimizer:
    """Adam or AdamW over what learns; ``lr_scale`` gives parts of the model their own rate. Vectors
    (biases, norms) are not decayed.

    Raises:
        OsumError: an unknown part, nothing that learns, or something that learns in half precision.
    """
    conf = dict(conf)
    lr, decay, scales = conf.pop("lr"), conf.pop("weight_decay"), conf.pop("lr_scale")
    parts = model.parts()
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
                rate = lr * scales.get(part, 1.0)
                groups.append(
                    {"params": chosen, "lr": rate, "weight_decay": decay if decayed else 0.0, "name": part}
                )
    if not groups:
        raise OsumError("model_conf.trainable", "no parameter is left to train", "name at least one part")
    cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    return cls(groups, lr=lr, **{**conf, "betas": tuple(conf["betas"])})


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
    the rate from below."""
    conf = {**conf, "max_steps": conf["max_steps"] or total}
    base = max(g["lr"] for g in optimizer.param_groups)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return LambdaLR(
        optimizer,
        lambda n: max(rate_at(n + 1, name, conf), conf["min_lr"] / base),
        last_epoch=step - 1 if step else -1,
    )
