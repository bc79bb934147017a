"""Any Hugging Face causal language model as a decoder, with LoRA by peft."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wenet_osum.constants import IGNORE_ID
from wenet_osum.errors import OsumError
from wenet_osum.models.head import head_loss
from wenet_osum.models.llm import build_llm
from wenet_osum.models.losses import token_losses
from wenet_osum.models.packed import PACK, SDPA, Apart
from wenet_osum.models.sequence import Sequence
from wenet_osum.registry import DECODERS

# OSUM's LoRA (upstream llmasr_model.py): r 8, alpha 32, dropout 0.1; up_proj is left out.
OSUM_LORA = {
    "r": 8,
    "lora_alpha": 32,
    "lora_dropout": 0.1,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"],
}


@DECODERS.register("llm")
class LLMDecoder(nn.Module):
    """A causal LM that reads embeddings and writes the answer.

    Args:
        vocab_size: of the tokenizer; the LLM's own table may be larger (Qwen2: 151,665 ids, 151,936 rows).
        encoder_output_size: WeNet's slot; the adapter brings speech to ``hidden_size``, so it is unused here.
        llm: local folder or hub id of a pretrained model.
        llm_config: its shape (``model_type: qwen2`` and its keys); without ``llm``, for random weights.
        lora: peft ``LoraConfig`` keys (``{}`` is OSUM's setting); None trains the LLM itself.
        dtype: number type of the LLM's weights, fp32, bf16 or fp16; ``auto`` keeps the folder's. LoRA is fp32.
        quant: ``4bit`` (nf4) or ``8bit``: the frozen LLM in so many bits, by bitsandbytes; needs ``lora``.
        gradient_checkpointing: recompute the LLM's activations in the backward pass.
        attn_implementation: transformers' name, ``sdpa`` or ``eager`` or ``flash_attention_2``.
    """

    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int,
        llm: str | None = None,
        llm_config: dict[str, Any] | None = None,
        lora: dict[str, Any] | None = None,
        dtype: str = "auto",
        quant: str = "none",
        gradient_checkpointing: bool = False,
        attn_implementation: str = "sdpa",
    ):
        from transformers import GenerationConfig

        super().__init__()
        if quant != "none" and lora is None:
            raise OsumError("decoder_conf.quant", "is for an LLM that stays frozen", "add lora: {}")
        self.causal_lm = build_llm(llm, llm_config, vocab_size, dtype, quant, attn_implementation)
        rows = self.causal_lm.get_input_embeddings().num_embeddings
        if rows < vocab_size:
            raise OsumError(
                "decoder_conf",
                f"the LLM has {rows} embedding rows, the tokenizer {vocab_size} ids",
                "use the LLM's own tokenizer, or raise llm_config.vocab_size",
            )
        self.vocab_size, self.gradient_checkpointing = vocab_size, gradient_checkpointing
        if gradient_checkpointing:
            self.causal_lm.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        # A folder may recommend sampling or penalties; an answer is the likeliest words, and no more.
        self.causal_lm.generation_config = GenerationConfig()
        self.source, self.pretrained = llm, llm is not None
        # transformers' name of it, the first one before version 5.40.
        parameters = inspect.signature(self.causal_lm.base_model.forward).parameters
        self.cache_name = "cache" if "cache" in parameters else "past_key_values"
        if lora is not None:
            from peft import LoraConfig, inject_adapter_in_model

            from wenet_osum.models.lora import LoraLinear

            try:
                config = LoraConfig(task_type="CAUSAL_LM", **{**OSUM_LORA, **lora})
                if quant == "none":
                    config._register_custom_module({nn.Linear: LoraLinear})
                inject_adapter_in_model(config, self.causal_lm)
                for p in self.lora_parameters():  # peft gives them the LLM's type, too coarse to learn in
                    p.data = p.data.float()
            except (TypeError, ValueError) as e:
                raise OsumError("decoder_conf.lora", str(e).split(") ")[-1], "see peft.LoraConfig") from None

    @property
    def hidden_size(self) -> int:
        return int(self.causal_lm.config.hidden_size)

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the word embeddings, in which the LLM wants its input."""
        return self.causal_lm.get_input_embeddings().weight.dtype

    def embed(self, ids: Tensor) -> Tensor:
        """(B, n) ids, IGNORE_ID where padded -> (B, n, H)."""
        return self.causal_lm.get_input_embeddings()(ids.clamp(min=0))

    def likeness(self, speech: Tensor, words: Tensor | None = None) -> Tensor:
        """(..., H) -> (..., V): the products with every word's input embedding, or with those of ``words`` (n,)."""
        table = self.causal_lm.get_input_embeddings().weight[: self.vocab_size]
        return F.linear(speech, table if words is None else table[words])

    @torch.no_grad()
    def word_size(self) -> Tensor:
        """The mean squared norm of the word embeddings, ()."""
        return self.causal_lm.get_input_embeddings().weight.float().square().sum(1).mean()  # type: ignore[no-any-return]

    def lora_parameters(self) -> list[nn.Parameter]:
        return [p for n, p in self.named_parameters() if "lora_" in n]

    def forward(self, seq: Sequence, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Summed cross-entropy over the label positions, their number, how many were right, and (n,) what each
        of them adds to the sum.

        ``weights``, one for each label position of the batch in order, multiply the cross-entropies.

        The output layer runs at label positions only; the prompt and speech positions have no loss.
        """
        hidden = self.hidden(seq)
        where = seq.labels != IGNORE_ID
        labels = seq.labels[where]
        head = self.causal_lm.get_output_embeddings()
        if type(head) is nn.Linear and not hasattr(head.weight, "ds_id"):
            loss, right, each = head_loss(hidden[where], head.weight, head.bias, labels, weights)
        else:  # LoRA on it, fewer bits, or in parts (DeepSpeed's ZeRO 3)
            logits = head(hidden[where]).float()
            each, right = token_losses(logits, labels, weights), (logits.argmax(-1) == labels).sum()
            loss = each.sum()
        return loss, where.sum(), right, each

    def hidden(self, seq: Sequence) -> Tensor:
        """The LLM's last hidden states (B, L, H), the utterances of a packed row kept apart.

        Raises:
            OsumError: an LLM whose attention does not take the utterances' lengths, for a packed row.
        """
        how: dict[str, Any] = {"attention_mask": seq.mask.long()}
        apart = None
        if seq.lengths is not None:
            how = {"attention_mask": None}
            if self.causal_lm.config._attn_implementation == SDPA:
                apart = Apart(seq.lengths)
                # A mask of four dimensions is passed on as it is, so that none is built. This one hides all:
                # an attention that used it would give no numbers at all, rather than those of a leak.
                nothing = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=seq.embeds.device)
                how = {"attention_mask": nothing, "apart": apart}
                self.check_passes_on()
        # With a cache, or a mask of two dimensions, transformers does not look for utterances in a row.
        hidden = self.causal_lm.base_model(
            inputs_embeds=seq.embeds.to(self.dtype), position_ids=seq.position_ids, use_cache=False, **how
        ).last_hidden_state
        if apart is not None and apart.asked == 0:
            self.no_packing()
        return hidden

    def check_passes_on(self) -> None:
        kinds = {p.kind for p in inspect.signature(self.causal_lm.base_model.forward).parameters.values()}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            self.no_packing()

    def no_packing(self) -> None:
        name = type(self.causal_lm).__name__
        what = f"{name}'s attention is not told where an utterance ends"
        raise OsumError(PACK, what, "use dynamic, bucket or static")

    def read(self, embeds: Tensor, real: Tensor, position_ids: Tensor, cache: Any) -> Tensor:
        """One pass of generation: hidden states (B, n, H) of the last n positions, whose keys and values go to
        ``cache`` (transformers'), behind those that are there.

        embeds (B, n, H); real (B, T) bool, of all positions read so far and these; position_ids (B, n).
        """
        return self.causal_lm.base_model(  # type: ignore[no-any-return]
            inputs_embeds=embeds.to(self.dtype),
            attention_mask=real.long(),
            position_ids=position_ids,
            use_cache=True,
            **{self.cache_name: cache},
        ).last_hidden_state

    def head(self, hidden: Tensor) -> Tensor:
        """(..., H) -> (..., V) float32, of the tokenizer's ids: the LLM's table may have more rows."""
        return self.causal_lm.get_output_embeddings()(hidden)[..., : self.vocab_size].float()
