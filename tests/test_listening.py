"""The loss with another utterance's audio: it tells a model that listens from one that does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ADAPTER_CONFS, command, random_batch, run_config, stage2_config, write_list, write_wav
from test_train_decode import train_args

from wenet_osum.bin import train
from wenet_osum.train.listening import swap_audio


def dev_figures(folder: Path) -> list[dict[str, float]]:
    """What each validation of a run found."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["dev"] for row in map(json.loads, lines) if "dev" in row]


def run(folder: Path, **model: Any) -> list[dict[str, float]]:
    """Train a tiny model on six utterances of one length until it knows them; its validations on the same six."""
    texts = ("good morning", "open the door", "no", "where is my blue hat", "come here", "thank you")
    samples = [
        {"key": f"u{i}", "wav": str(write_wav(folder / f"u{i}.wav", 0.5, seed=i)), "txt": text}
        for i, text in enumerate(texts)
    ]
    data = write_list(folder / "data.list", samples)
    (folder / "often.yaml").write_text(f"all: {{path: {data}, weight: 60}}\n", encoding="utf-8")
    conf = {"adapter": "linear", "adapter_conf": ADAPTER_CONFS["linear"], "max_new_tokens": 12, **model}
    config = run_config(
        folder,
        stage2_config(ctc="none", model_conf=conf),
        dataset_conf={
            "batch_conf": {"batch_type": "static", "batch_size": 6},
            "prompt_conf": {"style": "tag"},
            "task_weights": {"asr": 1},
        },
        optim_conf={"lr": 3e-3},
        scheduler="linear",
        scheduler_conf={"warmup_steps": 10},
        max_epoch=4,
        cv_swap=True,
    )
    args = train_args(folder, config, data, "m")
    args[args.index("--train_data") + 1] = folder / "often.yaml"
    assert command(train.main, *args) == 0
    return dev_figures(folder / "m")


def test_audio_goes_on_to_the_next_utterance():
    batch = random_batch([30, 50, 40])
    swapped = swap_audio(batch)
    assert swapped["feats_lengths"].tolist() == [40, 30, 50]
    assert torch.equal(swapped["feats"][1, :30], batch["feats"][0, :30])
    assert swapped["target"] is batch["target"] and swapped["prompt"] is batch["prompt"]
    rows = [batch["feats"][i, :n] for i, n in enumerate((30, 50, 40))]
    packed = swap_audio({**batch, "feats": torch.cat(rows)})
    assert torch.equal(packed["feats"], torch.cat([rows[2], rows[0], rows[1]]))
    assert packed["feats_lengths"].tolist() == [40, 30, 50]


@pytest.mark.slow
def test_a_model_that_has_learned_listens(tmp_path: Path):
    first, *_, last = run(tmp_path)
    assert last["loss"] < 0.3 and last["swapped/loss_llm"] > last["loss"] + 0.3
    assert last["swapped/loss/asr"] == pytest.approx(last["swapped/loss_llm"])
    assert first["swapped/loss_llm"] - first["loss"] < last["swapped/loss_llm"] - last["loss"]


@pytest.mark.slow
def test_a_model_whose_speech_is_lost_on_the_way_does_not_listen(tmp_path: Path):
    """Its adapter gives zeros: however well it learns the sentences, the right audio is no help."""
    adapter = {**ADAPTER_CONFS["osum"], "embed_scale": 0.0}
    first, *_, last = run(tmp_path, adapter="osum", adapter_conf=adapter)
    assert last["loss"] < first["loss"]
    assert last["swapped/loss_llm"] == pytest.approx(last["loss"], abs=1e-5)
