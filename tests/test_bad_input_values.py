"""Values out of range, files in another form: one line that names the key or the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from wenet_osum.bin import recognize, train
from wenet_osum.checkpoint.average import find_checkpoints
from wenet_osum.checkpoint.weights import read_infos
from wenet_osum.config import load_config
from wenet_osum.errors import OsumError

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "override, key",
    [
        ("seed=-1", "seed"),
        ("grad_clip=-1", "grad_clip"),
        ("optim_conf.lr=.nan", "optim_conf.lr"),
        ("optim_conf.betas=[0.9, 1.5]", "optim_conf.betas"),
        ("optim_conf.lr_scale={encoder: x}", "optim_conf.lr_scale.encoder"),
        ("dataset_conf.batch_conf.batch_size=0", "dataset_conf.batch_conf.batch_size"),
        ("dataset_conf.time_step=0", "dataset_conf.time_step"),
        ("dataset_conf.max_bad_share=2", "dataset_conf.max_bad_share"),
        ("dataset_conf.resample_conf.resample_rate=0", "resample_rate"),
        ("max_epoch=2024-13-45", "not YAML"),
    ],
)
def test_bad_input_config_value(tmp_path, override, key):
    path = tmp_path / "c.yaml"
    path.write_text("model: osum\n")
    with pytest.raises(OsumError, match=key):
        load_config(path, [override])


@pytest.mark.parametrize("text", ["", "a: [", "epoch: x\nstep: 1\n", "- 1\n", "step: 1\n"])
def test_bad_input_checkpoint_facts(tmp_path, text):
    (tmp_path / "epoch_0.yaml").write_text(text)
    (tmp_path / "epoch_0.pt").write_bytes(b"")
    with pytest.raises(OsumError, match="epoch_0.yaml: does not tell"):
        read_infos(tmp_path / "epoch_0.yaml")
    with pytest.raises(OsumError, match="epoch_0.yaml: does not tell"):
        find_checkpoints(tmp_path, 1, False, "hybrid", (0, 9, 0, 9))


@pytest.mark.parametrize(
    "main, flag, value",
    [(recognize, "--batch_size", "0"), (recognize, "--beam_size", "two"), (train, "--num_workers", "-1")],
)
def test_bad_input_flag(main, flag, value, capsys):
    with pytest.raises(SystemExit):
        main.get_args([flag, value])
    assert f"argument {flag}: '{value}' is not a whole number" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--stage", "abc"], "--stage abc: give a whole number"),
        (["--PATH", "x"], "unknown option --PATH"),
        (["--stage"], "--stage needs a value"),
        (["--data_type", "tar"], "--data_type tar: choose raw"),
        (["--size", "huge"], "--size huge: choose full or quick"),
        (["stray"], "unexpected stray"),
    ],
)
def test_bad_input_run_sh(options, message):
    done = subprocess.run(
        ["bash", "run.sh", *options], cwd=ROOT / "examples/osum", capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and message in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "after, swapped, status", [(0.5, None, 0), (1.5, None, 1), (0.5, 0.9, 0), (0.5, 0.5, 1)]
)
def test_loss_fell_and_the_model_listens(tmp_path, after, swapped, status):
    for epoch, loss in ((0, 1.0), (1, after)):
        losses = {"loss": loss, "loss_llm": loss} | ({} if swapped is None else {"swapped/loss_llm": swapped})
        info = yaml.safe_dump({"epoch": epoch, "loss_dict": losses})
        (tmp_path / f"epoch_{epoch}.yaml").write_text(info)
    command = [sys.executable, str(ROOT / "local/loss_fell.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == status, done.stderr
