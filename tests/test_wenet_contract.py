"""Every registry entry, called as WeNet's own programs call theirs (``wenet/utils/init_model.py``,
``executor.py``, ``bin/recognize.py``): the stand-in below keeps their convention, without WeNet."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ADAPTER_CONFS, ENCODER, LLM, stage1_config, stage2_config, write_units
from torch import nn

from wenet_osum.models.prompts import Prompts
from wenet_osum.registry import ADAPTERS, CTCS, DECODERS, ENCODERS, MODELS, TOKENIZERS, load_models
from wenet_osum.tasks import load_tasks
from wenet_osum.text.base import BaseTokenizer

load_models()
VOCAB, BINS = 60, 80
CONFS: dict[str, dict[str, Any]] = {
    "whisper_osum": ENCODER,
    "llm": {"llm_config": LLM},
    "whisper": {"attention_heads": 2, "linear_units": 48, "num_blocks": 2, "dropout_rate": 0.0},
}


class Ids:
    """A tokenizer that knows letters."""

    def encode(self, text: str) -> list[int]:
        return [4 + ord(c) % 50 for c in text[:6]]


def build_as_wenet(config: dict[str, Any]) -> nn.Module:
    """The last branch of WeNet's ``init_speech_model``, from plain tables of classes."""
    encoder = ENCODERS[config["encoder"]](BINS, global_cmvn=None, **config["encoder_conf"])
    decoder = DECODERS[config["decoder"]](VOCAB, encoder.output_size(), **config["decoder_conf"])
    ctc = CTCS[config["ctc"]](VOCAB, encoder.output_size(), blank_id=0)
    model = MODELS[config["model"]](
        vocab_size=VOCAB,
        encoder=encoder,
        decoder=decoder,
        ctc=ctc,
        special_tokens={"eos": 2, "sos": 1},
        **config["model_conf"],
    )
    model.prompts = Prompts(load_tasks(), Ids().encode, {"style": "words", "lang": "auto", "number": 2})
    return model


def wenet_batch() -> dict[str, Any]:
    """What WeNet's ``padding`` makes: longest first, int32 lengths, targets padded with -1, pcm beside."""
    lengths = torch.tensor([120, 90, 40], dtype=torch.int32)
    target = torch.tensor([[5, 6, 7, 8], [9, 10, -1, -1], [11, -1, -1, -1]])
    return {
        "keys": ["a", "b", "c"],
        "feats": torch.randn(3, 120, BINS),
        "target": target,
        "feats_lengths": lengths,
        "target_lengths": (target != -1).sum(1).int(),
        "pcm": torch.zeros(3, 19200),
        "pcm_length": lengths * 160,
        "langs": ["en", "zh", "en"],
        "tasks": ["transcribe", "asr", "<TRANSCRIBE> <EMOTION>"],
    }


STAGES = pytest.mark.parametrize(
    "config",
    [
        stage1_config(),
        stage2_config(),
        stage2_config(ctc="none"),
        stage2_config(ctc="words"),
        stage2_config(decoder_conf={"llm_config": LLM, "lora": {}}),
    ],
    ids=["whisper_multitask", "osum", "osum without CTC", "osum with CTC over words", "osum with LoRA"],
)


def test_wenet_contract_of_every_table_is_covered():
    """A new entry must be added to this file."""
    assert set(ENCODERS) | set(DECODERS) == set(CONFS)
    assert set(ADAPTERS) == set(ADAPTER_CONFS)
    assert (set(CTCS), set(MODELS)) == ({"ctc", "none", "words"}, {"osum", "whisper_multitask"})
    for table in (ENCODERS, DECODERS, ADAPTERS, CTCS, MODELS, TOKENIZERS):
        assert all(inspect.isclass(cls) for cls in table.values())  # FSDP asks isinstance


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_wenet_contract_of_encoders(name: str):
    encoder = ENCODERS[name](BINS, global_cmvn=None, **CONFS[name]).eval()
    out, mask = encoder(torch.randn(2, 50, BINS), torch.tensor([50, 30], dtype=torch.int32), -1, -1)
    assert out.shape == (2, mask.size(2), encoder.output_size())
    assert mask.dtype == torch.bool and mask.shape[:2] == (2, 1)
    assert isinstance(encoder.gradient_checkpointing, bool)  # DDP asks it about unused parameters


@STAGES
def test_wenet_contract_of_a_training_step(config: dict[str, Any]):
    model = build_as_wenet(config).train()
    loss_dict = model(wenet_batch(), torch.device("cpu"))
    assert loss_dict["loss"].dim() == 0 and torch.isfinite(loss_dict["loss"])
    loss_dict["loss"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    for value in loss_dict.values():  # WeNet's executor takes .item() of all that is not None
        assert value is None or isinstance(value.item(), (int, float))
    model.eval()
    with torch.no_grad():
        dev = model(wenet_batch(), torch.device("cpu"))
    for name, value in dev.items():  # and sums what is called a loss if it is finite
        assert "loss" not in name or value is None or bool(torch.isfinite(value))
    assert 0 <= dev["th_accuracy"].item() <= 1


@STAGES
def test_wenet_contract_of_decode(config: dict[str, Any]):
    model, batch = build_as_wenet(config).eval(), wenet_batch()
    mode = model.modes[0]
    results = model.decode(
        [mode],
        batch["feats"],
        batch["feats_lengths"],
        10,
        decoding_chunk_size=-1,
        num_decoding_left_chunks=-1,
        ctc_weight=0.3,
        simulate_streaming=False,
        reverse_weight=0.5,
        context_graph=None,
        blank_id=0,
        blank_penalty=0.0,
        length_penalty=0.0,
        infos={"tasks": batch["tasks"], "langs": batch["langs"]},
    )
    assert list(results) == [mode] and len(results[mode]) == 3
    for hypothesis in results[mode]:
        assert all(isinstance(token, int) for token in hypothesis.tokens)


@STAGES
def test_wenet_contract_of_averaging(config: dict[str, Any]):
    """WeNet's ``average_model.py`` clones, adds and divides every tensor."""
    model = build_as_wenet(config)
    mean = {}
    for name, tensor in model.state_dict().items():
        mean[name] = torch.true_divide(tensor.clone() + tensor, 2)
    model.load_state_dict(mean, strict=False)


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_wenet_contract_of_tokenizers(name: str, tmp_path: Path, hf_folder: Path):
    if name == "char":
        tokenizer = TOKENIZERS[name](write_units(tmp_path / "units.txt"))
    elif name == "huggingface":
        tokenizer = TOKENIZERS[name](hf_folder)
    else:
        import io

        import sentencepiece

        model = io.BytesIO()
        sentences = iter(["good morning", "open the door", "where is my blue hat"] * 9)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences, model_writer=model, vocab_size=40, hard_vocab_limit=False
        )
        (tmp_path / "m.model").write_bytes(model.getvalue())
        tokenizer = TOKENIZERS[name](tmp_path / "m.model")
    assert isinstance(tokenizer, BaseTokenizer)
    tokenizer = pickle.loads(pickle.dumps(tokenizer))  # it goes into data workers
    tokens, ids = tokenizer.tokenize("open the door")
    assert len(tokens) == len(ids) and all(0 <= i < tokenizer.vocab_size() for i in ids)
    assert tokenizer.detokenize(ids)[0] == "open the door"
    assert isinstance(tokenizer.symbol_table, dict)
    assert tokenizer.encode("open the door") == ids
