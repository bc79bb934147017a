"""Tiny configs, models, audio and lists that several tests share."""

from __future__ import annotations

import copy
import errno
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from torch import Tensor

from wenet_osum import fileio
from wenet_osum.checkpoint.weights import save_checkpoint
from wenet_osum.config import load_config, save_config
from wenet_osum.errors import run_main
from wenet_osum.registry import init_model
from wenet_osum.tasks import load_tasks
from wenet_osum.text import init_tokenizer

RATE = 16000
TEXTS = ["good morning", "open the door", "今天天气好", "no", "where is my blue hat", "一二三"]
EMOTIONS = ["happy", "sad", "anger"]

ENCODER = {
    "output_size": 32,
    "attention_heads": 2,
    "linear_units": 48,
    "num_blocks": 2,
    "dropout_rate": 0.0,
    "positional_dropout_rate": 0.0,
}
LLM = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 1024,
}
ADAPTER_CONFS: dict[str, dict[str, Any]] = {
    "osum": {"attention_heads": 2, "linear_units": 48, "num_blocks": 1, "dropout_rate": 0.0},
    "conv": {"linear_units": 48},
    "linear": {"factor": 3, "linear_units": 48},
}


def stage2_config(**changes: Any) -> dict[str, Any]:
    """What a YAML file of a tiny OSUM holds; ``changes`` replace whole sections."""
    config: dict[str, Any] = {
        "model": "osum",
        "model_conf": {"adapter": "osum", "adapter_conf": ADAPTER_CONFS["osum"], "max_new_tokens": 12},
        "encoder": "whisper_osum",
        "encoder_conf": ENCODER,
        "decoder": "llm",
        "decoder_conf": {"llm_config": LLM},
        "ctc": "ctc",
    }
    return copy.deepcopy({**config, **changes})


def stage1_config(**changes: Any) -> dict[str, Any]:
    """The same for a tiny Whisper."""
    whisper = {"attention_heads": 2, "linear_units": 48, "num_blocks": 2, "dropout_rate": 0.0}
    config = {
        "model": "whisper_multitask",
        "model_conf": {"ctc_weight": 0.3, "max_new_tokens": 12},
        "decoder": "whisper",
        "decoder_conf": whisper,
    }
    return stage2_config(**{**config, **changes})


def build(config: dict[str, Any], vocab_size: int = 60, seed: int = 0, scale: float = 1.0) -> Any:
    """A random model in eval mode; matrices times ``scale`` make its answers less alike."""
    torch.manual_seed(seed)
    special = {"special_tokens": {"eos": 2, "sos": 1}}
    model = init_model({"input_dim": 80, "vocab_size": vocab_size, "tokenizer_conf": special, **config})
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1 and p.is_floating_point():
                p.mul_(scale)
    return model.eval()


def adapter_config(name: str) -> dict[str, Any]:
    return stage2_config(
        model_conf={
            "adapter": name,
            "adapter_conf": ADAPTER_CONFS[name],
            "max_new_tokens": 12,
            "ctc_weight": 0.3,
        }
    )


def random_batch(lengths: list[int], vocab_size: int = 60, seed: int = 1) -> dict[str, Any]:
    """A training batch of utterances of so many frames; what lies behind their ends is no zeros."""
    rng = torch.Generator().manual_seed(seed)
    rows = len(lengths)

    def ids(longest: int, least: int) -> Tensor:
        sizes = torch.randint(least, longest + 1, (rows,), generator=rng)
        out = torch.randint(4, vocab_size, (rows, longest), generator=rng)
        return out.masked_fill(torch.arange(longest)[None] >= sizes[:, None], -1)

    target = ids(6, 1)
    lengths_of_answers = (target != -1).sum(1)
    positions = torch.arange(target.size(1) + 1)[None]
    return {
        "keys": [f"u{i}" for i in range(rows)],
        "feats": torch.randn(rows, max(lengths), 80, generator=rng),
        "feats_lengths": torch.tensor(lengths),
        "prompt": ids(5, 2),
        "target": target,
        "target_lengths": lengths_of_answers,
        "target_weights": (positions <= lengths_of_answers[:, None]).float(),
        "ctc_target": ids(4, 1),
        "skipped": [],
    }


