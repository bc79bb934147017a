"""Attention in bf16 on a CPU, for training: torch's fused kernel there takes up to three times as long."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Attend(torch.autograd.Function):
    """Scores and softmax in fp32, the other products in bf16, as the fused kernels do. The probabilities
    are kept: two bytes for each pair of positions of one utterance."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
        heads, length = q.shape[1:3]
        q = q.reshape(1, k.size(1), -1, q.size(3))  # the query heads that share a key head go together
        scores = torch.matmul(q.float(), k.float().transpose(2, 3))
        if causal:
            later = torch.ones(length, length, dtype=torch.bool).triu_(1)
            scores.view(1, heads, length, length).masked_fill_(later, float("-inf"))
        p = scores.mul_(scale).softmax(dim=-1).to(q.dtype)
        ctx.save_for_backward(q, k, v, p)
        ctx.scale = scale
        return (p @ v).view(1, heads, length, v.size(3))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, p = ctx.saved_tensors
        out = grads[0].reshape(q.shape[:3] + v.shape[3:])
        to_p = (out @ v.transpose(2, 3)).float()
        to_p -= (to_p * p).sum(dim=-1, keepdim=True)
        to_scores = to_p.mul_(p).mul_(ctx.scale).to(q.dtype)
        to_q = (to_scores @ k).view(1, -1, k.size(2), q.size(3))
        return to_q, to_scores.transpose(2, 3) @ q, p.transpose(2, 3) @ out, None, None


def suits(q: Tensor, dropout: float) -> bool:
    """Whether ``half_attention`` is the faster way for q: bf16 on a CPU, in training."""
    on_cpu = q.device.type == "cpu" and q.dtype == torch.bfloat16
    return on_cpu and dropout == 0 and q.requires_grad and torch.is_grad_enabled()


def half_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float | None = None) -> Tensor:
    """q (1, heads, T, d), k and v (1, heads or a divisor of them, T, d) of one utterance -> (1, heads, T, d)."""
    with torch.autocast("cpu", enabled=False):
        return _Attend.apply(q, k, v, scale or q.size(3) ** -0.5, causal)  # type: ignore[no-any-return]
