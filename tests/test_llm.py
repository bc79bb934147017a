"""Pretrained language models: any causal LM's folder, number types, 4 and 8 bits, what cannot be loaded."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import LLM, build, random_batch, stage2_config
from safetensors.torch import load_file, save_file

from wenet_osum.checkpoint.llm_folder import write_safetensors
from wenet_osum.checkpoint.weights import load_checkpoint, read_state, save_checkpoint
from wenet_osum.errors import OsumError
from wenet_osum.text.hugging_face import HuggingFaceTokenizer
from wenet_osum.train.optim import build_optimizer

CPU = torch.device("cpu")
OPTIM = {"lr": 1e-3, "betas": [0.9, 0.99], "eps": 1e-6, "weight_decay": 0.0, "lr_scale": {}}
# SmolLM2 is a Llama with tied embeddings and 3 query heads a key head; Qwen3 has head_dim and norms of its own.
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2": {**LLM},
    "qwen3": {**LLM, "model_type": "qwen3", "head_dim": 24},
    "llama": {**LLM, "model_type": "llama", "rope_theta": 500000.0},
    "smollm2": {
        **{**LLM, "model_type": "llama", "hidden_size": 36, "num_attention_heads": 3},
        **{"tie_word_embeddings": True, "rope_theta": 100000.0},
    },
}


def decoder(**conf: Any) -> Any:
    return build(stage2_config(decoder_conf=conf)).decoder


def llm_folder_of(
    shape: dict[str, Any], folder: Path, dtype: torch.dtype = torch.float32, **save: Any
) -> Any:
    """A folder as Hugging Face writes it, and the model in it."""
    model = build(stage2_config(decoder_conf={"llm_config": shape}), seed=5, scale=3).decoder.causal_lm
    model.to(dtype).save_pretrained(folder, **save)
    return model


@pytest.mark.parametrize("size", ["5GB", "20KB"])
@pytest.mark.parametrize("name", SHAPES)
def test_any_causal_lm_loads_from_its_folder(tmp_path: Path, name: str, size: str):
    theirs = llm_folder_of(SHAPES[name], tmp_path, max_shard_size=size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (size == "20KB")
    conf = {"llm": str(tmp_path), "llm_config": SHAPES[name]}
    model = build(stage2_config(decoder_conf=conf))
    ids = torch.randint(0, 60, (1, 7))
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits
        got = model.decoder.causal_lm(inputs_embeds=model.decoder.embed(ids)).logits
    assert torch.equal(got, expected) and float(expected.std()) > 0.01
    assert torch.isfinite(model(random_batch([40, 70]), CPU)["loss"])


@pytest.mark.parametrize(
    ("asked", "stored", "got"),
    [("auto", "bfloat16", "bfloat16"), ("fp32", "bfloat16", "float32"), ("fp16", "float32", "float16")],
)
def test_number_type_is_kept_or_chosen(tmp_path: Path, asked: str, stored: str, got: str):
    llm_folder_of(LLM, tmp_path, getattr(torch, stored))
    model = build(stage2_config(decoder_conf={"llm": str(tmp_path), "dtype": asked, "lora": {}}))
    types = {n: p.dtype for n, p in model.named_parameters()}
    assert {t for n, t in types.items() if n.startswith("decoder.") and "lora_" not in n} == {
        getattr(torch, got)
    }
    assert {t for n, t in types.items() if not n.startswith("decoder.") or "lora_" in n} == {torch.float32}
    model.train()(random_batch([40, 60]), CPU)["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.decoder.lora_parameters())
    batch = random_batch([40, 60])
    answers = model.eval().decode(
        ["llm_greedy"], batch["feats"], batch["feats_lengths"], infos={"prompt": batch["prompt"]}
    )
    assert len(answers["llm_greedy"]) == 2


@torch.no_grad()
def test_half_precision_llm_is_close_to_the_whole(tmp_path: Path):
    llm_folder_of(LLM, tmp_path)
    losses = [
        float(
            build(stage2_config(decoder_conf={"llm": str(tmp_path), "dtype": d}))(
                random_batch([40, 60]), CPU
            )["loss"]
        )
        for d in ("fp32", "bf16")
    ]
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.02)


def test_bad_input_learning_in_half_precision(tmp_path: Path):
    llm_folder_of(LLM, tmp_path, torch.bfloat16)
    model = build(stage2_config(decoder_conf={"llm": str(tmp_path)}))
    with pytest.raises(OsumError, match=r"decoder_conf\.dtype: llm would learn in half precision"):
        build_optimizer(model, "adamw", OPTIM)
    model.set_trainable(["adapter"])
    build_optimizer(model, "adamw", OPTIM)


def test_meta_device_has_the_shape_without_weights(tmp_path: Path):
    """``osum info`` builds a model whose language model is out of reach."""
    llm_folder_of(LLM, tmp_path)
    with torch.device("meta"):
        model = build(
            stage2_config(decoder_conf={"llm": "nobody/nowhere", "llm_config": LLM, "dtype": "bf16"})
        )
        alone = build(stage2_config(decoder_conf={"llm": str(tmp_path)}))
    assert all(p.is_meta for p in model.parameters())
    assert next(model.decoder.causal_lm.parameters()).dtype == torch.bfloat16
    assert sum(p.numel() for p in alone.parameters()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": 64}, r"llm_config\.hidden_size: is 64, .* has 32"),
        ({"model_type": "llama"}, r"llm_config\.model_type: is 'llama', .* has 'qwen2'"),
        ({"rope_theta": 7.0}, r"llm_config\.rope_theta: is .*7\.0"),
    ],
)
def test_bad_input_shape_that_is_not_the_folders(tmp_path: Path, change: dict[str, Any], words: str):
    llm_folder_of(LLM, tmp_path)
    with pytest.raises(OsumError, match=words):
        decoder(llm=str(tmp_path), llm_config={**LLM, "vocab_size": 60, **change})


@pytest.mark.parametrize(
    ("name", "change"), [("llama", {"num_attention_heads": 3}), ("qwen2", {"hidden_size": "wide"})]
)
def test_bad_input_shape_that_cannot_be(tmp_path: Path, name: str, change: dict[str, Any]):
    llm_folder_of({**LLM, "model_type": name}, tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    for conf in ({"llm_config": {**LLM, "model_type": name, **change}}, {"llm": str(tmp_path)}):
        with pytest.raises(OsumError, match=r"decoder_conf\.llm") as e:
            decoder(**conf)
        assert "\n" not in str(e.value)


def test_bad_input_folder_without_a_weight(tmp_path: Path):
    """transformers would fill it with random numbers and a warning."""
    llm_folder_of(LLM, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({k: t for k, t in state.items() if k != name}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(OsumError, match=rf"decoder_conf\.llm: .* lacks {name}"):
        decoder(llm=str(tmp_path))


def test_untrusted_file_language_model_of_another_shape(tmp_path: Path):
    llm_folder_of(LLM, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["model.norm.weight"] = torch.ones(33)
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(OsumError, match=r"decoder_conf\.llm: .* cannot be loaded") as e:
        decoder(llm=str(tmp_path))
    assert "\n" not in str(e.value)


def test_bad_input_hub_that_cannot_be_reached():
    """A process whose hub is a closed port: one line, soon, for the model as for the tokenizer."""
    code = (
        "import time; start = time.monotonic()\n"
        "from wenet_osum.errors import OsumError\n"
        "from wenet_osum.models.llm import build_llm\n"
        "from wenet_osum.text.hugging_face import HuggingFaceTokenizer\n"
        "for go in (lambda: build_llm('someone/llm', None, 9, 'auto', 'none', 'sdpa'),\n"
        "           lambda: HuggingFaceTokenizer('someone/llm').encode('a')):\n"
        "    try: go()\n"
        "    except OsumError as e: print(e)\n"
    )
    env = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and "Traceback" not in done.stderr, done.stderr
    for line, key in zip(lines, ("decoder_conf.llm", "tokenizer_conf.model_path")):
        assert line.startswith(f"{key}: 'someone/llm' is no local folder and could not be fetched")
        assert "hf download someone/llm" in line


def test_bad_input_tokenizer_out_of_reach(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OsumError, match=r"tokenizer_conf\.model_path: 'someone/llm' is no local folder"):
        HuggingFaceTokenizer("someone/llm").encode("a")


# --- 4 and 8 bits ---


def test_bad_input_quant(llm_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if not installed
    words = r"decoder_conf\.quant: 4bit: bitsandbytes is not installed; pip install wenet_osum\[quant\]"
    with pytest.raises(OsumError, match=words):
        decoder(llm=str(llm_folder), lora={}, quant="4bit")
    with pytest.raises(OsumError, match="stays frozen"):
        decoder(llm=str(llm_folder), quant="4bit")
    with pytest.raises(OsumError, match="pretrained weights"):
        decoder(llm_config=LLM, lora={}, quant="8bit")
    with pytest.raises(OsumError, match=r"decoder_conf\.quant: is '2bit'"):
        decoder(llm=str(llm_folder), lora={}, quant="2bit")
    with pytest.raises(OsumError, match=r"decoder_conf\.dtype: is 'fp8'"):
        decoder(llm=str(llm_folder), dtype="fp8")


def test_bad_input_quant_without_a_device_for_it(llm_folder: Path, monkeypatch: pytest.MonkeyPatch):
    def none(raise_exception: bool) -> None:
        raise RuntimeError("None of the available devices\nare supported")

    installed = types.SimpleNamespace(import_module=lambda name: None)
    monkeypatch.setattr("wenet_osum.models.llm.importlib", installed)
    monkeypatch.setattr("transformers.integrations.validate_bnb_backend_availability", none)
    with pytest.raises(
        OsumError, match=r"decoder_conf\.quant: 8bit: bitsandbytes supports no device here"
    ) as e:
        decoder(llm=str(llm_folder), lora={}, quant="8bit")
    assert "\n" not in str(e.value)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="pip install wenet_osum[quant]")
@pytest.mark.parametrize("quant", ["4bit", "8bit"])
def test_quantised_llm_learns_by_lora_and_is_not_written(tmp_path: Path, quant: str):
    wide = {**LLM, "hidden_size": 128, "intermediate_size": 256, "num_key_value_heads": 2}
    llm_folder_of(wide, tmp_path / "llm")
    conf = {"llm": str(tmp_path / "llm"), "lora": {"r": 4}, "quant": quant, "dtype": "bf16"}
    model = build(stage2_config(decoder_conf=conf)).train()
    optimizer = build_optimizer(model, "adamw", OPTIM)
    for _ in range(2):
        optimizer.zero_grad()
        model(random_batch([50, 70]), CPU)["loss"].backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.decoder.lora_parameters())
    save_checkpoint(model, tmp_path / "a.pt", {})
    assert all("lora_" in n for n in read_state(tmp_path / "a.pt") if n.startswith("decoder."))
    other = build(stage2_config(decoder_conf=conf), seed=9)
    load_checkpoint(other, tmp_path / "a.pt")
    batch = random_batch([40, 60])
    a, b = (float(m.eval()(batch, CPU)["loss"].detach()) for m in (model, other))
    whole = build(stage2_config(decoder_conf={**conf, "quant": "none", "dtype": "fp32"}))
    load_checkpoint(whole, tmp_path / "a.pt")
    assert a == b and a == pytest.approx(float(whole(batch, CPU)["loss"].detach()), rel=0.1)
    with pytest.raises(OsumError, match="4 or 8 bits"):
        model.set_trainable(["llm"])


def test_weights_may_be_read_by_who_may_read_the_files_beside_them(tmp_path: Path):
    (tmp_path / "config.json").touch()
    write_safetensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode
