"""Exported to Hugging Face: transformers loads it, and it says what our own decoder says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ADAPTER_CONFS, LLM, command, one_error_line, run_config, stage2_config, write_wav
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wenet_osum.bin import convert
from wenet_osum.checkpoint.weights import save_checkpoint
from wenet_osum.config import load_config, save_config
from wenet_osum.dataset.audio import load_audio
from wenet_osum.dataset.features import log_mel_spectrogram
from wenet_osum.registry import init_model
from wenet_osum.tasks import load_tasks

SECONDS = (0.83, 0.36, 1.29)
# A process that knows wenet_osum by its import only.
SCRIPT = """
import json, sys
import torch
import wenet_osum.hf
from transformers import AutoConfig, AutoModel, AutoProcessor

folder, wavs = sys.argv[1], sys.argv[2:]
model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
out = {"classes": [type(x).__name__ for x in (AutoConfig.from_pretrained(folder), model, processor)], "rows": []}
for batch in [wavs, *([w] for w in wavs)]:
    inputs = processor.apply_transcription_request(batch, language="en")
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=12)[:, inputs["input_ids"].shape[1] :]
    out["rows"] += [[t for t in row if t != model.generation_config.eos_token_id] for row in ids.tolist()]
    out.setdefault("texts", processor.batch_decode(ids))