def row_of(batch: dict[str, Any], i: int) -> dict[str, Any]:
    """Utterance ``i`` as a batch of its own, without padding."""
    frames = int(batch["feats_lengths"][i])
    out = {**batch, "keys": [batch["keys"][i]], "feats": batch["feats"][i : i + 1, :frames]}
    out["feats_lengths"] = batch["feats_lengths"][i : i + 1]
    for name in ("prompt", "target", "ctc_target"):
        out[name] = batch[name][i][batch[name][i] != -1][None]
    out["target_lengths"] = batch["target_lengths"][i : i + 1]
    out["target_weights"] = batch["target_weights"][i : i + 1, : out["target"].size(1) + 1]
    return out


def write_wav(path: Path, seconds: float, seed: int = 0) -> Path:
    """Noise under a changing tone."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    wave = 0.1 * rng.standard_normal(len(t)) + 0.3 * np.sin(2 * np.pi * (200 + 60 * seed) * t)
    soundfile.write(path, wave, RATE, subtype="PCM_16")
    return path


def write_list(path: Path, samples: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(s, ensure_ascii=False) + "\n" for s in samples), encoding="utf-8")
    return path


def write_corpus(folder: Path, count: int = 6, first: int = 0) -> Path:
    """A raw list of ``count`` short utterances with transcripts, emotions and replies."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for i in range(first, first + count):
        wav = write_wav(folder / f"u{i:02}.wav", 0.3 + 0.09 * (i % 7), seed=i)
        text = TEXTS[i % len(TEXTS)]
        labels = {"emotion": EMOTIONS[i % 3], "reply": "ok"}
        samples.append({"key": f"u{i:02}", "wav": str(wav), "txt": text, **labels})
    return write_list(folder / "data.list", samples)


def write_units(path: Path) -> Path:
    """A character table with every label as one unit."""
    units = ["<blank>", "<unk>", "<sos/eos>", *load_tasks().marks()]
    units += sorted(set("▁<>.0123456789abcdefghijklmnopqrstuvwxyz" + "".join(TEXTS).replace(" ", "")))
    path.write_text("".join(f"{u} {i}\n" for i, u in enumerate(units)), encoding="utf-8")
    return path


def run_config(folder: Path, config: dict[str, Any], **changes: Any) -> Path:
    """Write a whole run's YAML beside its character table."""
    config = {
        **config,
        "tokenizer": "char",
        "tokenizer_conf": {"symbol_table_path": str(write_units(folder / "units.txt"))},
        "dataset_conf": {
            "batch_conf": {"batch_type": "static", "batch_size": 3},
            "prompt_conf": {"style": "tag"},
            "task_weights": {"asr": 1, "ser": 1, "sttc": 1},
        },
        "max_epoch": 1,
        "log_interval": 1,
        "optim_conf": {"lr": 1e-3},
        "scheduler_conf": {"warmup_steps": 1},
        **changes,
    }
    path = folder / f"{config['model']}.yaml"
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    return path


def command(main: Callable[[list[str]], int], *argv: object) -> int:
    """Run a command's ``main`` as the ``osum`` program does; its exit status."""
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: main([str(a) for a in argv]))
    return int(ended.value.code or 0)


def one_error_line(stderr: str) -> str:
    """The only line of an error message. Progress bars and warnings of libraries do not count."""
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in stderr, stderr
    return lines[0]


class FullDisk(io.BufferedWriter):
    """A file on a disk with room for ``room`` bytes."""

    room = 20_000

    def write(self, content: Any) -> int:
        if self.tell() + memoryview(content).nbytes > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


def fill_disk(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """From now on a file written by ``atomic_write`` may have ``room`` bytes."""
    monkeypatch.setattr(FullDisk, "room", room)

    def open_there(path: Path, mode: str = "r", **text: Any) -> Any:
        if "w" not in mode:
            return open(path, mode, **text)
        binary = FullDisk(io.FileIO(path, "w"))
        return binary if "b" in mode else io.TextIOWrapper(binary, write_through=True, **text)

    monkeypatch.setattr(fileio, "open", open_there, raising=False)


def write_random_model(folder: Path) -> None:
    """``train.yaml`` and ``final.pt`` of a tiny random stage 2, beside its character table."""
    conf = load_config(run_config(folder, stage2_config()))
    size = init_tokenizer(conf).vocab_size()
    conf.update(vocab_size=size, output_dim=size)
    conf["tokenizer_conf"]["special_tokens"] = {"eos": 2, "sos": 2}
    save_config(conf, folder / "train.yaml")
    torch.manual_seed(5)  # this one says some words
    save_checkpoint(init_model(conf), folder / "final.pt", {})
