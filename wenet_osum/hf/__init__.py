"""Hugging Face's classes of OSUM. ``import wenet_osum.hf`` makes transformers know them:

import wenet_osum.hf
from transformers import AutoModel, AutoProcessor
model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
"""

from __future__ import annotations

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForMultimodalLM, AutoProcessor

from wenet_osum.hf.configuration_osum import OsumConfig
from wenet_osum.hf.feature_extraction_osum import OsumFeatureExtractor
from wenet_osum.hf.modeling_osum import OsumForConditionalGeneration
from wenet_osum.hf.processing_osum import OsumProcessor

__all__ = ["OsumConfig", "OsumFeatureExtractor", "OsumForConditionalGeneration", "OsumProcessor"]

AutoConfig.register(OsumConfig.model_type, OsumConfig, exist_ok=True)
AutoFeatureExtractor.register(OsumConfig, OsumFeatureExtractor, exist_ok=True)
AutoProcessor.register(OsumConfig, OsumProcessor, exist_ok=True)
for auto in (AutoModel, AutoModelForMultimodalLM):
    auto.register(OsumConfig, OsumForConditionalGeneration, exist_ok=True)
