"""The output layer and its cross-entropy together, a few positions at a time.

Over 152 k words the logits are the largest activation there is. Here each chunk's logits turn into its
gradient in place, in the forward pass, and are gone before the next chunk's are made (as Liger's
fused linear cross-entropy, arXiv 2410.10989); what is kept is a gradient of the hidden states' size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 24  # logits alive at once: 64 MB of floats


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        weights: Tensor,
        learns: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        ctx.types = [None if t is None else t.dtype for t in (hidden, weight, bias)]
        wants = [learns and want for want in ctx.needs_input_grad[:3]]
        with torch.autocast(kind, enabled=False):
            loss, right, each, grads = loss_and_gradients(
                hidden.to(dtype), weight.to(dtype), bias, labels, weights.float(), wants
            )
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(right, each)
        return loss, right, each

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        found = [None if g is None else (g * grads[0]).to(t) for g, t in zip(ctx.saved_tensors, ctx.types)]
        return (*found, None, None, None)


def loss_and_gradients(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    weights: Tensor,
    wants: list[bool],
) -> tuple[Tensor, Tensor, Tensor, list[Tensor | None]]:
    """The loss, the number of right ones, each position's part of the loss (n,), and those gradients of the first
    three that ``wants`` asks for, in fp32."""
    sizes = [hidden.shape, weight.shape, weight.shape[:1]]
    grads = [torch.zeros(size, device=hidden.device) if want else None for size, want in zip(sizes, wants)]
    each = torch.zeros(len(hidden), device=hidden.device)
    right = torch.zeros((), dtype=torch.long, device=hidden.device)
    rows = max(1, min(CHUNK // weight.size(0), len(hidden)))
    # One buffer for all chunks: a fresh one each time costs as much in page faults as a matrix product.
    products = hidden.new_empty(rows, weight.size(0))
    floats = (
        products
        if products.dtype == torch.float32
        else products.new_empty(products.shape, dtype=torch.float32)
    )
    for start in range(0, len(hidden), rows):
        h, label, w = (t[start : start + rows] for t in (hidden, labels, weights))
        product = torch.mm(h, weight.t(), out=products[: len(h)])
        logits = floats[: len(h)].copy_(product)  # itself in fp32
        if bias is not None:
            logits += bias
        top, guess = logits.max(dim=-1)
        right += (guess == label).sum()
        at_label = logits.gather(1, label[:, None])[:, 0]
        total = logits.sub_(top[:, None]).exp_().sum(dim=-1)
        each[start : start + rows] = (total.log() + top - at_label) * w
        if not any(wants):
            continue
        grad = logits.mul_((w / total)[:, None])  # softmax, less one at the label, each row times its weight
        grad[torch.arange(len(h), device=h.device), label] -= w
        if grads[2] is not None:
            grads[2] += grad.sum(dim=0)
        grad = product.copy_(grad)
        if grads[0] is not None:
            grads[0][start : start + rows] = grad @ weight
        if grads[1] is not None:
            grads[1] += grad.t() @ h
    return each.sum(), right, each, grads


def head_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Summed cross-entropy of ``hidden @ weight.T + bias`` against ``labels``, each position times its
    weight; how many positions were right; and (n,) what each adds to the sum, without gradient.

    Args:
        hidden: (n, H). weight: (V, H), bias: (V,); their gradients are made only where they learn.
        labels: (n,) ids. weights: (n,).
    """
    return _HeadLoss.apply(  # type: ignore[no-any-return]
        hidden, weight, bias, labels, weights, torch.is_grad_enabled()
    )
