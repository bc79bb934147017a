"""LoRA beside a frozen matrix (Hu et al., arXiv 2106.09685) in one step of autograd.

peft's own layer keeps a dropped copy of the input for every matrix, with a mask of floats, and makes its
output twice. Here a step keeps the input (which the matrices of a block share), a mask of bytes and the
``r`` numbers a position between the two small matrices; the rest is made again in the backward pass. Names,
merging, saving and every other way of use are peft's.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn import functional as F

from wenet_osum.models.dropout import apply_mask, keep_mask


class _Step(torch.autograd.Function):
    """``x W' + b + scale * drop(x) A' B'`` over x (n, in), where W and b are frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, p: float
    ) -> Tensor:
        kind = x.device.type
        cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        ctx.types, ctx.scale, ctx.p = (x.dtype, a.dtype, b.dtype), scale, p
        with torch.autocast(kind, enabled=False):
            whole = cast or weight.dtype
            small = cast or a.dtype  # without autocast LoRA is computed in its own type
            x, weight, a, b = x.to(whole), weight.to(whole), a.to(small), b.to(small)
            y = F.linear(x, weight, None if bias is None else bias.to(whole))
            keep = keep_mask(x, p) if p > 0 else None
            inner = dropped(x.to(small), keep, p) @ a.t()
            add_product(y, inner, b.t(), scale)
        ctx.save_for_backward(x, weight, a, b, inner, keep)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, inner, keep = ctx.saved_tensors
        small = grads[0].to(a.dtype)
        to_inner = (small @ b).mul_(ctx.scale)
        to_a = to_inner.t() @ dropped(x.to(a.dtype), keep, ctx.p)
        to_b = (inner.t() @ small).mul_(ctx.scale).t()
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = grads[0].to(weight.dtype) @ weight
            if keep is None:
                add_product(to_x, to_inner, a, 1.0)
            else:
                to_x += dropped(to_inner @ a, keep, ctx.p)
            to_x = to_x.to(ctx.types[0])
        return to_x, None, None, to_a.to(ctx.types[1]), to_b.to(ctx.types[2]), None, None


def dropped(x: Tensor, keep: Tensor | None, p: float) -> Tensor:
    return x if keep is None else apply_mask(x, keep, p)


def add_product(y: Tensor, one: Tensor, other: Tensor, scale: float) -> None:
    """``y += scale * one @ other``, in place where the types allow it."""
    if y.dtype == one.dtype:
        y.addmm_(one, other, alpha=scale)
    else:
        y += (one @ other) * scale


def is_partitioned(weight: Tensor) -> bool:
    """Whether DeepSpeed's ZeRO 3 holds it in parts, which it joins when the weight's own module is called."""
    return hasattr(weight, "ds_id")


class LoraLinear(Linear):
    """peft's layer over an ``nn.Linear``; ``_Step`` does the plain case: one adapter, not merged, in training."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        name = self.active_adapters[0] if len(self.active_adapters) == 1 else ""
        base = self.base_layer
        plain = (
            not args
            and not kwargs
            and not self.disable_adapters
            and not self.merged
            and name in self.lora_A
            and name not in self.lora_variant
            and self.lora_B[name].bias is None
            and not any(p.requires_grad or is_partitioned(p) for p in base.parameters())
        )
        if not plain or not torch.is_grad_enabled():
            return super().forward(x, *args, **kwargs)
        dropout = self.lora_dropout[name]
        p = dropout.p if self.training and isinstance(dropout, nn.Dropout) else 0.0
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        y = _Step.apply(x.flatten(0, -2), base.weight, base.bias, a, b, self.scaling[name], p)
        return y.view(*x.shape[:-1], -1)
