"""Devices and number types: named by flag or YAML, refused in one line where they are not."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch
from helpers import command, one_error_line, run_config, stage2_config, write_corpus

from wenet_osum.bin import recognize, train
from wenet_osum.config import load_config
from wenet_osum.device import find_device
from wenet_osum.errors import OsumError
from wenet_osum.train.engine import Engine

ABSENT = {
    "npu": "torch_npu is not installed; pip install wenet_osum[npu]",
    "cuda": "torch sees no CUDA device; use --device cpu",
    "mps": "torch sees no MPS device; use --device cpu",
}


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but a CPU, wherever the tests run."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "torch_npu", None)


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize("name", ABSENT)
def test_bad_input_device_that_is_not_here(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]):
    config = run_config(tmp_path, stage2_config())
    data = write_corpus(tmp_path / "data", 2)
    common = ["--config", config, "--device", name]
    for main, more in (
        (train.main, ["--train_data", data, "--cv_data", data, "--model_dir", tmp_path / "exp"]),
        (
            recognize.main,
            ["--test_data", data, "--checkpoint", "x", "--result_dir", "y", "--modes", "attention"],
        ),
    ):
        capsys.readouterr()
        assert command(main, *common, *more) == 1
        assert one_error_line(capsys.readouterr().err) == f"error: --device {name}: {ABSENT[name]}"
    assert not (tmp_path / "exp").exists()


def fake_npu(monkeypatch: pytest.MonkeyPatch, here: bool) -> None:
    """What torch_npu does on import: it puts a device module into torch."""
    monkeypatch.setitem(sys.modules, "torch_npu", types.ModuleType("torch_npu"))
    module = types.SimpleNamespace(is_available=lambda: here, set_device=lambda d: None)
    monkeypatch.setattr(torch, "npu", module, raising=False)


def test_npu_comes_with_torch_npu(monkeypatch: pytest.MonkeyPatch):
    fake_npu(monkeypatch, here=False)
    with pytest.raises(OsumError, match="torch sees no NPU device"):
        find_device("npu")


def test_a_rank_takes_its_own_device(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert find_device("cuda", 3) == torch.device("cuda:3")
    assert find_device("cpu", 3) == torch.device("cpu")
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert find_device("mps", 0) == torch.device("mps")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OsumError, match="--device mps: torch has no ranks on it"):
        Engine("mps")


def test_number_type_of_the_yaml_holds_and_the_flag_wins(tmp_path: Path):
    data = write_corpus(tmp_path / "data", 3)

    def trained(*flags: str) -> str:
        config = run_config(tmp_path, stage2_config(), dtype="bf16")
        argv = ["--config", config, "--train_data", data, "--cv_data", data, "--model_dir", tmp_path / "exp"]
        assert (
            command(train.main, *argv, "--tensorboard_dir", tmp_path / "log", "--resume", "none", *flags) == 0
        )
        return load_config(tmp_path / "exp" / "train.yaml")["dtype"]

    assert trained() == "bf16" and trained("--dtype", "fp32") == "fp32"


def test_engine_autocasts_in_its_number_type():
    for name, expected in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with Engine("cpu", name).autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected
    with pytest.raises(OsumError, match="dtype fp16: is not for a CPU"):
        Engine("cpu", "fp16")
