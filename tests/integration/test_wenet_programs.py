"""WeNet's own train, average_model and recognize with our model in it, beside our own programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import ENCODER, run_config, stage1_config, stage2_config, write_corpus

CONFORMER = {**ENCODER, "attention_dropout_rate": 0.0, "cnn_module_kernel": 7, "use_dynamic_chunk": True}
RUNS: dict[str, dict[str, Any]] = {
    "whisper_raw": {"data_type": "raw", "config": stage2_config()},
    "whisper_shard": {"data_type": "shard", "config": stage2_config()},
    "conformer_raw": {
        "data_type": "raw",
        "config": stage2_config(encoder="conformer", encoder_conf=CONFORMER),
    },
    "conformer_shard": {
        "data_type": "shard",
        "config": stage2_config(encoder="conformer", encoder_conf=CONFORMER),
    },
    "own_engine_raw": {"data_type": "raw", "config": stage2_config(), "dataset": "osum"},
    "own_engine_shard": {"data_type": "shard", "config": stage2_config(), "dataset": "osum"},
    "stage1_raw": {"data_type": "raw", "config": stage1_config()},
}


def texts(path: Path) -> list[str]:
    return sorted(path.read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same utterances as a raw list and as shards of our tools."""
    folder = tmp_path_factory.mktemp("corpus")
    raw = write_corpus(folder / "wav")
    tars = folder / "data.list"
    from wenet_osum.dataset.lists import read_raw_list
    from wenet_osum.dataset.shards import write_shards

    write_shards((s for _, s in read_raw_list(raw)), folder / "shards", tars, num_utts_per_shard=2)
    return {"raw": raw, "shard": tars}


