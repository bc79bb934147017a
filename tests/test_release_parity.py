"""OSUM's released layout gives here what an independent implementation computes from its raw keys."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import command, one_error_line
from osum_reference import CAUSAL_LM, EOS, LLM, release_state, write_reference
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from wenet_osum.bin import compare_reference, convert
from wenet_osum.bin.compare_reference import compare, read_reference
from wenet_osum.checkpoint.files import read_hf_folder, read_json
from wenet_osum.checkpoint.folder import read_folder
from wenet_osum.checkpoint.weights import load_checkpoint, read_state
from wenet_osum.registry import init_model
from wenet_osum.text import init_tokenizer


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    write_reference(folder, release_state())
    return folder


def options(folder: Path, checkpoint: Path | None = None) -> list[str]:
    checkpoint = checkpoint or folder / "x.pt"
    return ["--checkpoint", str(checkpoint), "--reference", f"{folder}/x.npz", "--spec", f"{folder}/x.json"]


def from_osum(tmp_path: Path, state: dict[str, Tensor], *more: str) -> list[str]:
    """Arguments of ``osum convert`` for a state dict."""
    torch.save(state, tmp_path / "infer.pt")
    (tmp_path / "llm.json").write_text(json.dumps(LLM), encoding="utf-8")
    sizes = ["--llm-config", f"{tmp_path}/llm.json", "--eos-id", str(EOS), "--encoder-heads", "2"]
    return [
        "--from",
        "osum",
        f"{tmp_path}/infer.pt",
        f"{tmp_path}/model",
        *sizes,
        "--lora-alpha",
        "12",
        *more,
    ]


def old_spelling(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As peft before 0.7 names the matrices under LoRA."""
    return {k.replace(".base_layer.", "."): t for k, t in state.items()}


def test_release_parity_holds(reference: Path, capsys):
    assert compare_reference.main(options(reference)) == 0
    lines = capsys.readouterr().out.splitlines()
    arrays = [
        f"{k}.{n}"
        for k in range(3)
        for n in ("encoder_out", "speech_embeds", "loss", "next_logits", "greedy")
    ]
    assert [line.split()[0] for line in lines[1:-2]] == arrays
    assert all(float(v) < 1e-4 for line in lines[1:-2] for v in line.split()[1:])
    assert lines[-1] == "the same"


def test_release_parity_holds_in_pefts_older_spelling(reference: Path, tmp_path: Path, capsys):
    torch.save(old_spelling(release_state()), tmp_path / "x.pt")
    assert compare_reference.main(options(reference, tmp_path / "x.pt")) == 0


def live_keys() -> list[str]:
    dead = ("ln_speech.", "speaker_head.", "embed_tokens.", "lm_head.")
    return [k for k in release_state() if not k.startswith(dead)]


@pytest.mark.slow
def test_release_parity_fails_for_every_perturbed_tensor(reference: Path, tmp_path: Path):
    """One tensor a time. A bias of attention keys, without rotary positions behind it, adds the same to all
    scores of a query: no output can depend on it, and only the copy of it can be checked."""
    utterances, spec = read_reference(f"{reference}/x.npz")[1:2], read_json(reference / "x.json")
    unseen = []
    for key in live_keys():
        state = release_state()
        state[key] += 0.1 * torch.randn(state[key].shape, generator=torch.Generator().manual_seed(1))
        convert.main(from_osum(tmp_path, state))
        table = compare(tmp_path / "model", utterances, spec)
        if max(v for values in table.values() for v in values) <= 1e-4:
            unseen.append(key)
        shutil.rmtree(tmp_path / "model")
    assert unseen == ["speech_transformer.encoders.0.self_attn.linear_k.bias"]


def test_release_parity_exit_status_for_a_perturbed_tensor(reference: Path, tmp_path: Path, capsys):
    state = release_state()
    state["down_sample_2.conv.4.bias"] += 0.1
    torch.save(state, tmp_path / "x.pt")
    assert command(compare_reference.main, *options(reference, tmp_path / "x.pt")) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "NOT the same"


def test_release_parity_fails_for_another_greedy_token(reference: Path, tmp_path: Path):
    arrays = dict(np.load(reference / "x.npz"))
    arrays["1.greedy"] = arrays["1.greedy"] ^ np.array([0, 1] + [0] * (len(arrays["1.greedy"]) - 2))
    for name in ("x.pt", "x.json"):
        (tmp_path / name).write_bytes((reference / name).read_bytes())
    np.savez(tmp_path / "x.npz", **arrays)
    assert command(compare_reference.main, *options(tmp_path)) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_release_parity_every_tensor_comes_back_bit_for_bit(tmp_path: Path, capsys, dtype: torch.dtype):
    state = {k: t.to(dtype) for k, t in release_state().items()}
    convert.main(from_osum(tmp_path, state))
    convert.main(["--to", "osum", f"{tmp_path}/model", f"{tmp_path}/back.pt", "--speech-token-num", "5"])
    back = read_state(tmp_path / "back.pt")
    assert set(back) == set(state)
    for key in [*live_keys(), "embed_tokens.weight", "lm_head.weight"]:
        rows = slice(-2, None) if key == "speech_token_emded.weight" else slice(None)
        assert back[key].dtype == dtype and torch.equal(back[key][rows], state[key][rows]), key
        assert back[key].shape == state[key].shape


def test_what_is_dropped_is_named(tmp_path: Path, capsys):
    convert.main(from_osum(tmp_path, release_state()))
    told = capsys.readouterr().err
    for key in ("embed_tokens.weight", "lm_head.weight", "ln_speech.bias", "speaker_head.weight"):
        assert f"{key}: dropped" in told
    assert "speech_token_emded.weight: rows before 5 dropped" in told


