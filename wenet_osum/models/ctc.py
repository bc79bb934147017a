"""An optional CTC head on the encoder (Graves et al. 2006): an extra loss, and drafts for decoding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wenet_osum.models.packed import pad_rows
from wenet_osum.registry import CTCS


@CTCS.register("ctc")
class CTC(nn.Module):
    """Linear layer over the vocabulary plus torch's CTC loss; WeNet's name ``ctc_lo`` for the layer."""

    def __init__(self, vocab_size: int, encoder_output_size: int, blank_id: int = 0):
        super().__init__()
        self.ctc_lo = nn.Linear(encoder_output_size, vocab_size)
        self.blank_id = blank_id

    def forward(self, hs: Tensor, hs_lens: Tensor, ys: Tensor, ys_lens: Tensor) -> Tensor:
        """Summed negative log-likelihood over the batch, a scalar.

        hs (B, T, D), or packed (N, D), hs_lens (B,), ys (B, L) with any padding, ys_lens (B,). A transcript
        longer than its frames allow has infinite loss; it is counted as zero, so that one bad pair cannot end a
        run. An utterance without transcript (an answer that is a label alone) has none to teach.
        """
        log_probs = self.log_softmax(hs)
        if hs.dim() == 2:
            log_probs, _ = pad_rows(log_probs, hs_lens.tolist())
        log_probs = log_probs.transpose(0, 1)
        losses = F.ctc_loss(
            log_probs, ys.clamp(min=0), hs_lens, ys_lens, self.blank_id, reduction="none", zero_infinity=True
        )
        return losses[ys_lens > 0].sum()

    def log_softmax(self, hs: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, V) float32."""
        return self.ctc_lo(hs).float().log_softmax(dim=-1)

    @torch.no_grad()
    def greedy(self, hs: Tensor, hs_lens: Tensor) -> list[list[int]]:
        """Best path, repeats and blanks removed: one token list an utterance."""
        out = []
        for row, n in zip(self.log_softmax(hs).argmax(-1), hs_lens.tolist()):
            path = torch.unique_consecutive(row[:n]).tolist()
            out.append([t for t in path if t != self.blank_id])
        return out


@CTCS.register("none")
class NoCTC(nn.Module):
    """No head: WeNet always builds one, and over an LLM's vocabulary it would be the largest layer."""

    def __init__(self, vocab_size: int, encoder_output_size: int, blank_id: int = 0):
        super().__init__()
