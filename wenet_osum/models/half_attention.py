"""Attention in bf16 on a CPU, for training: torch's fused kernel there takes up to three times as long."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PAIRS = 1 << 20  # scores alive at once, 4 MB: heads that stay in the cache take half the time of all together


class _Attend(torch.autograd.Function):
    """Scores and softmax in fp32, the other products in bf16, as the fused kernels do. The probabilities
    are kept: two bytes for each pair of positions of one utterance."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
        heads, length = q.shape[1:3]
        k, v = k[0], v[0]
        q = q.reshape(len(k), -1, q.size(3))  # the query heads that share a key head go together
        out = q.new_empty(*q.shape[:2], v.size(2))
        p = q.new_empty(*q.shape[:2], length)
        later = torch.ones(length, length, dtype=torch.bool).triu_(1)
        step = max(1, PAIRS // (q.size(1) * length))
        for part in (slice(n, n + step) for n in range(0, len(k), step)):
            scores = torch.bmm(q[part].float(), k[part].float().transpose(1, 2))
            if causal:
                scores.view(-1, length, length).masked_fill_(later, float("-inf"))
            p[part] = scores.mul_(scale).softmax(dim=-1)
            torch.bmm(p[part], v[part], out=out[part])
        ctx.save_for_backward(q, k, v, p)
        ctx.scale, ctx.step = scale, step
        return out.view(1, heads, length, v.size(2))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, p = ctx.saved_tensors
        to_out = grads[0].reshape(*q.shape[:2], v.size(2))
        to_q, to_k, to_v = (torch.empty(t.shape, dtype=t.dtype) for t in (q, k, v))
        for part in (slice(n, n + ctx.step) for n in range(0, len(k), ctx.step)):
            to_p = torch.bmm(to_out[part], v[part].transpose(1, 2)).float()
            to_p -= (to_p * p[part]).sum(dim=-1, keepdim=True)
            to_scores = to_p.mul_(p[part]).mul_(ctx.scale).to(q.dtype)
            torch.bmm(to_scores, k[part], out=to_q[part])
            torch.bmm(to_scores.transpose(1, 2), q[part], out=to_k[part])
            torch.bmm(p[part].transpose(1, 2), to_out[part], out=to_v[part])
        return to_q.view(1, -1, k.size(1), q.size(2)), to_k[None], to_v[None], None, None


def suits(q: Tensor, dropout: float) -> bool:
    """Whether ``half_attention`` is the faster way for q: bf16 on a CPU, in training."""
    on_cpu = q.device.type == "cpu" and q.dtype == torch.bfloat16
    return on_cpu and dropout == 0 and q.requires_grad and torch.is_grad_enabled()


def half_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float | None = None) -> Tensor:
    """q (1, heads, T, d), k and v (1, heads or a divisor of them, T, d) of one utterance -> (1, heads, T, d)."""
    with torch.autocast("cpu", enabled=False):
        return _Attend.apply(q, k, v, scale or q.size(3) ** -0.5, causal)  # type: ignore[no-any-return]
