"""Stage 2, the model of the paper: encoder, adapter, LLM (arXiv 2501.13306, figure 2)."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from wenet_osum.constants import IGNORE_ID
from wenet_osum.errors import OsumError
from wenet_osum.models.beam import write_best
from wenet_osum.models.ctc import WordCTC
from wenet_osum.models.generation import Search, Session
from wenet_osum.models.losses import answer_weights, combine_losses, ctc_alone, figures_for_the_loop
from wenet_osum.models.packed import check_packs, pad_rows
from wenet_osum.models.prompts import Prompts
from wenet_osum.models.sequence import Sequence, build_sequence, pack_sequence
from wenet_osum.registry import ADAPTERS, MODELS


@dataclass
class DecodeResult:
    """One utterance's answer; ``tokens`` is what WeNet's ``recognize.py`` reads."""

    tokens: list[int]


def lengths_of(ids: Tensor) -> Tensor:
    """(B, n) ids padded with IGNORE_ID -> (B,)."""
    return (ids != IGNORE_ID).sum(dim=1)


def append_id(ids: Tensor, last: int) -> Tensor:
    """(B, n) ids padded with IGNORE_ID -> (B, n + 1), ``last`` right behind each row's real ids."""
    out = torch.cat([ids, ids.new_full((len(ids), 1), IGNORE_ID)], dim=1)
    out[torch.arange(len(ids)), lengths_of(ids)] = last
    return out


