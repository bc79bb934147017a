"""OSUM as transformers runs it: ``from_pretrained``, ``generate``, ``forward`` with labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel

from wenet_osum.hf.configuration_osum import OsumConfig
from wenet_osum.registry import ADAPTERS, ENCODERS, load_models


def build_speech(config: OsumConfig) -> tuple[nn.Module, nn.Module, nn.Embedding]:
    """The encoder, the adapter and the two embeddings around the speech: all that is not the LLM."""
    load_models()
    encoder = ENCODERS.build(config.encoder, config.input_dim, global_cmvn=None, conf=config.encoder_conf)
    hidden = config.text_config.hidden_size
    adapter = ADAPTERS.build(config.adapter, encoder.output_size(), hidden, conf=config.adapter_conf)
    return encoder, adapter, nn.Embedding(2, hidden)


def embed_speech(model: Any, features: Iterable[Tensor]) -> list[Tensor]:
    """What the LLM reads for each utterance: speech begin, the speech, speech end.

    Args:
        model: has ``encoder``, ``adapter`` and ``speech_bounds``. features: log-mel frames, (T, F) each at
            its true length.

    Returns:
        (n, H) each, of ``OsumProcessor.audio_tokens(T)`` rows.
    """
    bounds = model.speech_bounds.weight
    feats = [f.to(bounds.dtype) for f in features]
    lengths = torch.tensor([len(f) for f in feats], device=bounds.device)
    speech, mask = model.adapter(*model.encoder(pad_sequence(feats, batch_first=True), lengths))
    return [torch.cat([bounds[:1], row[real], bounds[1:]]) for row, real in zip(speech, mask.squeeze(1))]


class OsumForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Our encoder and adapter in front of a causal LM. Where ``input_ids`` have the audio token, the model
    puts speech begin, the speech embeddings and speech end (``OsumProcessor`` writes one token for each)."""

    config_class = OsumConfig
    main_input_name = "input_ids"
    base_model_prefix = "language_model"
    input_modalities = ["audio", "text"]  # noqa: RUF012
    _supports_sdpa = True

    def __init__(self, config: OsumConfig):
        super().__init__(config)
        self.encoder, self.adapter, self.speech_bounds = build_speech(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def get_audio_features(self, input_features: Tensor, input_features_mask: Tensor) -> Tensor:
        """Log-mel frames (B, T, F) and their mask (B, T) -> the rows for the audio tokens of the batch, one
        utterance behind the other (n, H)."""
        lengths = input_features_mask.sum(1).tolist()
        return torch.cat(embed_speech(self, [f[:n] for f, n in zip(input_features, lengths)]))

    def forward(
        self,
        input_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The LLM's output. ``input_features`` (B, T, F) are read with the first ``input_ids`` only; ``labels``
        (B, L) have -100 where there is no loss.

        Raises:
            ValueError: another number of audio tokens than the speech has rows.
        """
        start = past_key_values is None or past_key_values.get_seq_length() == 0
        if inputs_embeds is None:
            assert input_ids is not None
            where = input_ids == self.config.audio_token_id
            inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(where, 0))
            if input_features is not None and start:
                assert input_features_mask is not None
                rows = self.get_audio_features(input_features, input_features_mask)
                if len(rows) != int(where.sum()):
                    raise ValueError(
                        f"{int(where.sum())} audio tokens in input_ids, the speech needs {len(rows)}: "
                        "let OsumProcessor write both"
                    )
                inputs_embeds = inputs_embeds.masked_scatter(where[:, :, None], rows.to(inputs_embeds.dtype))
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            labels=labels,
            **kwargs,
        )