def test_lora_and_llm_are_read_by_peft_and_transformers(tmp_path: Path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    state = release_state()
    convert.main(from_osum(tmp_path, state))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model" / "llm")
    theirs = PeftModel.from_pretrained(base, str(tmp_path / "model" / "lora")).state_dict()
    for key, tensor in state.items():
        if key.startswith("llama_model."):
            assert torch.equal(theirs[key.removeprefix("llama_model.")], tensor), key


def changed(**changes: Any) -> dict[str, Tensor]:
    """The state dict with keys replaced (``__`` for a dot), or taken out where None."""
    state = {**release_state(), **{k.replace("__", "."): t for k, t in changes.items()}}
    return {k: t for k, t in state.items() if t is not None}


Q_PROJ = CAUSAL_LM + "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (changed(encoder__after_norm__bias=None), "the first is encoder.after_norm.bias"),
        (changed(speech_llama_proj__bias=None), "the first is speech_llama_proj.bias"),
        (
            changed(**{f"{Q_PROJ}.lora_B.default.weight": None}),
            f"the first is {Q_PROJ}.lora_B.default.weight",
        ),
        (changed(encoder__after_norm__weight=None), "encoder.after_norm.weight is missing"),
        (changed(down_sample_2__bn2__weight=torch.ones(3)), "down_sample_2.bn2.weight is not in this model"),
        (changed(talker__weight=torch.ones(3)), "talker.weight is left over"),
        (changed(speech_llama_proj__weight=torch.ones(24, 17)), "speech_llama_proj.weight is (24, 17)"),
        (
            changed(encoder__embed__pos_enc__pe=torch.ones(1, 60, 15)),
            "encoder.embed.pos_enc.pe is (1, 60, 15)",
        ),
        (changed(lm_head__weight=torch.ones(50, 24)), "lm_head.weight differs from"),
        (changed(encoder__after_norm__bias=torch.ones(16, dtype=torch.int32)), "of type torch.int32"),
        (changed(**{f"{Q_PROJ}.weight": torch.ones(24, 24)}), "in both spellings"),
        ({k: t for k, t in release_state().items() if "lora_" not in k}, "no LoRA weights"),
        ({"state_dict": release_state()}, "not a flat state dict"),
    ],
)
def test_bad_input_release_file(tmp_path: Path, capsys, state, line):
    assert command(convert.main, *from_osum(tmp_path, state)) == 1
    assert line in one_error_line(capsys.readouterr().err)
    assert not (tmp_path / "model").exists() and not list(tmp_path.glob(".model*"))


def test_llm_by_reference(tmp_path: Path, capsys):
    state = release_state()
    convert.main(from_osum(tmp_path, state))
    llm = tmp_path / "qwen"
    (tmp_path / "model" / "llm").rename(llm)
    before = read_folder(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / "first")
    assert command(convert.main, *from_osum(tmp_path, state, "--llm", str(llm))) == 0
    assert not (tmp_path / "model" / "llm").exists()
    assert str(llm) in (tmp_path / "model" / "config.yaml").read_text(encoding="utf-8")
    assert all(torch.equal(t, before[n]) for n, t in read_folder(tmp_path / "model").items())
    (tmp_path / "model").rename(tmp_path / "second")
    state[CAUSAL_LM + "model.norm.weight"] = state[CAUSAL_LM + "model.norm.weight"] + 0.01
    assert command(convert.main, *from_osum(tmp_path, state, "--llm", str(llm))) == 1
    assert "has another model.norm.weight" in one_error_line(capsys.readouterr().err)
    assert command(convert.main, *from_osum(tmp_path, release_state(), "--llm", "Qwen/Qwen2-7B")) == 0
    assert "were not compared" in capsys.readouterr().err


def test_tokenizer_goes_along(tmp_path: Path, capsys, hf_folder: Path):
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(EOS)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|endoftext|>").save_pretrained(
        tmp_path / "words"
    )
    convert.main(from_osum(tmp_path, release_state(), "--tokenizer", f"{tmp_path}/words"))
    (tmp_path / "words").rename(tmp_path / "gone")
    configs = convert.read_config(f"{tmp_path}/model")
    assert init_tokenizer(configs).encode("w7") == [7] and configs["vocab_size"] == EOS + 1
    load_checkpoint(init_model(configs), tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / "first")
    for more, line in (
        (["--tokenizer", str(hf_folder)], "--tokenizer: needs 257 ids, the LLM has 50"),
        (["--eos-id", "50"], "--eos-id: needs 51 ids"),
        (["--tokenizer", f"{tmp_path}/first/lora"], "no tokenizer could be loaded"),
    ):
        assert command(convert.main, *from_osum(tmp_path, release_state(), *more)) == 1
        assert line in one_error_line(capsys.readouterr().err)
        assert not (tmp_path / "model").exists()


def test_sharded_llm(tmp_path: Path, monkeypatch, reference: Path, capsys):
    monkeypatch.setattr("wenet_osum.checkpoint.llm_folder.SHARD_SIZE", 9000)
    convert.main(from_osum(tmp_path, release_state()))
    shards = sorted((tmp_path / "model" / "llm").glob("*.safetensors"))
    assert len(shards) > 2 and shards[-1].name == f"model-{len(shards):05}-of-{len(shards):05}.safetensors"
    state = release_state()
    for name, tensor in read_hf_folder(tmp_path / "model" / "llm").items():
        assert any(
            torch.equal(tensor, t) for k, t in state.items() if k.replace(".base_layer", "").endswith(name)
        )
    assert compare_reference.main(options(reference)) == 0
