"""One thread a test process: the machines that run the tests have few cores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import LLM, build, stage2_config
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

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
