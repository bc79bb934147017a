"""The config of an exported OSUM: our encoder's and adapter's keys, and the LLM's own config."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig


class OsumConfig(PretrainedConfig):
    """Args:
    text_config: the LLM's config, or its dict (with ``model_type``).
    encoder, encoder_conf, adapter, adapter_conf, input_dim: as in our YAML.
    audio_token_id: what the processor writes where speech goes; it is never embedded.
    """

    model_type = "osum"
    sub_configs = {"text_config": AutoConfig}  # noqa: RUF012  (transformers reads it from the class)

    def __init__(
        self,
        text_config: Any = None,
        encoder: str = "whisper_osum",
        encoder_conf: dict[str, Any] | None = None,
        adapter: str = "osum",
        adapter_conf: dict[str, Any] | None = None,
        input_dim: int = 80,
        audio_token_id: int = 0,
        **kwargs: Any,
    ):
        if isinstance(text_config, dict):
            text_config = dict(text_config)
            text_config = AutoConfig.for_model(text_config.pop("model_type", None), **text_config)
        self.text_config = text_config if text_config is not None else AutoConfig.for_model("qwen2")
        self.encoder, self.encoder_conf = encoder, encoder_conf or {}
        self.adapter, self.adapter_conf = adapter, adapter_conf or {}
        self.input_dim, self.audio_token_id = input_dim, audio_token_id
        kwargs.setdefault("tie_word_embeddings", self.text_config.tie_word_embeddings)
        super().__init__(**kwargs)
