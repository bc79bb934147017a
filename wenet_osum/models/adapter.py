"""From encoder frames to the LLM's embedding space, shortening the sequence on the way.

``osum`` is the released model's (paper section 2.1; upstream ``GxlConv1dSubsampling4`` plus a WeNet
TransformerEncoder): three causal convolutions, a 4-layer transformer, a linear layer. ``conv`` and
``linear`` are the field's two common alternatives. All take padded batches, xs (B, T, D) with a mask
(B, 1, T) bool, and packed ones, xs (N, D) with lengths (B,) (``wenet_osum.models.packed``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wenet_osum.models.attention import EncoderLayer, run_layers
from wenet_osum.models.dropout import Dropout
from wenet_osum.models.packed import convolve, frames_around, positions_of
from wenet_osum.models.whisper_encoder import PositionTable
from wenet_osum.registry import ADAPTERS


class CausalConvs(nn.Module):
    """Convolutions of kernel 3 padded on the left only, erf-GELU after each.

    Frame s of a stride-2 convolution sees frames up to 2s, so no real frame ever sees the padding
    behind an utterance's end. Lengths: ceil(T / stride).
    """

    def __init__(self, size: int, strides: tuple[int, ...]):
        super().__init__()
        self.strides = strides
        parts: list[nn.Module] = []
        for stride in strides:
            conv = nn.Conv1d(size, size, 3, stride=stride)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            parts += [nn.ConstantPad1d((2, 0), 0.0), conv, nn.GELU()]
        self.conv = nn.Sequential(*parts)

    def forward(self, xs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """xs (B, T, D), mask (B, 1, T) -> (B, S, D), mask (B, 1, S); packed, (N, D), lengths -> (M, D), lengths."""
        if xs.dim() == 2:
            lengths = mask.tolist()
            for i in range(1, len(self.conv), 3):
                xs, lengths = convolve(self.conv[i], xs, lengths, left=2)  # type: ignore[arg-type]
                xs = F.gelu(xs)
            return xs, torch.tensor(lengths)
        ys = self.conv(xs.transpose(1, 2)).transpose(1, 2)
        for stride in self.strides:
            mask = mask[:, :, ::stride]
        return ys, mask


def interleaved_positions(length: int, size: int) -> Tensor:
    """WeNet's absolute positions (length, size): sine and cosine in turn."""
    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(0, size, 2) * -(math.log(10000.0) / size))
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


class LinearEmbed(nn.Module):
    """WeNet's LinearNoSubsampling: linear, norm, then ``x * sqrt(D) + position``."""

    def __init__(self, size: int, dropout: float, max_positions: int):
        super().__init__()
        self.out = nn.Sequential(nn.Linear(size, size), nn.LayerNorm(size, eps=1e-5), Dropout(dropout))
        self.pos_enc = PositionTable(interleaved_positions(max_positions, size))
        self.scale = math.sqrt(size)

    def forward(self, xs: Tensor, lengths: list[int] | None) -> Tensor:
        """xs (B, T, D), or (N, D) of packed ``lengths``; the same shape."""
        positions = (
            self.pos_enc.pe[:, : xs.size(1)] if lengths is None else positions_of(self.pos_enc.pe, lengths)
        )
        return self.out(xs) * self.scale + positions


class SpeechTransformer(nn.Module):
    """WeNet's TransformerEncoder with ``input_layer: linear`` and ``abs_pos``, pre-norm, ReLU."""

    def __init__(
        self, size: int, heads: int, linear_units: int, num_blocks: int, dropout: float, max_positions: int
    ):
        super().__init__()
        self.embed = LinearEmbed(size, dropout, max_positions)
        self.encoders = nn.ModuleList(
            EncoderLayer(size, heads, linear_units, dropout, activation="relu") for _ in range(num_blocks)
        )
        self.after_norm = nn.LayerNorm(size, eps=1e-5)
        self.dropout = Dropout(dropout)

    def forward(self, xs: Tensor, mask: Tensor, checkpointing: bool) -> Tensor:
        """xs (B, T, D), mask (B, 1, T) -> (B, T, D); packed, (N, D), lengths (B,) -> (N, D)."""
        lengths = mask.tolist() if xs.dim() == 2 else None
        x = self.dropout(self.embed(xs, lengths))
        return self.after_norm(
            run_layers(self.encoders, x, mask if lengths is None else lengths, checkpointing)
        )


