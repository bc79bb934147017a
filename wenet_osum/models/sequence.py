"""The one place where a sequence for the LLM is put together, for training and for inference.

    [prompt] [speech begin] [speech] [speech end]            -> inference, padded on the left
    [prompt] [speech begin] [speech] [speech end] [answer]   -> training, padded on the right

(OSUM's order, upstream ``LLMASR_Model.forward``; no chat template.) The parts of a row follow each
other without padding between them, so a batch of N gives each row what it gets alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from wenet_osum.constants import IGNORE_ID


class Sequence(NamedTuple):
    """``embeds`` (B, L, H); ``mask`` (B, L) bool; ``position_ids`` (B, L) from 0 at each row's first real
    position; ``labels`` (B, L): the id to predict *at* this position (already shifted), else IGNORE_ID.
    Packed, B is 1, all of the row is real, and ``lengths`` are its utterances'."""

    embeds: Tensor
    mask: Tensor
    position_ids: Tensor
    labels: Tensor
    lengths: list[int] | None = None


def build_sequence(
    parts: list[tuple[Tensor, Tensor]], answer: tuple[Tensor, Tensor] | None = None, left_pad: bool = False
) -> Sequence:
    """Join embedded parts row by row.

    Args:
        parts: in order, ``(embeds (B, n, H), mask (B, n) bool)``; each padded in its own way.
        answer: ``(embeds (B, n, H), ids (B, n))`` with IGNORE_ID where padded. The last part's last
            position predicts the first id. The last id (the end) needs no position of its own in the
            row, but keeps one: it costs one position and keeps the code plain.
        left_pad: padding in front (generation) in place of behind.
    """
    embeds = torch.cat([e for e, _ in parts] + ([answer[0]] if answer else []), dim=1)
    masks = [m for _, m in parts]
    ids = [torch.full_like(m, IGNORE_ID, dtype=torch.long) for m in masks]
    if answer is not None:
        masks.append(answer[1] != IGNORE_ID)
        ids.append(answer[1])
    mask, labels = torch.cat(masks, dim=1), torch.cat(ids, dim=1)

    # A stable sort by "is padding" moves the padding to one end and keeps the order of the rest.
    order = torch.argsort(mask.int() if left_pad else (~mask).int(), dim=1, stable=True)
    length = int(mask.sum(dim=1).max())
    order = order[:, -length:] if left_pad else order[:, :length]
    embeds = embeds.gather(1, order[:, :, None].expand(-1, -1, embeds.size(2)))
    mask, labels = mask.gather(1, order), labels.gather(1, order)
    shifted = torch.full_like(labels, IGNORE_ID)
    shifted[:, :-1] = labels[:, 1:]
    position_ids = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return Sequence(embeds, mask, position_ids, shifted)


def pack_sequence(seq: Sequence) -> Sequence:
    """The rows of a training sequence behind each other in one row, less each one's last position: nothing
    is predicted there, and no other position looks at it."""
    lengths = seq.mask.sum(dim=1) - 1
    keep = torch.arange(seq.mask.size(1), device=lengths.device)[None] < lengths[:, None]
    embeds, mask, position_ids, labels = (t[keep][None] for t in seq[:4])
    return Sequence(embeds, mask, position_ids, labels, lengths.tolist())