print(json.dumps(out))
"""


def model_folder(folder: Path, tokenizer: Path, adapter: str = "osum", **llm: Any) -> Path:
    """A random model with LoRA that counts, and big enough weights to have something to say."""
    folder.mkdir()
    config = stage2_config(
        model_conf={"adapter": adapter, "adapter_conf": ADAPTER_CONFS[adapter], "max_new_tokens": 12},
        decoder_conf={"llm_config": {**LLM, "vocab_size": 257, **llm}, "lora": {"r": 4}},
        ctc="none",
    )
    configs = load_config(run_config(folder, config))
    configs["tokenizer"] = "huggingface"
    configs["tokenizer_conf"] = {"model_path": str(tokenizer), "special_tokens": {"eos": 256, "sos": 256}}
    configs.update(vocab_size=257, output_dim=257)
    save_config(configs, folder / "train.yaml")
    torch.manual_seed(3)
    model = init_model(configs).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(4)
        for p in model.decoder.lora_parameters():
            p.normal_(std=0.2)
    save_checkpoint(model, folder / "final.pt", {})
    convert.main(["--from", "train", f"{folder}/final.pt", f"{folder}/model"])
    return folder / "model"


def our_answers(folder: Path, wavs: list[Path]) -> list[list[int]]:
    from wenet_osum.checkpoint.weights import load_checkpoint
    from wenet_osum.text import init_tokenizer

    configs = convert.read_config(str(folder))
    model = init_model(configs).eval()
    load_checkpoint(model, folder)
    feats = [log_mel_spectrogram(load_audio(str(w))) for w in wavs]
    prompt = torch.tensor(init_tokenizer(configs).encode(load_tasks()["asr"].prompt("en", 0)))
    lengths = torch.tensor([len(f) for f in feats])
    infos = {"prompt": prompt.expand(len(wavs), -1)}
    results = model.decode(["llm_greedy"], pad_sequence(feats, batch_first=True), lengths, infos=infos)
    return [r.tokens for r in results["llm_greedy"]]


@pytest.fixture(scope="module")
def wavs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("wavs")
    return [write_wav(folder / f"{i}.wav", s, seed=i) for i, s in enumerate(SECONDS)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, hf_folder: Path) -> tuple[Path, Path]:
    """Our folder, and what it becomes."""
    work = tmp_path_factory.mktemp("export")
    folder = model_folder(work / "run", hf_folder)
    convert.main(["--to", "hf", str(folder), f"{work}/hf"])
    return folder, work / "hf"


@pytest.mark.parametrize("kind", ["osum", "tied", "linear", "sharded"])
def test_hf_export_gives_the_same_tokens(
    kind: str, tmp_path: Path, hf_folder: Path, wavs: list[Path], monkeypatch
):
    tied = {"tie_word_embeddings": True} if kind == "tied" else {}
    folder = model_folder(tmp_path / "run", hf_folder, "linear" if kind == "linear" else "osum", **tied)
    if kind == "sharded":
        monkeypatch.setattr("wenet_osum.checkpoint.llm_folder.SHARD_SIZE", 60_000)
    convert.main(["--to", "hf", str(folder), f"{tmp_path}/hf"])
    argv = [sys.executable, "-c", SCRIPT, f"{tmp_path}/hf", *map(str, wavs)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "newly initialized" not in done.stderr and "MISSING" not in done.stderr, done.stderr
    out = json.loads(done.stdout.splitlines()[-1])
    assert out["classes"] == ["OsumConfig", "OsumForConditionalGeneration", "OsumProcessor"]
    ours = our_answers(folder, wavs)
    assert len({tuple(row) for row in ours}) == 3 and max(len(set(row)) for row in ours) > 3
    assert out["rows"] == ours + ours
    assert all(isinstance(t, str) for t in out["texts"]) and "<|endoftext|>" not in "".join(out["texts"])
    assert ((tmp_path / "hf" / "model.safetensors.index.json").exists()) == (kind == "sharded")


def load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoProcessor

    import wenet_osum.hf  # noqa: F401

    return AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def test_hf_export_saved_again_by_transformers(exported, tmp_path: Path, wavs: list[Path]):
    model, processor = load(exported[1])
    model.save_pretrained(tmp_path / "again")
    processor.save_pretrained(tmp_path / "again")
    again, reader = load(tmp_path / "again")
    theirs = again.state_dict()
    assert all(torch.equal(t, theirs[n]) for n, t in model.state_dict().items())
    first, second = (p.apply_transcription_request(wavs, task="ser") for p in (processor, reader))
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert set(first) == {"input_ids", "attention_mask", "input_features", "input_features_mask"}


def test_hf_export_loss_is_the_loss_of_training(exported, wavs: list[Path]):
    """Labels behind the speech, padded on the right."""
    from wenet_osum.checkpoint.weights import load_checkpoint

    folder, out = exported
    model, processor = load(out)
    inputs = processor(
        text=["ask<|audio|>answer", "again<|audio|>yes"],
        audio=[load_audio(str(w)) for w in wavs[:2]],
        sampling_rate=16000,
        padding_side="right",
    )
    labels = torch.full_like(inputs["input_ids"], -100)
    texts = ["answer", "yes"]
    for i, text in enumerate(texts):
        end = int(inputs["attention_mask"][i].sum())
        ids = processor.tokenizer.encode(text)
        labels[i, end - len(ids) : end] = torch.tensor(ids)
    configs = convert.read_config(str(folder))
    ours = init_model(configs).eval()
    load_checkpoint(ours, folder)

    def padded(texts: list[str]) -> Tensor:
        rows = [torch.tensor(processor.tokenizer.encode(t)) for t in texts]
        return pad_sequence(rows, batch_first=True, padding_value=-1)

    lengths = inputs["input_features_mask"].sum(1)
    target = padded(texts)
    weights = torch.zeros(2, target.size(1) + 1)
    weights[:, :-1] = (target != -1).float()  # no loss on the end id, which the labels above lack
    batch = {"feats": inputs["input_features"], "feats_lengths": lengths, "prompt": padded(["ask", "again"])}
    batch.update(target=target, target_weights=weights)
    with torch.no_grad():
        theirs = model(**inputs, labels=labels).loss
        wanted = trimmed(ours, batch)
    torch.testing.assert_close(theirs, wanted, atol=1e-4, rtol=0)


def trimmed(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """``Osum.forward`` wants the weights of the end id right behind each row's target."""
    for i, ids in enumerate(batch["target"]):
        batch["target_weights"][i, int((ids != -1).sum())] = 0.0
    return model(batch, torch.device("cpu"))["loss"]


