"""Stage 1: Whisper itself on all tasks (paper section 2.2), so that its encoder hears more than words.

The decoder reads ``[prompt] [sos] [answer] [end]`` where the prompt is the task's tag, and is trained on
the same composed answers as stage 2, with an optional CTC head on the transcript.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wenet_osum.constants import IGNORE_ID
from wenet_osum.errors import OsumError
from wenet_osum.models.ctc import WordCTC
from wenet_osum.models.losses import answer_weights, combine_losses, figures_for_the_loop, token_losses
from wenet_osum.models.osum import DecodeResult, SpeechModel, append_id, lengths_of
from wenet_osum.models.packed import pad_rows
from wenet_osum.registry import MODELS


@MODELS.register("whisper_multitask")
class WhisperMultitask(SpeechModel):
    """Encoder and Whisper decoder. Arguments as ``Osum``; ``special_tokens`` needs ``sos`` and ``eos``;
    ``lsm_weight`` is WeNet's label smoothing."""

    modes = ("attention", "ctc_greedy_search")

    def __init__(
        self,
        vocab_size: int,
        encoder: nn.Module,
        decoder: Any,
        ctc: nn.Module,
        special_tokens: dict[str, int] | None = None,
        ctc_weight: float = 0.0,
        lsm_weight: float = 0.0,
        trainable: list[str] | None = None,
        max_new_tokens: int = 400,
    ):
        super().__init__(vocab_size, special_tokens, ctc_weight, any(True for _ in ctc.parameters()))
        if "sos" not in self.special_tokens:
            raise OsumError("tokenizer_conf.special_tokens", "no id for sos", "give {sos: ID, eos: ID}")
        self.sos = int(self.special_tokens["sos"])
        if isinstance(ctc, WordCTC):
            raise OsumError("ctc", "words is for an LLM's word embeddings", "use ctc or none in stage 1")
        self.encoder, self.decoder, self.ctc = encoder, decoder, ctc
        self.lsm_weight, self.max_new_tokens = lsm_weight, max_new_tokens
        self.set_trainable(trainable)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        return {name: list(getattr(self, name).parameters()) for name in ("encoder", "decoder", "ctc")}

    def forward(self, batch: dict[str, Any], device: torch.device) -> dict[str, Tensor | None]:
        """WeNet's training contract; batch keys and result as ``Osum.forward``."""
        hs, mask = self.encode_batch(batch, device)
        loss_ctc, ctc_tokens = self.ctc_loss(batch, hs, mask, device)
        if hs.dim() == 2:  # the decoder, small beside the encoder, takes rows
            hs, mask = pad_rows(hs, mask.tolist())
            mask = mask[:, None]
        prompt = append_id(self.prompt_ids(batch).to(device), self.sos)
        answer = append_id(batch["target"].to(device), self.eos)
        # Joined without inner padding: a stable sort moves the padding behind.
        ids = torch.cat([prompt, answer], dim=1)
        order = torch.argsort((ids == IGNORE_ID).int(), dim=1, stable=True)
        ids = ids.gather(1, order)[:, : int(lengths_of(ids).max())]
        labels = ids.clone()
        labels[torch.arange(ids.size(1), device=device)[None] < lengths_of(prompt)[:, None]] = IGNORE_ID
        where = labels[:, 1:] != IGNORE_ID
        hidden, _ = self.decoder(ids[:, :-1], self.decoder.memory(hs), mask)
        logits, labels = self.decoder.logits(hidden[where]), labels[:, 1:][where]
        weights = answer_weights(batch, answer)
        each = token_losses(logits, labels, weights, self.lsm_weight)
        losses = combine_losses(batch, each.sum(), weights.sum(), loss_ctc, ctc_tokens, self.ctc_weight)
        accuracy = (logits.argmax(-1) == labels).float().mean()
        more = figures_for_the_loop(batch, answer, each, weights, (ids != IGNORE_ID).sum())
        return {**losses, "th_accuracy": accuracy, "tokens": where.sum(), **more}

    @torch.no_grad()
    def decode(
        self,
        methods: list[str],
        speech: Tensor,
        speech_lengths: Tensor,
        beam_size: int = 1,
        length_penalty: float = 0.0,
        infos: dict[str, Any] | None = None,
        decoding_chunk_size: int = -1,
        num_decoding_left_chunks: int = -1,
        **unused: Any,
    ) -> dict[str, list[DecodeResult]]:
        """Answer a batch. ``methods``: ``attention`` (greedy), ``ctc_greedy_search``; the rest as ``Osum.decode``."""
        self.check_modes(methods)
        hs, mask = self.encode(speech, speech_lengths, decoding_chunk_size, num_decoding_left_chunks)
        out: dict[str, list[DecodeResult]] = {}
        for method in methods:
            if method == "ctc_greedy_search":
                out[method] = [DecodeResult(t) for t in self.ctc.greedy(hs, mask.squeeze(1).sum(1))]
            else:
                prompt = append_id(self.prompt_ids(infos or {}).to(speech.device), self.sos)
                out[method] = [DecodeResult(t) for t in self.greedy(hs, mask, prompt)]
        return out

    def greedy(self, hs: Tensor, mask: Tensor, prompt: Tensor) -> list[list[int]]:
        """Greedy answers; rows whose prompts have one length go together."""
        lengths = lengths_of(prompt)
        answers: list[list[int]] = [[] for _ in range(len(prompt))]
        for n in lengths.unique().tolist():
            rows = (lengths == n).nonzero()[:, 0]
            memory, past, ids = self.decoder.memory(hs[rows]), None, prompt[rows, :n]
            done = torch.zeros(len(rows), dtype=torch.bool, device=hs.device)
            room = min(self.max_new_tokens, self.decoder.positions.size(0) - n)
            for _ in range(room):
                hidden, past = self.decoder(ids, memory, mask[rows], past)
                ids = self.decoder.logits(hidden[:, -1]).argmax(-1, keepdim=True)
                done |= ids[:, 0] == self.eos
                if bool(done.all()):
                    break
                for row, finished, token in zip(rows.tolist(), done.tolist(), ids[:, 0].tolist()):
                    if not finished:
                        answers[row].append(token)
        return answers
