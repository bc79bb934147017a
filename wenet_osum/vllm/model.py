"""OSUM as vLLM runs it: our encoder and adapter, vLLM's own LLM.

Parameters are named as in the exported folder, so vLLM's loader needs no table of names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from vllm.model_executor.models.interfaces import SupportsMultiModal
from vllm.model_executor.models.utils import AutoWeightsLoader, init_vllm_registered_model, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY

from wenet_osum.hf.modeling_osum import build_speech, embed_speech
from wenet_osum.vllm.processor import OsumDummyInputsBuilder, OsumMultiModalProcessor, OsumProcessingInfo


@MULTIMODAL_REGISTRY.register_processor(
    OsumMultiModalProcessor, info=OsumProcessingInfo, dummy_inputs=OsumDummyInputsBuilder
)
class OsumForConditionalGeneration(nn.Module, SupportsMultiModal):
    """The LLM's input is [question][speech begin][speech][speech end]; LoRA is merged in the export.

    The encoder and the adapter are whole on every rank of a tensor-parallel LLM.
    """

    def __init__(self, *, vllm_config: Any, prefix: str = ""):
        super().__init__()
        config = vllm_config.model_config.hf_config
        with self._mark_tower_model(vllm_config, "audio"):  # type: ignore[operator]
            self.encoder, self.adapter, self.speech_bounds = build_speech(config)
        with self._mark_language_model(vllm_config):  # type: ignore[operator]
            self.language_model = init_vllm_registered_model(
                vllm_config, prefix=maybe_prefix(prefix, "language_model"), hf_config=config.text_config
            )
        self.audio_token_id = config.audio_token_id

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        if modality != "audio":
            raise ValueError(f"{modality}: OSUM hears audio only")
        return "<|audio|>"

    def embed_multimodal(self, **kwargs: Any) -> list[Tensor]:
        """``input_features``: log-mel frames (B, T, F), or a list of (T, F) -> (n, H) for each utterance."""
        features = kwargs.get("input_features")
        return [] if features is None else embed_speech(self, features)

    def embed_input_ids(
        self,
        input_ids: Tensor,
        multimodal_embeddings: Any = None,
        *,
        is_multimodal: Tensor | None = None,
    ) -> Tensor:
        """vLLM's: ids (n,) and the speech of the marked ones -> (n, H)."""
        # The audio token may have no row in the LLM's embedding, and a prompt may have it without a speech.
        ids = input_ids.masked_fill(input_ids == self.audio_token_id, 0)
        return super().embed_input_ids(ids, multimodal_embeddings, is_multimodal=is_multimodal)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        return self.language_model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        return self.language_model.compute_logits(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        return AutoWeightsLoader(self).load_weights(weights)
