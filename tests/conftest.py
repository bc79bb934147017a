"""One thread a test process: the machines that run the tests have few cores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import LLM, build, stage2_config

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained language model's folder, as Hugging Face writes it (60 words)."""
    folder = tmp_path_factory.mktemp("llm")
    build(stage2_config(decoder_conf={"llm_config": LLM})).decoder.causal_lm.save_pretrained(folder)
    return folder