class SpeechModel(nn.Module, ABC):
    """What both stages share: the CTC loss and the parts that learn."""

    encoder: nn.Module
    decoder: Any
    ctc: Any
    modes: tuple[str, ...]  # of decoding
    prompts: Prompts | None = None  # set where the loader does not bring prompts (WeNet's)

    def __init__(
        self, vocab_size: int, special_tokens: dict[str, int] | None, ctc_weight: float, has_ctc: bool
    ):
        super().__init__()
        if not special_tokens or "eos" not in special_tokens:
            raise OsumError("tokenizer_conf.special_tokens", "no id for eos", "give {eos: ID}")
        if ctc_weight > 0 and not has_ctc:
            raise OsumError(
                "model_conf.ctc_weight", "is above 0 with ctc: none", "set ctc: ctc or the weight to 0"
            )
        self.vocab_size, self.special_tokens = vocab_size, special_tokens
        self.eos = int(special_tokens["eos"])
        self.ctc_weight = ctc_weight

    @abstractmethod
    def parts(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of each part by name, for ``trainable`` and for learning rates."""

    def set_trainable(self, names: list[str] | None) -> None:
        """Let only the named parts learn; None keeps what the parts ask for themselves."""
        if names is None:
            return
        parts = self.parts()
        if not isinstance(names, list):
            raise OsumError(
                "model_conf.trainable", f"is {names!r}, not a list", f"choose from {', '.join(parts)}"
            )
        for name in names:
            if name not in parts:
                raise OsumError(
                    "model_conf.trainable", f"no part {name!r}", f"choose from {', '.join(parts)}"
                )
        for name, parameters in parts.items():
            if name in names and not all(p.is_floating_point() for p in parameters):
                raise OsumError(
                    "model_conf.trainable", f"{name} is in 4 or 8 bits", "set decoder_conf.quant: none"
                )
            for p in parameters:
                p.requires_grad_(name in names)

    def prompt_ids(self, batch: dict[str, Any]) -> Tensor:
        """(B, P) ids padded with -1 of a batch or of ``infos``: its ``prompt``, or what ``tasks`` and ``langs``
        ask in the words of ``self.prompts``, drawn while training."""
        if "prompt" in batch:
            return batch["prompt"]
        assert self.prompts is not None, "a batch without prompts, for a model without them"
        return self.prompts.batch(batch["tasks"], batch["langs"], self.training)

    @property
    def streams(self) -> bool:
        """Whether the encoder takes a chunk size, as WeNet's own do."""
        return "decoding_chunk_size" in inspect.signature(self.encoder.forward).parameters

    def encode(
        self, speech: Tensor, lengths: Tensor, chunk_size: int = -1, left_chunks: int = -1
    ) -> tuple[Tensor, Tensor]:
        """The encoder for decoding. WeNet's streaming encoders draw a chunk size unless they are told one."""
        if self.streams:
            return self.encoder(speech, lengths, chunk_size, left_chunks)
        return self.encoder(speech, lengths)

    def check_modes(self, modes: list[str]) -> None:
        """Raises:
        OsumError: a decode mode that this model does not have.
        """
        known = [m for m in self.modes if m != "ctc_greedy_search" or hasattr(self.ctc, "greedy")]
        for mode in modes:
            if mode not in known:
                raise OsumError(
                    "--modes", f"this model does not have {mode!r}", f"choose from {', '.join(known)}"
                )

    def ctc_loss(
        self, batch: dict[str, Any], hs: Tensor, mask: Tensor, device: torch.device
    ) -> tuple[Tensor | None, Tensor]:
        """Summed CTC loss over the batch's transcripts and their token count; (None, 0) without weight."""
        if self.ctc_weight == 0 or "ctc_target" not in batch:
            return None, torch.zeros((), device=device)
        ys = batch["ctc_target"].to(device)
        hs, ys = self.for_ctc(hs, ys)
        lengths = lengths_of(ys)
        return self.ctc(hs, mask if hs.dim() == 2 else mask.squeeze(1).sum(1), ys, lengths), lengths.sum()

    def for_ctc(self, hs: Tensor, ys: Tensor) -> tuple[Tensor, Tensor]:
        """What the CTC head looks at, (B, T, D) or packed (N, D), and its targets (B, C)."""
        return hs, ys

    def encode_batch(self, batch: dict[str, Any], device: torch.device) -> tuple[Tensor, Tensor]:
        """The encoder for training: (B, T, D) and mask (B, 1, T); of a packed batch (N, D) and lengths (B,).

        Raises:
            OsumError: a packed batch for an encoder that takes padded ones only.
        """
        feats, lengths = batch["feats"].to(device), batch["feats_lengths"]
        if feats.dim() == 2:
            check_packs(self.encoder, "encoder")
            return self.encoder(feats, lengths)
        return self.encoder(feats, lengths.to(device))


class Heard(NamedTuple):
    """Utterances behind the encoder, (B, T, D) and mask (B, 1, T), and behind the adapter, (B, S, H) and which of
    them are real (B, S)."""

    hs: Tensor
    mask: Tensor
    embeds: Tensor
    real: Tensor

    def rows(self, index: Tensor) -> Heard:
        """Utterances of these numbers, some perhaps more than once."""
        return Heard(*(t[index] for t in self))


@MODELS.register("osum")
class Osum(SpeechModel):
    """Speech in, an answer in words out.

    Args:
        vocab_size: of the tokenizer.
        encoder: any encoder of the contract in ``wenet_osum.registry`` (or a WeNet encoder).
        decoder: ``LLMDecoder``.
        ctc: ``CTC``, ``WordCTC`` or ``NoCTC``.
        special_tokens: ``{"eos": id}``, the answer's end.
        adapter, adapter_conf: name and keys in ``ADAPTERS``.
        ctc_weight: WeNet's; 0 trains no CTC head.
        trainable: parts that learn, of ``encoder adapter llm lora ctc``; None: all but the LLM's own
            weights under LoRA. The authors' order is adapter, then + encoder, then + lora.
        max_new_tokens: the most an answer may have; each utterance's own limit is
            ``min(max_new_tokens, 40 + 8 * speech tokens)``.
    """

    modes = ("llm_greedy", "llm_beam", "ctc_greedy_search")

    def __init__(
        self,
        vocab_size: int,
        encoder: Any,
        decoder: Any,
        ctc: nn.Module,
        special_tokens: dict[str, int] | None = None,
        adapter: str = "osum",
        adapter_conf: dict[str, Any] | None = None,
        ctc_weight: float = 0.0,
        trainable: list[str] | None = None,
        max_new_tokens: int = 400,
    ):
        super().__init__(vocab_size, special_tokens, ctc_weight, any(True for _ in ctc.parameters()))
        self.encoder, self.decoder, self.ctc = encoder, decoder, ctc
        self.adapter = ADAPTERS.build(adapter, encoder.output_size(), decoder.hidden_size, conf=adapter_conf)
        # Rows 0 and 1: speech begin and end (upstream: the last two rows of speech_token_emded).
        self.speech_bounds = nn.Embedding(2, decoder.hidden_size)
        nn.init.normal_(self.speech_bounds.weight, std=0.02)
        if isinstance(ctc, WordCTC):
            ctc.fit(decoder.word_size())
        self.max_new_tokens = max_new_tokens
        self.set_trainable(trainable)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        lora = self.decoder.lora_parameters()
        in_lora = {id(p) for p in lora}
        return {
            "encoder": list(self.encoder.parameters()),
            "adapter": [*self.adapter.parameters(), *self.speech_bounds.parameters()],
            "llm": [p for p in self.decoder.parameters() if id(p) not in in_lora],
            "lora": lora,
            "ctc": list(self.ctc.parameters()),
        }

    def sequence(
        self,
        prompt: Tensor,
        speech: Tensor,
        speech_mask: Tensor,
        answer: Tensor | None,
        begun: Tensor | None = None,
    ) -> Sequence:
        """prompt (B, P) ids, speech (B, S, H), speech_mask (B, S), answer (B, A) ids with the end, or None
        for inference, then perhaps the begin of one, ``begun`` (B, A) ids -> the LLM's input."""
        rows = speech.size(0)
        one = torch.ones(rows, 1, dtype=torch.bool, device=speech.device)
        begin, end = self.speech_bounds.weight[:, None, None, :].expand(2, rows, 1, -1)
        parts = [
            (self.decoder.embed(prompt), prompt != IGNORE_ID),
            (begin, one),
            (speech, speech_mask),
            (end, one),
        ]
        if begun is not None:
            parts.append((self.decoder.embed(begun), begun != IGNORE_ID))
        embedded = None if answer is None else (self.decoder.embed(answer), answer)
        return build_sequence(parts, embedded, left_pad=answer is None)

    def forward(self, batch: dict[str, Any], device: torch.device) -> dict[str, Tensor | None]:
        """WeNet's training contract.

        Batch keys: ``feats`` (B, T, F), or packed (sum of T, F), ``feats_lengths`` (B,), ``target`` (B, L) padded with -1 and
        without the end id, optionally ``target_weights`` (B, L + 1), ``prompt`` (B, P) padded with -1 or in its
        place ``tasks`` and ``langs``, and with a CTC head ``ctc_target`` (B, C).

        Returns:
            ``loss``; ``loss_llm``, ``loss_ctc`` (nats per token); ``th_accuracy`` share of answer
            tokens right under teacher forcing; ``tokens`` their number.
        """
        hs, mask = self.encode_batch(batch, device)
        packed = hs.dim() == 2
        if packed:
            check_packs(self.adapter, "adapter")
        speech, speech_mask = self.adapter(hs, mask)
        seen, real = (speech, speech_mask) if isinstance(self.ctc, WordCTC) else (hs, mask)
        loss_ctc, ctc_tokens = self.ctc_loss(batch, seen, real, device)
        if self.ctc_weight == 1 and loss_ctc is not None:  # the LLM has no part in it, and takes no time
            return ctc_alone(batch, loss_ctc, ctc_tokens, speech_mask.sum())
        speech, speech_mask = (
            pad_rows(speech, speech_mask.tolist()) if packed else (speech, speech_mask.squeeze(1))
        )
        answer = append_id(batch["target"].to(device), self.eos)
        seq = self.sequence(self.prompt_ids(batch).to(device), speech, speech_mask, answer)
        if packed:
            seq = pack_sequence(seq)
        weights = answer_weights(batch, answer)
        loss_llm, tokens, right, each = self.decoder(seq, weights)
        losses = combine_losses(batch, loss_llm, weights.sum(), loss_ctc, ctc_tokens, self.ctc_weight)
        more = figures_for_the_loop(batch, answer, each, weights, seq.mask.sum())
        return {**losses, "th_accuracy": right / tokens, "tokens": tokens, **more}

    def for_ctc(self, hs: Tensor, ys: Tensor) -> tuple[Tensor, Tensor]:
        """Of speech embeddings their products with the word embeddings that ``WordCTC`` asks for, and the targets
        as numbers of those words."""
        if not isinstance(self.ctc, WordCTC):
            return hs, ys
        words = self.ctc.candidates(ys)
        if words is not None:
            ys = torch.where(ys >= 0, torch.searchsorted(words, ys.clamp(min=0)), ys)
        return self.decoder.likeness(hs, words), ys

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
        """Answer a batch. ``methods``: ``llm_greedy``, ``llm_beam``, ``ctc_greedy_search``.

        Args:
            speech: (B, T, F) features; speech_lengths: (B,).
            decoding_chunk_size, num_decoding_left_chunks: for a streaming encoder of WeNet's.
            infos: ``prompt`` (B, P) ids padded with -1, or ``tasks`` and ``langs``.
            unused: what WeNet's ``recognize.py`` passes for other models (``reverse_weight`` ...).
        """
        self.check_modes(methods)
        heard = self.hear(speech, speech_lengths, decoding_chunk_size, num_decoding_left_chunks)
        prompt = self.prompt_ids(infos or {}).to(speech.device)
        out: dict[str, list[DecodeResult]] = {}
        for method in methods:
            if method == "ctc_greedy_search":
                out[method] = [DecodeResult(tokens) for tokens in self.ctc_greedy(heard)]
                continue
            session, limits = self.ask(heard, prompt), self.limits(heard)
            if method == "llm_beam" and beam_size > 1:
                search = Search(beam_size=beam_size, length_penalty=length_penalty)
                found = write_best(session, limits, search=search)
            else:
                found = session.write(limits, audible=self.audible(heard))
            out[method] = [DecodeResult(w.tokens) for w in found]
        return out

    def hear(self, speech: Tensor, lengths: Tensor, chunk_size: int = -1, left_chunks: int = -1) -> Heard:
        """speech (B, T, F) and its lengths (B,), through encoder and adapter once for every question."""
        hs, mask = self.encode(speech, lengths, chunk_size, left_chunks)
        embeds, speech_mask = self.adapter(hs, mask)
        return Heard(hs, mask, embeds, speech_mask.squeeze(1))

    def ctc_greedy(self, heard: Heard) -> list[list[int]]:
        """What the CTC head reads: one token list an utterance."""
        if isinstance(self.ctc, WordCTC):
            return self.ctc.greedy(self.decoder.likeness(heard.embeds), heard.real.sum(1))  # type: ignore[no-any-return]
        return self.ctc.greedy(heard.hs, heard.mask.squeeze(1).sum(1))  # type: ignore[no-any-return]

    def ask(self, heard: Heard, prompt: Tensor, begun: list[list[int]] | None = None) -> Session:
        """Put questions (B, P), ids padded with -1, about what was heard; ``begun``: how the answers begin."""
        ids = None
        if begun and any(begun):
            rows = [torch.tensor(tokens, dtype=torch.long) for tokens in begun]
            ids = pad_sequence(rows, batch_first=True, padding_value=IGNORE_ID).to(prompt.device)
        seq = self.sequence(prompt, heard.embeds, heard.real, None, ids)
        return Session(self.decoder, seq, self.eos, begun)

    def audible(self, heard: Heard) -> list[int]:
        """Tokens of text that each utterance has time for: two a speech token (25 a second: eight characters of
        three bytes each), and 20."""
        return (20 + 2 * heard.real.sum(1)).tolist()  # type: ignore[no-any-return]

    def limits(self, heard: Heard, longest: int | None = None) -> list[int]:
        """Most tokens of each answer: 40 and 8 for each speech token (12.5 a second), no more than ``longest``,
        ``max_new_tokens`` where it is not given. A row's own: so an answer is the same in any batch."""
        most = self.max_new_tokens if longest is None else longest
        return (40 + 8 * heard.real.sum(1)).clamp(max=most).tolist()  # type: ignore[no-any-return]
