"""The names of vLLM that wenet_osum.vllm uses, as small as they can be: no scheduler, an LLM of transformers.

What vLLM itself makes of the plug-in is tested where vLLM is installed (tests/integration/test_vllm.py).
"""

from __future__ import annotations

import contextlib
from types import ModuleType, SimpleNamespace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

T = TypeVar("T")


class ModelRegistry:
    models: dict[str, str] = {}  # noqa: RUF012

    @classmethod
    def register_model(cls, name: str, model: str) -> None:
        cls.models[name] = model


class Registry:
    def register_processor(self, processor: Any, *, info: Any, dummy_inputs: Any) -> Any:
        def register(model: Any) -> Any:
            model.parts = (processor, info, dummy_inputs)
            return model

        return register


class BaseProcessingInfo:
    def __init__(self, ctx: Any):
        self.ctx = ctx


class BaseDummyInputsBuilder(Generic[T]):
    def __init__(self, info: Any):
        self.info = info

    def _get_dummy_audios(self, *, length: int, num_audios: int, overrides: Any) -> list[Tensor]:
        return [torch.zeros(length)] * num_audios


class BaseMultiModalProcessor(Generic[T]):
    def __init__(self, info: Any):
        self.info = info


class SupportsMultiModal:
    @contextlib.contextmanager
    def _mark_language_model(self, vllm_config: Any) -> Any:
        yield

    @contextlib.contextmanager
    def _mark_tower_model(self, vllm_config: Any, modality: str) -> Any:
        yield

    def embed_input_ids(self, input_ids: Tensor, speech: Any = None, *, is_multimodal: Any = None) -> Tensor:
        embeds = self.language_model.get_input_embeddings()(input_ids)  # type: ignore[attr-defined]
        if speech:
            embeds[is_multimodal] = torch.cat(speech)
        return embeds


class Llm(nn.Module):
    """A causal LM that answers as vLLM's do: hidden states first, logits when asked."""

    def __init__(self, config: Any):
        super().__init__()
        whole = AutoModelForCausalLM.from_config(config)
        self.model, self.lm_head = whole.model, whole.lm_head
        self.get_input_embeddings = whole.get_input_embeddings

    def forward(self, ids: Any, positions: Tensor, intermediate: Any, *, inputs_embeds: Tensor) -> Tensor:
        return self.model(inputs_embeds=inputs_embeds[None], position_ids=positions[None]).last_hidden_state[
            0
        ]

    def compute_logits(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden)


class AutoWeightsLoader:
    def __init__(self, model: nn.Module):
        self.model = model

    def load_weights(self, weights: Any) -> set[str]:
        """Every tensor has a home, and no home stays empty."""
        tensors = dict(weights)
        missing, strange = self.model.load_state_dict(tensors, strict=False)
        config = self.model.language_model.model.config  # type: ignore[union-attr]
        tied = ["language_model.lm_head.weight"] if config.tie_word_embeddings else []  # type: ignore[union-attr]
        assert (missing, strange) == (tied, []), (missing, strange)
        return set(tensors)


def names() -> dict[str, dict[str, Any]]:
    """Module name -> what it holds."""
    return {
        "vllm": {"ModelRegistry": ModelRegistry},
        "vllm.multimodal": {"MULTIMODAL_REGISTRY": Registry()},
        "vllm.multimodal.inputs": {
            "MultiModalFieldConfig": SimpleNamespace(batched=lambda modality: modality)
        },
        "vllm.multimodal.parse": {"MultiModalDataParser": SimpleNamespace},
        "vllm.multimodal.processing": {
            "BaseDummyInputsBuilder": BaseDummyInputsBuilder,
            "BaseMultiModalProcessor": BaseMultiModalProcessor,
            "BaseProcessingInfo": BaseProcessingInfo,
            "PromptReplacement": SimpleNamespace,
        },
        "vllm.model_executor": {},
        "vllm.model_executor.models": {},
        "vllm.model_executor.models.interfaces": {"SupportsMultiModal": SupportsMultiModal},
        "vllm.model_executor.models.utils": {
            "AutoWeightsLoader": AutoWeightsLoader,
            "init_vllm_registered_model": lambda vllm_config, *, prefix, hf_config: Llm(hf_config),
            "maybe_prefix": lambda prefix, name: f"{prefix}.{name}" if prefix else name,
        },
    }


def modules() -> dict[str, ModuleType]:
    """What goes into ``sys.modules``."""
    out = {}
    for name, held in names().items():
        out[name] = ModuleType(name)
        vars(out[name]).update(held)
    return out
