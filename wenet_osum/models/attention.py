"""The transformer layer that the encoder, the adapter and the Whisper decoder share.

Pre-norm, as Whisper (Radford et al. 2022) and WeNet's TransformerEncoderLayer: ``x + attn(norm(x))``,
then ``x + ffn(norm(x))``. Attention is torch's scaled_dot_product_attention.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wenet_osum.models.dropout import Dropout
from wenet_osum.models.packed import attend_apart


class Attention(nn.Module):
    """Multi-head attention over (B, T, D) with a boolean mask, True = may be looked at.

    Args:
        key_bias: Whisper's key projection has no bias; WeNet's has.
    """

    def __init__(self, size: int, heads: int, dropout: float = 0.0, key_bias: bool = True):
        super().__init__()
        if size % heads:
            raise ValueError(f"size {size} is not a multiple of {heads} heads")
        self.heads, self.dropout = heads, dropout
        self.linear_q = nn.Linear(size, size)
        self.linear_k = nn.Linear(size, size, bias=key_bias)
        self.linear_v = nn.Linear(size, size)
        self.linear_out = nn.Linear(size, size)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, heads, T, D / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of ``source`` (B, S, D), each (B, heads, S, D / heads), for caching."""
        return self.split(self.linear_k(source)), self.split(self.linear_v(source))

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | Sequence[int] | None,
        causal: bool = False,
    ) -> Tensor:
        """``mask`` broadcasts to (B, heads, T, S), or is the lengths of packed utterances (B is 1); ``causal``
        is for T == S and no mask."""
        dropout = self.dropout if self.training else 0.0
        if mask is not None and not isinstance(mask, Tensor):
            y = attend_apart(self.split(self.linear_q(x)), keys, values, mask, dropout)
            return self.linear_out(y.flatten(2))
        y = F.scaled_dot_product_attention(
            self.split(self.linear_q(x)), keys, values, attn_mask=mask, dropout_p=dropout, is_causal=causal
        )
        return self.linear_out(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Linear, activation, dropout, linear. ``activation``: ``gelu`` (erf form, Whisper) or ``relu``."""

    def __init__(self, size: int, hidden: int, dropout: float = 0.0, activation: str = "gelu"):
        super().__init__()
        self.w_1 = nn.Linear(size, hidden)
        self.w_2 = nn.Linear(hidden, size)
        self.dropout = Dropout(dropout)
        self.activation = nn.GELU() if activation == "gelu" else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(self.dropout(self.activation(self.w_1(x))))


class EncoderLayer(nn.Module):
    """Self-attention over all real frames, then the feed-forward part. Names as WeNet's layer."""

    def __init__(
        self,
        size: int,
        heads: int,
        linear_units: int,
        dropout_rate: float = 0.0,
        attention_dropout_rate: float = 0.0,
        activation: str = "gelu",
        key_bias: bool = True,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(size, eps=1e-5)
        self.self_attn = Attention(size, heads, attention_dropout_rate, key_bias)
        self.norm2 = nn.LayerNorm(size, eps=1e-5)
        self.feed_forward = FeedForward(size, linear_units, dropout_rate, activation)
        self.dropout = Dropout(dropout_rate)

    def forward(self, x: Tensor, mask: Tensor | Sequence[int] | None) -> Tensor:
        """x (B, T, D), mask (B, 1, 1, T) bool or None, or lengths (B is 1) -> (B, T, D)."""
        y = self.norm1(x)
        x = x + self.dropout(self.self_attn(y, *self.self_attn.keys_values(y), mask))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


def run_layers(layers: nn.ModuleList, x: Tensor, mask: Tensor | Sequence[int], checkpointing: bool) -> Tensor:
    """Run encoder layers over x (B, T, D) with mask (B, 1, T) bool, or packed: x (N, D) with lengths.

    Rows that are all real need no mask at all, which lets sdpa take its fast path. ``checkpointing``
    trades one more forward pass for the activations' memory (training only).
    """
    kept: Tensor | Sequence[int] | None
    if not isinstance(mask, Tensor):
        x, kept = x[None], mask
    else:
        kept = None if bool(mask.all()) else mask[:, None]
    for layer in layers:
        if checkpointing and torch.is_grad_enabled():
            x = torch.utils.checkpoint.checkpoint(layer, x, kept, use_reentrant=False)
        else:
            x = layer(x, kept)
    return x if isinstance(mask, Tensor) else x[0]