@pytest.fixture(scope="module", params=RUNS)
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, corpus: Any, python: Any
) -> dict[str, Any]:
    """20 steps of ``wenet.bin.train`` on the CPU."""
    facts = dict(RUNS[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    data = corpus[facts["data_type"]]
    config = run_config(
        folder,
        facts["config"],
        dataset=facts.get("dataset", "asr"),
        max_epoch=10,
        optim_conf={"lr": 5e-3},
        scheduler_conf={"warmup_steps": 3},
    )
    log = python(
        *("-m", "wenet_osum.wenet", "wenet.bin.train", "--device", "cpu", "--ddp.dist_backend", "gloo"),
        *("--config", config, "--data_type", facts["data_type"], "--train_data", data, "--cv_data", data),
        *("--model_dir", folder / "exp", "--tensorboard_dir", folder / "tb"),
        *("--num_workers", 1, "--prefetch", 2),
    )
    return {**facts, "folder": folder, "exp": folder / "exp", "data": data, "log": log.stderr}


def recognize(python: Any, run: dict[str, Any], checkpoint: Path, task: str) -> tuple[list[str], list[str]]:
    """The text of WeNet's program and of ours."""
    mode = "attention" if run["config"]["model"] == "whisper_multitask" else "llm_greedy"
    args = ["--config", run["exp"] / "train.yaml", "--data_type", run["data_type"]]
    args += ["--test_data", run["data"], "--checkpoint", checkpoint, "--modes", mode, "--batch_size", 4]
    theirs, ours = run["folder"] / f"theirs_{task}", run["folder"] / f"ours_{task}"
    python(*("-m", "wenet_osum.wenet", "--task", task, "wenet.bin.recognize", *args, "--result_dir", theirs))
    args += ["--result_dir", ours, "--device", "cpu", "--no_constrain"]  # WeNet's program knows no rules
    python("-m", "wenet_osum.bin.recognize", "--task", task, *args)
    return texts(theirs / mode / "text"), texts(ours / mode / "text")


@pytest.mark.integration
def test_wenet_trains_averages_and_decodes_it(run: dict[str, Any], python: Callable[..., Any]):
    exp = run["exp"]
    facts = [yaml.safe_load((exp / f"epoch_{n}.yaml").read_text(encoding="utf-8")) for n in range(10)]
    assert facts[-1]["step"] == 20
    assert facts[-1]["loss_dict"]["loss"] < facts[0]["loss_dict"]["loss"]
    assert (exp / "final.pt").resolve() == (exp / "epoch_9.pt").resolve()
    average = exp / "avg_2.pt"
    python(
        *("-m", "wenet_osum.wenet", "wenet.bin.average_model", "--dst_model", average),
        *("--src_path", exp, "--num", 2, "--val_best"),
    )
    for task in ("asr", "ser"):
        theirs, ours = recognize(python, run, average, task)
        assert len(theirs) == 6 and theirs == ours


@pytest.mark.integration
@pytest.mark.parametrize("run", ["whisper_raw", "conformer_raw"], indirect=True)
def test_wenet_reads_a_checkpoint_of_ours(run: dict[str, Any], python: Callable[..., Any], tmp_path: Path):
    python(
        *("-m", "wenet_osum.bin.train", "--config", run["exp"] / "train.yaml", "--device", "cpu"),
        *("--train_data", run["data"], "--cv_data", run["data"], "--model_dir", tmp_path / "exp"),
        *("--tensorboard_dir", tmp_path / "tb", "--override_config", "max_epoch 2"),
    )
    theirs, ours = recognize(
        python, {**run, "exp": tmp_path / "exp", "folder": tmp_path}, tmp_path / "exp" / "final.pt", "asr"
    )
    assert len(theirs) == 6 and theirs == ours
    python(
        *("-m", "wenet_osum.wenet", "wenet.bin.train", "--device", "cpu", "--ddp.dist_backend", "gloo"),
        *("--config", tmp_path / "exp" / "train.yaml", "--train_data", run["data"], "--cv_data", run["data"]),
        *("--checkpoint", tmp_path / "exp" / "epoch_1.pt", "--model_dir", tmp_path / "exp"),
        *("--tensorboard_dir", tmp_path / "tb", "--override_config", "max_epoch 3", "--num_workers", 1),
    )
    assert (tmp_path / "exp" / "epoch_2.pt").is_file() and not (tmp_path / "exp" / "epoch_3.pt").is_file()


@pytest.mark.integration
def test_wenet_conformer_with_fbank_and_cmvn_before_our_llm(
    corpus: dict[str, Path], python: Callable[..., Any], tmp_path: Path, wenet_dir: Path
):
    """WeNet's loader makes the features, and WeNet's tool, mended, their statistics."""
    rows = [json.loads(line) for line in corpus["raw"].read_text(encoding="utf-8").splitlines()]
    (tmp_path / "wav.scp").write_text("".join(f"{r['key']} {r['wav']}\n" for r in rows))
    config = run_config(
        tmp_path,
        stage2_config(encoder="conformer", encoder_conf=CONFORMER),
        dataset="asr",
        cmvn="global_cmvn",
        cmvn_conf={"cmvn_file": str(tmp_path / "global_cmvn"), "is_json_cmvn": True},
        dataset_conf={
            "fbank_conf": {"num_mel_bins": 40, "frame_shift": 10, "frame_length": 25, "dither": 0.1},
            "batch_conf": {"batch_type": "static", "batch_size": 3},
            "filter_conf": {"max_length": 3000},
        },
        max_epoch=3,
    )
    tool = wenet_dir / "tools" / "compute_cmvn_stats.py"
    stats = [
        "--train_config",
        config,
        "--in_scp",
        tmp_path / "wav.scp",
        "--out_cmvn",
        tmp_path / "global_cmvn",
    ]
    python("-m", "wenet_osum.wenet", tool, *stats)
    python(
        *("-m", "wenet_osum.wenet", "wenet.bin.train", "--device", "cpu", "--ddp.dist_backend", "gloo"),
        *("--config", config, "--train_data", corpus["raw"], "--cv_data", corpus["raw"]),
        *("--model_dir", tmp_path / "exp", "--tensorboard_dir", tmp_path / "tb"),
    )
    python(
        *("-m", "wenet_osum.wenet", "wenet.bin.recognize", "--config", tmp_path / "exp" / "train.yaml"),
        *("--checkpoint", tmp_path / "exp" / "final.pt", "--test_data", corpus["raw"]),
        *("--modes", "llm_greedy", "--result_dir", tmp_path / "decode"),
    )
    assert len(texts(tmp_path / "decode" / "llm_greedy" / "text")) == 6
    # Its encoder as the beginning of another run.
    python(
        *("-m", "wenet_osum.wenet", "wenet.bin.train", "--device", "cpu", "--ddp.dist_backend", "gloo"),
        *("--config", config, "--train_data", corpus["raw"], "--cv_data", corpus["raw"]),
        *("--enc_init", tmp_path / "exp" / "final.pt", "--model_dir", tmp_path / "next"),
        *("--tensorboard_dir", tmp_path / "tb", "--override_config", "max_epoch 1"),
    )
    before, after = (torch.load(tmp_path / f) for f in ("exp/final.pt", "next/init.pt"))
    encoder = [name for name in before if name.startswith("encoder.")]
    assert encoder and all(torch.equal(before[name], after[name]) for name in encoder)
