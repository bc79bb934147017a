"""From a question and a wave to what vLLM schedules: ids with one audio token for each embedding, and frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import BatchFeature
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import MultiModalDataParser
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
)

from wenet_osum.hf import OsumProcessor


class OsumProcessingInfo(BaseProcessingInfo):
    """What vLLM asks about the inputs: one utterance a prompt, one channel at the model's rate."""

    def get_hf_processor(self, **kwargs: object) -> OsumProcessor:
        return self.ctx.get_hf_processor(OsumProcessor, **kwargs)

    def get_data_parser(self) -> MultiModalDataParser:
        # vLLM resamples by the filter that we resample by, torchaudio's.
        rate = self.get_hf_processor().feature_extractor.sampling_rate
        return MultiModalDataParser(target_sr=rate, target_channels=1)

    def get_default_tok_params(self) -> Any:
        return super().get_default_tok_params().with_kwargs(add_special_tokens=False)  # as OsumProcessor

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"audio": 1}


class OsumDummyInputsBuilder(BaseDummyInputsBuilder[OsumProcessingInfo]):
    """The longest utterance, for vLLM to measure its memory by."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return self.info.get_hf_processor().audio_token * mm_counts.get("audio", 0)

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping[str, Any]
    ) -> dict[str, Any]:
        extractor = self.info.get_hf_processor().feature_extractor
        longest = extractor.max_frames * extractor.hop_length
        count = mm_counts.get("audio", 0)
        return {
            "audio": self._get_dummy_audios(
                length=longest, num_audios=count, overrides=mm_options.get("audio")
            )
        }


class OsumMultiModalProcessor(BaseMultiModalProcessor[OsumProcessingInfo]):
    """Our feature extractor at each utterance's true length; the audio token repeated as the speech needs."""

    def _call_hf_processor(
        self, hf_data: Mapping[str, object], hf_kwargs: Mapping[str, object]
    ) -> BatchFeature:
        """The features alone: vLLM tokenizes the text itself. A prompt has one utterance, so nothing is padded.

        Raises:
            ValueError: a wave that the extractor does not take, or options, of which it has none.
        """
        if hf_kwargs:
            raise ValueError(
                f"mm_processor_kwargs has {sorted(hf_kwargs)[0]}: OSUM takes none, leave it away"
            )
        extractor = self.info.get_hf_processor().feature_extractor
        feats = extractor(hf_data["audio"], sampling_rate=extractor.sampling_rate)["input_features"]
        return BatchFeature({"input_features": feats})

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        return {"input_features": MultiModalFieldConfig.batched("audio")}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[PromptReplacement]:
        processor = self.info.get_hf_processor()
        token = processor.audio_token_id

        def tokens(item: int) -> list[int]:
            features: torch.Tensor = out_mm_kwargs.get_data()["input_features"][item]
            return [token] * processor.audio_tokens(len(features))

        return [PromptReplacement(modality="audio", target=[token], replacement=tokens)]
