"""Optional CTC heads (Graves et al. 2006): an extra loss, and drafts for decoding.

``ctc`` stands on the encoder and has a layer of its own. ``words`` stands behind the adapter and has none: it asks
how much a speech token is like each word embedding of the LLM. So it teaches the adapter, without a single step
through the LLM, to say what was spoken in embeddings that the LLM can read already.
"""

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
        blank = self.blank_id % log_probs.size(-1)
        losses = F.ctc_loss(
            log_probs, ys.clamp(min=0), hs_lens, ys_lens, blank, reduction="none", zero_infinity=True
        )
        return losses[ys_lens > 0].sum()

    def log_softmax(self, hs: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, V) float32."""
        return self.ctc_lo(hs).float().log_softmax(dim=-1)

    @torch.no_grad()
    def greedy(self, hs: Tensor, hs_lens: Tensor) -> list[list[int]]:
        """Best path, repeats and blanks removed: one token list an utterance."""
        out = []
        log_probs = self.log_softmax(hs)
        blank = self.blank_id % log_probs.size(-1)
        for row, n in zip(log_probs.argmax(-1), hs_lens.tolist()):
            path = torch.unique_consecutive(row[:n]).tolist()
            out.append([t for t in path if t != blank])
        return out


@CTCS.register("words")
class WordCTC(CTC):
    """CTC over the LLM's word embeddings, behind the adapter.

    A speech token x has for word v the logit ``scale * x . E[v]``, E being the LLM's input embeddings, and for the
    blank, a class behind the words, a number that is learned: a token that is like no word is blank, and a near
    zero embedding to the LLM. ``hs`` of all methods are the products ``x . E``, (B, T, V) or packed (N, V).

    Two numbers are learned, so a head over 150,000 words costs a matrix product and no memory for weights.

    Args:
        negatives: while training, the softmax is over the words of the batch and so many drawn at random; over all
            49,152 of SmolLM2 it takes ten times the encoder's time on a CPU. 0: all.
    """

    LIKE = 12.0  # the logit of a word for its own embedding at the start, and that of the blank: e^12 is a vocabulary

    def __init__(self, vocab_size: int, encoder_output_size: int, blank_id: int = 0, negatives: int = 0):
        nn.Module.__init__(self)
        self.vocab_size, self.negatives = vocab_size, negatives
        self.blank_id = -1  # the last class: no word is given up for it
        self.scale, self.blank = nn.Parameter(torch.ones(())), nn.Parameter(torch.tensor(self.LIKE))

    @torch.no_grad()
    def fit(self, size: Tensor) -> None:
        """Start for embeddings of this mean squared norm, ()."""
        self.scale.copy_(self.LIKE / size)

    def candidates(self, ys: Tensor) -> Tensor | None:
        """Ids, sorted, of the words that the softmax is over; None: all."""
        if not self.training or not self.negatives:
            return None
        drawn = torch.randint(self.vocab_size, (self.negatives,), device=ys.device)
        return torch.cat([ys[ys >= 0], drawn]).unique()

    def log_softmax(self, hs: Tensor) -> Tensor:
        """(B, T, V) -> (B, T, V + 1) float32."""
        logits = hs.float() * self.scale
        return torch.cat([logits, self.blank.expand(*hs.shape[:-1], 1)], dim=-1).log_softmax(dim=-1)


@CTCS.register("none")
class NoCTC(nn.Module):
    """No head: WeNet always builds one, and over an LLM's vocabulary it would be the largest layer."""

    def __init__(self, vocab_size: int, encoder_output_size: int, blank_id: int = 0):
        super().__init__()
