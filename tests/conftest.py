"""One thread a test process: the machines that run the tests have few cores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import LLM, build, run_config, stage2_config
from served import write_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from wenet_stand_in import write_wenet

from wenet_osum.wenet import register

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained language model's folder, as Hugging Face writes it (60 words)."""
    folder = tmp_path_factory.mktemp("llm")
    build(stage2_config(decoder_conf={"llm_config": LLM})).decoder.causal_lm.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def hf_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer such as Qwen's, without merges: 256 bytes and the end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("hf")
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a server in a process of its own is tried on; see ``write_model``."""
    folder = tmp_path_factory.mktemp("here")
    write_model(folder)
    return folder


@pytest.fixture
def no_other_wenet(monkeypatch: pytest.MonkeyPatch):
    """Each test has the WeNet package it writes, and leaves none behind."""
    monkeypatch.delenv("WENET_DIR", raising=False)
    monkeypatch.setattr(register, "_installed", [])
    before = {name: m for name, m in sys.modules.items() if name.partition(".")[0] == "wenet"}
    for name in before:
        del sys.modules[name]
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] == "wenet"]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def wenet(no_other_wenet: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(write_wenet(tmp_path / "checkout")))
    return tmp_path


@pytest.fixture
def plugin(wenet: Path) -> register.Plugin:
    register.register()
    return register._installed[0]


@pytest.fixture
def configs(tmp_path: Path) -> dict[str, Any]:
    """What WeNet has read of a YAML of ours."""
    path = run_config(
        tmp_path, stage2_config(model_conf={**stage2_config()["model_conf"], "ctc_weight": 0.3})
    )
    configs: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return configs