@ADAPTERS.register("osum")
class OsumAdapter(nn.Module):
    """OSUM's adapter; at the default strides 50 encoder frames/s become 12.5 speech tokens/s.

    Args:
        input_dim: encoder size D. output_dim: LLM hidden size H.
        strides: of the convolutions.
        attention_heads, linear_units, num_blocks, dropout_rate: of the transformer; the defaults are the
            paper's (with D 1,024 and H 3,584: 9.4 M + 38.8 M + 3.7 M parameters).
        max_positions: longest input of the transformer, in speech tokens.
        embed_scale: the output is multiplied by it. 1.0 is the released model. A fresh linear layer over
            normalised frames gives components of about 0.6, several times a language model's word
            embeddings; a scale below 1 starts training where the LLM is at home.
        gradient_checkpointing: recompute activations in the backward pass.
    """

    packs = True

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        strides: tuple[int, ...] = (1, 2, 2),
        attention_heads: int = 4,
        linear_units: int = 2560,
        num_blocks: int = 4,
        dropout_rate: float = 0.1,
        max_positions: int = 5000,
        embed_scale: float = 1.0,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        self.down_sample = CausalConvs(input_dim, tuple(strides))
        self.transformer = SpeechTransformer(
            input_dim, attention_heads, linear_units, num_blocks, dropout_rate, max_positions
        )
        self.project = nn.Linear(input_dim, output_dim)
        self.embed_scale = embed_scale
        self.gradient_checkpointing = gradient_checkpointing

    def forward(self, xs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """xs (B, T, D), mask (B, 1, T) bool -> (B, S, H), mask (B, 1, S) bool; packed as above."""
        ys, mask = self.down_sample(xs, mask)
        ys = self.transformer(ys, mask, self.gradient_checkpointing and self.training)
        return self.project(ys) * self.embed_scale, mask


@ADAPTERS.register("conv")
class ConvAdapter(nn.Module):
    """Causal convolutions, then two linear layers (the plainer adapter of SLAM-LLM and West)."""

    packs = True

    def __init__(
        self, input_dim: int, output_dim: int, strides: tuple[int, ...] = (2, 2), linear_units: int = 2048
    ):
        super().__init__()
        self.down_sample = CausalConvs(input_dim, tuple(strides))
        self.project = nn.Sequential(
            nn.Linear(input_dim, linear_units), nn.GELU(), nn.Linear(linear_units, output_dim)
        )

    def forward(self, xs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """xs (B, T, D), mask (B, 1, T) bool -> (B, S, H), mask (B, 1, S) bool; packed as above."""
        ys, mask = self.down_sample(xs, mask)
        return self.project(ys), mask


@ADAPTERS.register("linear")
class LinearAdapter(nn.Module):
    """Stack ``factor`` frames into one and project (FireRedASR, SLAM-LLM ``linear``).

    The frames after an utterance's end count as zeros, so that its last token is the same in any batch.
    """

    packs = True

    def __init__(self, input_dim: int, output_dim: int, factor: int = 4, linear_units: int = 2048):
        super().__init__()
        self.factor = factor
        self.project = nn.Sequential(
            nn.Linear(input_dim * factor, linear_units), nn.ReLU(), nn.Linear(linear_units, output_dim)
        )

    def forward(self, xs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """xs (B, T, D), mask (B, 1, T) bool -> (B, S, H), mask (B, 1, S) bool, S = ceil(T / factor); packed as above."""
        if xs.dim() == 2:
            stacked, lengths = frames_around(xs, mask.tolist(), range(self.factor), self.factor)
            return self.project(stacked), torch.tensor(lengths)
        xs = F.pad(xs * mask.transpose(1, 2), (0, 0, 0, -xs.size(1) % self.factor))
        return self.project(xs.unflatten(1, (-1, self.factor)).flatten(2)), mask[:, :, :: self.factor]
