"""Whisper's audio encoder at true length (Radford et al. 2022; sinusoid positions, pre-norm, erf-GELU).

Differences from the original are three, and none touches the weights: utterances keep their true
length in place of a 30 s canvas, padded frames are masked exactly (a batch of N equals N singles),
and the two convolutions' strides can be set, so that a small model cuts the frame rate early.
Parameter names are WeNet's and OSUM's (``embed.conv.0``, ``encoders.0.self_attn.linear_q`` ...).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wenet_osum.models.attention import EncoderLayer, run_layers
from wenet_osum.models.dropout import Dropout
from wenet_osum.models.mask import length_mask
from wenet_osum.models.packed import convolve, positions_of
from wenet_osum.registry import ENCODERS


def sinusoids(length: int, channels: int) -> Tensor:
    """Whisper's positions (length, channels): sines of ``t / 10000^(i / (channels/2 - 1))``, then cosines."""
    step = math.log(10000) / (channels // 2 - 1)
    angles = torch.arange(length)[:, None] * torch.exp(-step * torch.arange(channels // 2))[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class PositionTable(nn.Module):
    """A table of positions (1, N, D), saved with the weights: released checkpoints bring their own."""

    pe: Tensor

    def __init__(self, table: Tensor):
        super().__init__()
        self.register_buffer("pe", table[None])


class ConvEmbed(nn.Module):
    """Two convolutions of kernel 3 with GELU (the strides multiply), then positions.

    Every output frame that would look past an utterance's end sees zeros there, in a batch as
    alone: the frames after each length are zeroed between the convolutions.
    """

    def __init__(self, input_dim: int, size: int, strides: tuple[int, int], max_positions: int):
        super().__init__()
        self.strides = strides
        convs = (
            nn.Conv1d(input_dim, size, 3, stride=strides[0], padding=1),
            nn.Conv1d(size, size, 3, stride=strides[1], padding=1),
        )
        self.conv = nn.Sequential(convs[0], nn.GELU(), convs[1], nn.GELU())
        self.pos_enc = PositionTable(sinusoids(max_positions, size))
        # For training from nothing: torch's own initial weights leave a signal of 0.03 beside positions
        # of 0.7, and a small model spends its first thousand steps digging it out. These make it 0.2.
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")

    def forward(self, xs: Tensor, xs_lens: Tensor) -> tuple[Tensor, Tensor]:
        """xs (B, T, F), xs_lens (B,) -> (B, T', D) and lengths (B,), T' = T / strides rounded up.
        Packed, xs (N, F) -> (N', D)."""
        if xs.dim() == 2:
            x, lengths = xs, xs_lens.tolist()
            for i in (0, 2):
                x, lengths = convolve(self.conv[i], x, lengths, left=1)  # type: ignore[arg-type]
                x = F.gelu(x)
            self.check_positions(max(lengths))
            return x + positions_of(self.pos_enc.pe, lengths), torch.tensor(lengths)
        x = xs.transpose(1, 2) * length_mask(xs_lens, xs.size(1))[:, None]
        for conv, stride in ((self.conv[0], self.strides[0]), (self.conv[2], self.strides[1])):
            x = F.gelu(conv(x))
            xs_lens = (xs_lens - 1) // stride + 1
            x = x * length_mask(xs_lens, x.size(2))[:, None]
        self.check_positions(x.size(2))
        return x.transpose(1, 2) + self.pos_enc.pe[:, : x.size(2)], xs_lens

    def check_positions(self, longest: int) -> None:
        if longest > self.pos_enc.pe.size(1):
            raise ValueError(
                f"{longest} encoder frames, the position table ends at {self.pos_enc.pe.size(1)}: cut the audio "
                "(30 s for Whisper) or raise encoder_conf.max_positions"
            )


@ENCODERS.register("whisper_osum")
class WhisperEncoder(nn.Module):
    """Log-mel frames to encoder frames.

    Args:
        input_dim: mel bins, 80 (128 for large-v3).
        global_cmvn: WeNet's slot; Whisper features are not normalised again, so None.
        output_size, attention_heads, linear_units, num_blocks: WeNet's names; the defaults are
            Whisper-medium's (305.7 M parameters).
        conv_strides: (1, 2) is Whisper (50 frames/s out of 100).
        max_positions: rows of the position table, 1,500 in Whisper (30 s).
        gradient_checkpointing: recompute activations in the backward pass.

    Example:
        >>> enc = WhisperEncoder(80, output_size=64, attention_heads=2, linear_units=128, num_blocks=2)
        >>> out, mask = enc(torch.zeros(1, 100, 80), torch.tensor([100]))
        >>> out.shape, mask.shape
        (torch.Size([1, 50, 64]), torch.Size([1, 1, 50]))
    """

    packs = True

    def __init__(
        self,
        input_dim: int,
        global_cmvn: None = None,
        output_size: int = 1024,
        attention_heads: int = 16,
        linear_units: int = 4096,
        num_blocks: int = 24,
        dropout_rate: float = 0.1,
        positional_dropout_rate: float = 0.1,
        attention_dropout_rate: float = 0.0,
        conv_strides: tuple[int, int] = (1, 2),
        max_positions: int = 1500,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        if global_cmvn is not None:
            raise ValueError("whisper_osum takes log-mel features as they are; set cmvn: null")
        self.embed = ConvEmbed(input_dim, output_size, (conv_strides[0], conv_strides[1]), max_positions)
        self.dropout = Dropout(positional_dropout_rate)
        self.encoders = nn.ModuleList(
            EncoderLayer(
                output_size,
                attention_heads,
                linear_units,
                dropout_rate,
                attention_dropout_rate,
                key_bias=False,
            )
            for _ in range(num_blocks)
        )
        self.after_norm = nn.LayerNorm(output_size, eps=1e-5)
        self.gradient_checkpointing = gradient_checkpointing

    def output_size(self) -> int:
        return self.after_norm.normalized_shape[0]

    def forward(self, xs: Tensor, xs_lens: Tensor, *chunks: int) -> tuple[Tensor, Tensor]:
        """xs (B, T, F) padded with anything, xs_lens (B,) frames -> (B, T', D), mask (B, 1, T') bool; packed,
        xs (N, F) -> (N', D), lengths (B,).

        ``chunks`` are WeNet's streaming sizes; this encoder sees the whole utterance, so only -1 or 0 fit.

        Raises:
            ValueError: more frames than ``max_positions``.
        """
        if any(c > 0 for c in chunks):
            raise ValueError("whisper_osum does not stream: decoding_chunk_size must be -1")
        x, lengths = self.embed(xs, xs_lens)
        checkpointing = self.gradient_checkpointing and self.training
        if xs.dim() == 2:
            x = run_layers(self.encoders, self.dropout(x), lengths.tolist(), checkpointing)
            return self.after_norm(x), lengths
        mask = length_mask(lengths, x.size(1))[:, None]
        return self.after_norm(run_layers(self.encoders, self.dropout(x), mask, checkpointing)), mask
