"""Looking parts up by name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from helpers import stage2_config
from torch import nn

from wenet_osum import registry
from wenet_osum.errors import OsumError
from wenet_osum.registry import ADAPTERS, CTCS, DECODERS, ENCODERS, MODELS, Registry, init_model


class Part:
    def __init__(self, size: int, depth: int, width: int = 3):
        self.size, self.depth, self.width = size, depth, width


@pytest.fixture
def parts() -> Registry:
    table = Registry("part")
    table.register("plain")(Part)
    return table


def test_build_passes_positional_and_conf(parts: Registry):
    part = parts.build("plain", 1, conf={"depth": 2})
    assert (part.size, part.depth, part.width) == (1, 2, 3)
    assert parts.build("plain", 1, depth=5).depth == 5


def test_bad_input_unknown_name_lists_the_known(parts: Registry):
    with pytest.raises(OsumError, match=r"part: unknown name 'fancy'; choose one of plain"):
        parts.build("fancy", 1)


@pytest.mark.parametrize("conf", [{"heigth": 2}, {"size": 2}])
def test_bad_input_key_the_class_does_not_take(parts: Registry, conf: dict[str, int]):
    with pytest.raises(OsumError, match=f"part_conf.{next(iter(conf))}"):
        parts.build("plain", 1, conf=conf)


def test_bad_input_required_key_is_named(parts: Registry):
    with pytest.raises(OsumError, match="part_conf: .*'depth'"):
        parts.build("plain", 1)


def test_a_fault_inside_a_class_is_no_user_error():
    class Faulty:
        def __init__(self) -> None:
            raise TypeError("a fault of ours")

    table = Registry("part")
    table.register("faulty")(Faulty)
    with pytest.raises(TypeError, match="ours"):
        table.build("faulty")


def test_a_name_is_taken_once(parts: Registry):
    parts.register("plain")(Part)  # the same class again: a module imported twice
    with pytest.raises(ValueError, match="twice"):
        parts.register("plain")(int)


def test_entries_are_classes_of_modules():
    registry.load_models()
    for table in (ENCODERS, ADAPTERS, DECODERS, CTCS, MODELS):
        assert table
        for cls in table.values():
            assert inspect.isclass(cls) and issubclass(cls, nn.Module)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"encoder": "conformer"}, "encoder"),
        ({"encoder_conf": {"num_block": 2}}, "encoder_conf.num_block"),
        ({"encoder_conf": {"output_size": 64, "attention_heads": 5}}, "encoder"),
        ({"decoder_conf": {"llm_config": {"model_type": "no_such"}}}, "llm_config.model_type"),
        ({"decoder_conf": {"llm_config": {"model_type": "qwen2", "hiden_size": 8}}}, "llm_config.hiden_size"),
        ({"decoder_conf": {}}, "decoder_conf"),
        ({"model_conf": {"adapter": "fancy"}}, "adapter"),
        ({"model_conf": {"adapter_conf": {"stride": 2}}}, "adapter_conf.stride"),
        ({"model_conf": {"trainable": ["lorra"]}}, "trainable"),
        ({"model_conf": {"ctc_weight": 0.3}, "ctc": "none"}, "ctc_weight"),
        ({"ctc_conf": {"dropout": 1}}, "ctc_conf.dropout"),
        ({"tokenizer_conf": {}}, "special_tokens"),
    ],
)
def test_bad_input_model_config(changes: dict[str, Any], where: str):
    configs = {"input_dim": 80, "vocab_size": 20, "tokenizer_conf": {"special_tokens": {"eos": 2}}}
    with pytest.raises(OsumError, match=where):
        init_model({**configs, **stage2_config(), **changes})
