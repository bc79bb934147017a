"""The losses both stages share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wenet_osum.constants import IGNORE_ID


def token_losses(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float = 0.0) -> Tensor:
    """(n,) cross-entropies, logits (n, V) against labels (n,), each token times its weight (n,)."""
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing) * weights


def answer_weights(batch: dict[str, Any], answer: Tensor) -> Tensor:
    """The weights of an answer's ids (B, n) that are no padding, in one row, from ``batch["target_weights"]``;
    all 1 where there are none, as from a loader of WeNet's."""
    weights = batch.get("target_weights")
    weights = torch.ones(answer.shape) if weights is None else weights
    return weights.to(answer.device)[answer != IGNORE_ID]


def combine_losses(
    batch: dict[str, Any],
    loss_llm: Tensor,
    tokens: Tensor,
    loss_ctc: Tensor | None,
    ctc_tokens: Tensor,
    ctc_weight: float,
) -> dict[str, Tensor]:
    """``(1 - ctc_weight) * attention + ctc_weight * CTC`` as WeNet weighs them, each a sum over tokens
    divided by a token count: the batch's own, or ``batch["normalizers"]`` when the training loop
    gives the number over all ranks and accumulation steps."""
    whole = batch.get("normalizers") or {}
    losses = {"loss_llm": loss_llm / max(1.0, float(whole.get("target", tokens)))}
    losses["loss"] = losses["loss_llm"]
    if loss_ctc is not None:
        losses["loss_ctc"] = loss_ctc / max(1.0, float(whole.get("ctc", ctc_tokens)))
        losses["loss"] = (1 - ctc_weight) * losses["loss_llm"] + ctc_weight * losses["loss_ctc"]
    return losses


def ctc_alone(
    batch: dict[str, Any], loss_ctc: Tensor, ctc_tokens: Tensor, positions: Tensor
) -> dict[str, Tensor | None]:
    """What a model's forward gives for ``ctc_weight: 1``: no answer token has a loss."""
    losses = combine_losses(batch, loss_ctc.new_zeros(()), ctc_tokens, loss_ctc, ctc_tokens, 1.0)
    del losses["loss_llm"]
    nothing = torch.zeros((), device=loss_ctc.device)
    each = torch.zeros(len(batch["feats_lengths"]), device=loss_ctc.device)
    more = {"positions": positions, "utterance_loss": each, "utterance_weight": each}
    return {**losses, "th_accuracy": nothing, "tokens": nothing, **(more if "normalizers" in batch else {})}


def figures_for_the_loop(
    batch: dict[str, Any], answer: Tensor, each: Tensor, weights: Tensor, positions: Tensor
) -> dict[str, Tensor]:
    """What our training loop logs besides: ``utterance_loss`` and ``utterance_weight`` (B,), sums over the ids of
    answer (B, n) of their losses ``each`` and of their weights, and ``positions``, how many the decoder had.
    Nothing for WeNet's loop, which takes scalars alone and gives no ``normalizers``."""
    if "normalizers" not in batch:
        return {}
    rows = (answer != IGNORE_ID).nonzero()[:, 0]
    none = torch.zeros(len(answer), device=answer.device)
    sums = {"utterance_loss": each.detach(), "utterance_weight": weights}
    return {"positions": positions, **{n: none.index_add(0, rows, x.float()) for n, x in sums.items()}}
