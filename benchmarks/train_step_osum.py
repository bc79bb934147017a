"""The peer's half of ``train_step.py``: OSUM's public code, run by a Python that has what it needs (torch,
transformers 4.44, peft 0.12). Nothing of OSUM's is changed on disk; what is put in its way at run time:

* transformers' ``from_config`` is called without ``device_map`` and ``output_hidden_states``, which it does
  not take (the code at HEAD cannot be constructed otherwise), the latter in the config instead, and in fp32;
* ``torchaudio``, ``whisper`` and ``gxl_ai_utils`` (of which the model uses only log lines) are stand-ins, the tokenizer is
  one with ids only, and three names that newer torch no longer passes on are given back.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
import typing
from pathlib import Path
from typing import Any


class StandIn(types.ModuleType):
    """A module all of whose members are modules that can be called and give nothing."""

    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[()]:
        return ()


class Finder:
    """Finds stand-ins for packages that are not here."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        absent = name.split(".")[0] in ("torchaudio", "gxl_ai_utils", "whisper")
        return importlib.machinery.ModuleSpec(name, self) if absent else None  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> types.ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class Ids:
    """A tokenizer that is asked for its end id only."""

    eos_token_id = 0
    padding_side = "right"

    def add_special_tokens(self, tokens: dict[str, str]) -> None:
        pass


def build(osum: Path, shape: dict[str, Any], llm: dict[str, Any], checkpointing: bool) -> Any:
    """OSUM's model (``LLMASR_Model``) of a shape, random, encoder, adapter and LoRA learning."""
    import torch
    import torch.nn.modules.conv as conv
    import transformers

    for name, value in (("Union", typing.Union), ("Optional", typing.Optional), ("Tensor", torch.Tensor)):
        setattr(conv, name, value)
    import peft  # noqa: F401  before the stand-ins, which its own look-ups must not find

    sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]
    sys.path.insert(0, str(osum))
    package = types.ModuleType("wenet")  # its __init__ would bring the whole command line
    package.__path__ = [str(osum / "wenet")]
    sys.modules["wenet"] = package

    auto, plain = transformers.AutoModelForCausalLM, transformers.AutoModelForCausalLM.from_config

    def from_config(config: Any, output_hidden_states: bool = False, **unused: Any) -> Any:
        config.output_hidden_states = output_hidden_states
        return plain(config, torch_dtype=torch.float32)

    auto.from_config = from_config
    config = transformers.Qwen2Config(**{k: v for k, v in llm.items() if k != "model_type"})
    transformers.AutoConfig.from_pretrained = lambda *a, **k: config
    transformers.AutoTokenizer.from_pretrained = lambda *a, **k: Ids()

    from wenet.llm_asr.llmasr_model import LLMASR_Model
    from wenet.transformer.encoder import TransformerEncoder

    encoder = TransformerEncoder(
        80,
        **shape,
        input_layer="conv1d2",
        pos_enc_layer_type="abs_pos_whisper",
        activation_type="gelu",
        key_bias=False,
        normalize_before=True,
        static_chunk_size=-1,
        attention_dropout_rate=0.0,
        gradient_checkpointing=checkpointing,
    )
    return LLMASR_Model(
        encoder,
        shape["output_size"],
        "",
        adapter_type="gxl",
        downsample_rate=4,
        speech_token_num=4097,
        train_speech_out=True,
    )


def batch_of(utterances: list[dict[str, Any]], eos: int) -> dict[str, Any]:
    """Utterances as OSUM's loader batches them: everything padded on the right, the answer with its end."""
    import torch

    def ids(rows: list[Any]) -> tuple[Any, Any]:
        lengths = torch.tensor([len(r) for r in rows])
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1), lengths

    feats = torch.nn.utils.rnn.pad_sequence([u["feats"] for u in utterances], batch_first=True)
    prompt, prompt_lengths = ids([u["prompt"] for u in utterances])
    end = torch.tensor([eos])
    target, target_lengths = ids([torch.cat([u["answer"], end]) for u in utterances])
    return {
        "output_type": "text",
        "feats": feats,
        "feats_lengths": torch.tensor([len(u["feats"]) for u in utterances]),
        **{"prompt": prompt, "prompt_lengths": prompt_lengths},
        **{"target": target, "target_lengths": target_lengths},
    }


def dynamic(lengths: list[int], most: int) -> list[list[int]]:
    """The batches of OSUM's loader over a list sorted by length: as many as fit ``most`` padded frames."""
    batches: list[list[int]] = [[]]
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batches[-1] and lengths[i] * (len(batches[-1]) + 1) > most:
            batches.append([])
        batches[-1].append(i)
    return batches