def test_hf_export_processor_surface(exported, wavs: list[Path]):
    _, processor = load(exported[1])
    wave = load_audio(str(wavs[0]))
    turn = {
        "role": "user",
        "content": [{"type": "audio", "path": str(wavs[0])}, {"type": "text", "text": "what?"}],
    }
    assert processor.apply_chat_template([turn]) == "what?<|audio|>"
    assert processor.apply_chat_template([[turn], [turn]]) == ["what?<|audio|>"] * 2
    inputs = processor.apply_chat_template([turn], tokenize=True)
    direct = processor(text="what?<|audio|>", audio=wave, sampling_rate=16000)
    assert all(torch.equal(inputs[n], direct[n]) for n in direct)
    frames = len(wave) // 160
    assert inputs["input_features"].shape == (1, frames, 80)
    assert (
        int((inputs["input_ids"] == processor.audio_token_id).sum())
        == (frames + 7) // 8 + 2  # halved three times, rounded up
    )
    asked = processor.apply_transcription_request(wave, prompt="what?", sampling_rate=16000)
    assert all(torch.equal(asked[n], direct[n]) for n in direct)
    assert processor.batch_decode([[104, 256], [105]]) == processor.tokenizer.batch_decode([[104], [105]])
    assert "<|endoftext|>" in processor.batch_decode([[104, 256]], skip_special_tokens=False)[0]


WAVE = np.zeros(8000, dtype=np.float32)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda p: p(text="a<|audio|>"), "audio is missing"),
        (lambda p: p(audio=WAVE, sampling_rate=16000), "text is missing"),
        (lambda p: p(text="a<|audio|>", audio=WAVE), "sampling_rate is None"),
        (lambda p: p(text="a<|audio|>", audio=WAVE, sampling_rate=8000), "sampling_rate is 8000"),
        (lambda p: p(text="a", audio=WAVE, sampling_rate=16000), "0 times"),
        (lambda p: p(text="<|audio|><|audio|>", audio=WAVE, sampling_rate=16000), "2 times"),
        (lambda p: p(text=["<|audio|>"] * 2, audio=WAVE, sampling_rate=16000), "2 texts and 1 audios"),
        (lambda p: p(text="<|audio|>", audio=WAVE[:100], sampling_rate=16000), "100 samples"),
        (lambda p: p(text="<|audio|>", audio=np.zeros(16000 * 31), sampling_rate=16000), "31.0 s"),
        (lambda p: p(text="<|audio|>", audio=WAVE * np.nan, sampling_rate=16000), "NaN"),
        (lambda p: p(text="<|audio|>", audio=[np.zeros((2, 8000))], sampling_rate=16000), "one channel"),
        (lambda p: p(text="<|audio|>", audio=WAVE, sampling_rate=16000, images=1), "'images'"),
        (lambda p: p(text="<|audio|>", audio=WAVE, sampling_rate=16000, return_tensors="np"), "'np'"),
        (lambda p: p.apply_transcription_request("none.wav"), "no such audio file"),
        (lambda p: p.apply_transcription_request("touch here |"), "no such audio file"),
        (lambda p: p.apply_transcription_request(WAVE), "sampling_rate is missing"),
        (lambda p: p.apply_transcription_request(WAVE, language="fr", sampling_rate=16000), "'fr'"),
        (lambda p: p.apply_transcription_request([WAVE], ["a", "b"], sampling_rate=16000), "2 prompts and 1"),
        (lambda p: p.apply_chat_template([{"role": "system", "content": []}]), "one turn"),
        (lambda p: p.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}]), "'image'"),
        (lambda p: p.apply_chat_template([{"role": "user", "content": []}]), "0 audio items"),
    ],
)
def test_hf_export_bad_input(exported, call, line: str):
    _, processor = load(exported[1])
    with pytest.raises(ValueError, match=line):
        call(processor)


def test_hf_export_another_number_of_audio_tokens(exported):
    model, processor = load(exported[1])
    inputs = processor(text="a<|audio|>", audio=WAVE, sampling_rate=16000)
    inputs["input_ids"][0, -1] = 5
    with pytest.raises(ValueError, match="audio tokens in input_ids"):
        model(**inputs)


def test_bad_input_hf_export(exported, tmp_path: Path, capsys):
    configs = load_config(exported[0] / "config.yaml")
    for part in ("tokenizer", "llm", "lora", "encoder.safetensors", "adapter.safetensors"):
        (tmp_path / part).symlink_to(exported[0] / part)
    save_config({**configs, "tokenizer": "char"}, tmp_path / "config.yaml")
    assert command(convert.main, "--to", "hf", tmp_path, tmp_path / "hf") == 1
    assert "none of Hugging Face's" in one_error_line(capsys.readouterr().err)
    assert not (tmp_path / "hf").exists()
