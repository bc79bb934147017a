"""Whisper's text decoder: learned positions, pre-norm layers with cross-attention, tied output.

Unlike Hugging Face's, the cross-attention is masked to each utterance's real encoder frames, because
the encoder runs at true length. Names are WeNet's (``decoders.0.src_attn.linear_q`` ...).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wenet_osum.models.attention import Attention, FeedForward
from wenet_osum.models.dropout import Dropout
from wenet_osum.registry import DECODERS

Cache = list[tuple[Tensor, Tensor]]


class DecoderLayer(nn.Module):
    def __init__(self, size: int, heads: int, linear_units: int, dropout_rate: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(size, eps=1e-5)
        self.self_attn = Attention(size, heads, key_bias=False)
        self.norm2 = nn.LayerNorm(size, eps=1e-5)
        self.src_attn = Attention(size, heads, key_bias=False)
        self.norm3 = nn.LayerNorm(size, eps=1e-5)
        self.feed_forward = FeedForward(size, linear_units, dropout_rate)
        self.dropout = Dropout(dropout_rate)

    def forward(
        self,
        x: Tensor,
        memory: tuple[Tensor, Tensor],
        memory_mask: Tensor,
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y = self.norm1(x)
        keys, values = self.self_attn.keys_values(y)
        if past is not None:
            keys, values = torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)
        x = x + self.dropout(self.self_attn(y, keys, values, None, causal=past is None and x.size(1) > 1))
        x = x + self.dropout(self.src_attn(self.norm2(x), *memory, memory_mask))
        return x + self.dropout(self.feed_forward(self.norm3(x))), (keys, values)


@DECODERS.register("whisper")
class WhisperDecoder(nn.Module):
    """Args: WeNet's names; ``max_positions`` is Whisper's 448 text positions. The encoder's size is the
    decoder's. Only whole prefixes of one length are decoded together, so no row is ever padded."""

    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int,
        attention_heads: int = 16,
        linear_units: int = 4096,
        num_blocks: int = 24,
        dropout_rate: float = 0.1,
        max_positions: int = 448,
    ):
        super().__init__()
        size = encoder_output_size
        self.embed = nn.Embedding(vocab_size, size)
        nn.init.normal_(self.embed.weight, std=size**-0.5)
        self.positions = nn.Parameter(torch.randn(max_positions, size) * 0.01)
        self.decoders = nn.ModuleList(
            DecoderLayer(size, attention_heads, linear_units, dropout_rate) for _ in range(num_blocks)
        )
        self.after_norm = nn.LayerNorm(size, eps=1e-5)
        self.dropout = Dropout(dropout_rate)

    def memory(self, hs: Tensor) -> Cache:
        """Cross-attention keys and values of every layer, computed once an utterance."""
        return [layer.src_attn.keys_values(hs) for layer in self.decoders]  # type: ignore[union-attr,operator]

    def forward(
        self, ids: Tensor, memory: Cache, mask: Tensor, past: Cache | None = None
    ) -> tuple[Tensor, Cache]:
        """ids (B, L) right-padded with anything, mask (B, 1, T) of the encoder, past of the earlier
        positions -> hidden (B, L, D) and the new past.

        Raises:
            ValueError: more positions than the table has.
        """
        start = 0 if past is None else past[0][0].size(2)
        if start + ids.size(1) > self.positions.size(0):
            raise ValueError(
                f"{start + ids.size(1)} text positions, decoder_conf.max_positions is {self.positions.size(0)}"
            )
        x = self.dropout(self.embed(ids.clamp(min=0)) + self.positions[start : start + ids.size(1)])
        new: Cache = []
        for i, layer in enumerate(self.decoders):
            x, kv = layer(x, memory[i], mask[:, None], past[i] if past else None)
            new.append(kv)
        return self.after_norm(x), new

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V); the output layer is the embedding table."""
        return (hidden @ self.embed.weight.T).float()
