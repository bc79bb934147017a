"""Packed batches: utterances behind each other in one row, without padding, and never seen by one another.

A tensor (N, D) and ``lengths`` (B,), summing to N, stand for what a padded batch gives as (B, T, D) and a
mask (B, 1, T). Linear layers and norms need no more than the rows. The three places where positions meet
are here: convolutions and frame stacking (``frames_around``), attention (``attend_apart``), position tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from wenet_osum.errors import OsumError
from wenet_osum.models.half_attention import half_attention, suits

PACK = "dataset_conf.batch_conf.batch_type: pack"
SDPA = "sdpa_apart"  # our attention's name inside transformers


def check_packs(module: nn.Module, part: str) -> None:
    """Raises:
    OsumError: an encoder or adapter that takes padded batches only (WeNet's own, for one).
    """
    if not getattr(module, "packs", False):
        name = type(module).__name__
        raise OsumError(PACK, f"the {part} {name} takes padded batches only", "use dynamic, bucket or static")


def frames_around(
    x: Tensor, lengths: Sequence[int], offsets: Sequence[int], stride: int
) -> tuple[Tensor, list[int]]:
    """What a convolution sees at each step: x (N, D) -> (M, len(offsets) * D) and the new lengths.

    Row s of an utterance holds its frames ``s * stride + offsets`` side by side, zeros beyond its ends;
    an utterance of n frames has n / stride rows, rounded up.
    """
    steps = [-(-n // stride) for n in lengths]
    indices, start = [], 0
    for n, m in zip(lengths, steps):
        frames = torch.arange(0, m * stride, stride)[:, None] + torch.tensor(offsets)
        indices.append(torch.where((frames >= 0) & (frames < n), frames + start, len(x)))
        start += n
    index = torch.cat(indices).flatten().to(x.device)
    padded = torch.cat([x, x.new_zeros(1, x.size(1))])
    return padded.index_select(0, index).unflatten(0, (-1, len(offsets))).flatten(1), steps


def convolve(conv: nn.Conv1d, x: Tensor, lengths: Sequence[int], left: int) -> tuple[Tensor, list[int]]:
    """``conv`` over each utterance of x (N, D) with ``left`` zeros in front: one matrix product for all."""
    (width,), (stride,) = conv.kernel_size, conv.stride
    seen, lengths = frames_around(x, lengths, range(-left, width - left), stride)
    return F.linear(seen, conv.weight.transpose(1, 2).flatten(1), conv.bias), lengths


def positions_of(table: Tensor, lengths: Sequence[int]) -> Tensor:
    """Rows 0 .. n - 1 of a table (1, P, D) for each utterance in turn, (N, D)."""
    return torch.cat([table[0, :n] for n in lengths])


def attend_apart(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], dropout: float = 0.0) -> Tensor:
    """Attention of each utterance over itself alone, q, k, v (1, heads, N, d) -> (1, N, heads, d).

    One call an utterance costs no mask and no score that would be thrown away."""
    rows = (t.split(list(lengths), dim=2) for t in (q, k, v))
    if suits(q, dropout):
        parts = [half_attention(q, k, v, False).transpose(1, 2) for q, k, v in zip(*rows)]
    else:
        parts = [
            F.scaled_dot_product_attention(q, k, v, None, dropout).transpose(1, 2) for q, k, v in zip(*rows)
        ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def pad_rows(x: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """x (N, D) -> (B, T, D) padded with zeros, and its mask (B, T) bool."""
    rows = list(x.split(list(lengths)))
    real = torch.arange(max(lengths))[None] < torch.tensor(list(lengths))[:, None]
    return pad_sequence(rows, batch_first=True), real.to(x.device)


class Apart:
    """The lengths of the utterances in the LLM's one row, on their way to each layer's attention, and how
    many layers have asked for them."""

    def __init__(self, lengths: list[int]):
        self.lengths, self.asked = lengths, 0


def causal_apart(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    apart: Apart | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' sdpa attention, and over a packed row (``apart``) one call an utterance.

    transformers' own way with a packed row is a mask of its length squared; a call with an attention mask
    of ones, or with a cache, would have none at all, and the utterances would see each other.

    Raises:
        OsumError: a sliding window that an utterance is longer than.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if apart is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    window = kwargs.get("sliding_window")
    if window is not None and max(apart.lengths) > window:
        what = f"the LLM's attention sees {window} positions, an utterance has {max(apart.lengths)}"
        raise OsumError(PACK, what, "use dynamic, bucket or static")
    apart.asked += 1
    rows = zip(*(t.split(apart.lengths, dim=2) for t in (query, key, value)))
    if suits(query, kwargs.get("dropout", 0.0)):
        scale = kwargs.get("scaling")
        parts = [half_attention(q, k, v, True, scale).transpose(1, 2) for q, k, v in rows]
    else:
        parts = [sdpa_attention_forward(module, q, k, v, None, **kwargs)[0] for q, k, v in rows]
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)), None


def register_attention() -> None:
    """Make ``causal_apart`` known to transformers as ``SDPA``; its masks are sdpa's."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask

    AttentionInterface.register(SDPA, causal_apart)
    ALL_MASK_ATTENTION_FUNCTIONS.register(SDPA, sdpa_mask)
