"""Encoders lent to our programs, WeNet's flags, and what of its checkout is mended from outside."""

from __future__ import annotations

import argparse
import os
import re
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from wenet_stand_in import write_wenet

from wenet_osum.errors import OsumError
from wenet_osum.wenet import __main__ as program
from wenet_osum.wenet import flags, mends, register
from wenet_osum.wenet.encoders import borrow_encoder

pytestmark = pytest.mark.usefixtures("no_other_wenet")


def test_bad_input_encoders_to_borrow(wenet: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(OsumError, match=r"encoder: unknown name 'conformist'; choose one of .*conformer"):
        borrow_encoder("conformist")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "checkout" not in p])
    for name in [n for n in sys.modules if n.partition(".")[0] == "wenet"]:
        del sys.modules[name]
    with pytest.raises(OsumError, match=r"encoder: unknown name 'conformer', and there are no encoders of"):
        borrow_encoder("conformer")


def test_conv_names_are_mended_only_where_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    import torch.nn.modules.conv as conv

    line = "from torch.nn.modules.conv import _ConvNd, Optional, Union\n"
    folder = write_wenet(tmp_path, **{"models/squeezeformer/conv2d.py": line}) / "wenet"
    for name in ("Union", "Optional"):
        monkeypatch.delattr(conv, name, raising=False)
    mends.mend_conv_names(folder)
    assert conv.Union is typing.Union and capsys.readouterr().err.count("mended") == 1
    mends.mend_conv_names(folder)
    assert not capsys.readouterr().err


def test_final_pt_is_linked_to_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "epoch_2.pt").write_bytes(b"weights")
    (tmp_path / "final.pt").symlink_to("2.pt")
    mends.mend_final_link(str(tmp_path))
    assert (tmp_path / "final.pt").read_bytes() == b"weights" and "mended" in capsys.readouterr().err
    (tmp_path / "final.pt").unlink()
    (tmp_path / "final.pt").symlink_to("7.pt")  # of a run whose checkpoints are gone
    mends.mend_final_link(str(tmp_path))
    assert not (tmp_path / "final.pt").is_symlink() and "removed" in capsys.readouterr().err
    mends.mend_final_link(str(tmp_path))
    mends.mend_final_link(None)
    assert not capsys.readouterr().err


def test_worker_errors_of_a_script_are_told(tmp_path: Path):
    script = tmp_path / "make.py"
    script.write_text(
        "import multiprocessing\n"
        "def work(n):\n    return 1 // n\n"
        "pool = multiprocessing.Pool(1)\n"
        "for n in (1, 0):\n    pool.apply_async(work, (n,))\n"
        "pool.close()\npool.join()\n"
    )
    with pytest.raises(OsumError, match=r"1 of 2 worker jobs failed, the first: ZeroDivisionError"):
        program.main([str(script)])


def test_flags_are_found_in_either_form():
    assert flags.flag(["--model_dir", "a", "--x"], "--model_dir") == "a"
    assert flags.flag(["--model_dir=a", "--model_dir=b"], "--model_dir") == "b"
    assert flags.flag(["--model_dir_x", "a"], "--model_dir") is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config", "none.yaml"], "none.yaml: no such config"),
        (["--config", "bad.yaml"], "bad.yaml:1: not YAML"),
        (
            ["--config", "bare.yaml"],
            "bare.yaml: dataset_conf.filter_conf: is missing, and recognize needs it",
        ),
        (["--config", "ok.yaml", "--batch_size", "0"], "--batch_size 0: is no batch"),
        (
            ["--config", "ok.yaml", "--override_config", "a.b 1"],
            "--override_config 'a.b 1': the config has no a.b",
        ),
        (["--config", "ok.yaml", "--override_config", "model=1"], "is not 'KEY VALUE'"),
        (["--config", "ok.yaml", "--override_config", "n one"], "'one' cannot take the place of 3"),
        (["--train_engine", "deepspeed"], "--deepspeed_config: is missing; give DeepSpeed's json"),
        (["--train_engine", "torch_fsdp", "--device", "cpu"], "torch_fsdp: is not for a CPU in WeNet"),
    ],
)
def test_bad_input_flags_that_wenet_does_not_check(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("a: [", encoding="utf-8")
    Path("bare.yaml").write_text("model: osum", encoding="utf-8")
    Path("ok.yaml").write_text(
        "n: 3\nmodel: osum\ndataset_conf: {filter_conf: {}, batch_conf: {}}", encoding="utf-8"
    )
    with pytest.raises(OsumError, match=re.escape(message)):
        flags.check_flags("wenet.bin.recognize", argv)
    flags.check_flags("wenet.bin.recognize", ["--config", "ok.yaml", "--override_config", "model asr_model"])
    Path("epoch_0.pt").write_bytes(b"")
    with pytest.raises(OsumError, match=r"\.: has 1 checkpoints, --num is 2"):
        flags.check_flags("wenet.bin.average_model", ["--src_path", ".", "--num", "2"])
    flags.check_flags("wenet.bin.average_model", ["--src_path", ".", "--num", "1"])


def test_config_of_ours_is_checked_inside_wenet(plugin: register.Plugin, configs: dict[str, Any]):
    from wenet.utils.init_tokenizer import init_tokenizer

    with pytest.raises(OsumError, match=r"dataset_conf.promt_conf: unknown key"):
        init_tokenizer({**configs, "dataset_conf": {"promt_conf": {}}})


def test_deepspeeds_checkpoint_is_a_whole_file_again(tmp_path: Path):
    gathered = {"encoder.w": torch.ones(2)}
    module = {"encoder.w": torch.zeros(2), "ctc.w": torch.ones(1).bfloat16(), "llm.w": torch.ones(3)}
    (tmp_path / "epoch_0").mkdir()
    torch.save({"module": module}, tmp_path / "epoch_0" / "mp_rank_00_model_states.pt")

    class TrainUtils:
        @staticmethod
        def convert_zero_checkpoint_to_fp32_state_dict(
            checkpoint_dir: str, output_dir: str, max_shard_size: str | None = "5GB", tag: str | None = None
        ) -> None:
            assert max_shard_size is None  # one file, however large
            Path(output_dir).mkdir()
            torch.save(gathered, Path(output_dir) / "pytorch_model.bin")

    mends.mend_zero_files(TrainUtils, lambda: {"llm.w"})
    TrainUtils.convert_zero_checkpoint_to_fp32_state_dict(
        str(tmp_path), str(tmp_path / "epoch_0.pt"), tag="epoch_0"
    )
    saved = torch.load(tmp_path / "epoch_0.pt")
    assert set(saved) == {"encoder.w", "ctc.w"}  # learnt, frozen; without an LLM that has a folder of its own
    assert saved["encoder.w"].tolist() == [1, 1] and saved["ctc.w"].dtype == torch.float32
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch_0", "epoch_0.pt"]


@pytest.fixture
def no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun's variables are not set, and gone again after the test."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)


def test_a_process_group_has_options_again(no_ranks: None):
    import torch.distributed as dist

    mends.mend_ranks()
    dist.init_process_group("gloo")
    try:
        mends.mend_group_options()
        assert dist.new_group(backend="gloo").options._timeout.total_seconds() > 0
    finally:
        dist.destroy_process_group()


def test_one_process_needs_no_torchrun(no_ranks: None, capsys: pytest.CaptureFixture[str]):
    mends.mend_ranks()
    assert os.environ["WORLD_SIZE"] == "1" and int(os.environ["MASTER_PORT"]) > 0
    mends.mend_ranks()
    assert capsys.readouterr().err.count("mended") == 1


def test_workers_are_not_needed(capsys: pytest.CaptureFixture[str]):
    class TrainUtils:
        from torch.utils.data import DataLoader

    mends.mend_data_loader(TrainUtils)
    options = {"batch_size": None, "num_workers": 0, "persistent_workers": True, "prefetch_factor": 4}
    assert list(TrainUtils.DataLoader([1, 2], **options)) == [1, 2]
    assert "--num_workers 0" in capsys.readouterr().err


def test_deepspeeds_stand_in_is_gone_after_the_import(
    wenet: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = wenet / "checkout" / "wenet" / "utils"
    (folder / "train_utils.py").write_text("import deepspeed\n")
    stock = mends.importlib.util.find_spec
    monkeypatch.setattr(
        mends.importlib.util, "find_spec", lambda name: None if name == "deepspeed" else stock(name)
    )
    monkeypatch.delitem(sys.modules, "deepspeed", raising=False)
    module = mends.import_train_utils()
    parser = module.deepspeed.add_config_arguments(argparse.ArgumentParser())
    assert parser.parse_args(["--deepspeed_config", "ds.json"]).deepspeed_config == "ds.json"
    with pytest.raises(OsumError, match="--train_engine deepspeed: deepspeed is not installed; pip install"):
        module.deepspeed.initialize()
    assert "deepspeed" not in sys.modules


# --- torchaudio


def test_audio_is_read_and_written_by_soundfile(tmp_path: Path):
    import numpy as np
    import soundfile

    from wenet_osum.wenet import mend_audio

    stereo = (np.arange(-2000, 2000, dtype=np.int16).reshape(-1, 2)) * 3
    soundfile.write(tmp_path / "a.wav", stereo, 8000)
    facts = mend_audio.info(tmp_path / "a.wav")
    assert (facts.sample_rate, facts.num_frames, facts.num_channels) == (8000, 2000, 2)
    wave, rate = mend_audio.load(tmp_path / "a.wav", frame_offset=10, num_frames=20)
    assert rate == 8000 and wave.shape == (2, 20) and wave.dtype == torch.float32
    assert torch.equal(wave[:, 0] * 32768, torch.from_numpy(stereo[10].astype(np.float32)))
    raw, _ = mend_audio.load(tmp_path / "a.wav", normalize=False)
    assert raw.dtype == torch.int16 and torch.equal(raw, torch.from_numpy(stereo.T.copy()))
    mend_audio.save(tmp_path / "b.wav", raw, 8000, bits_per_sample=16)
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()
    with pytest.raises(OsumError, match="no effect 'reverb' without sox"):
        mend_audio.apply_effects_tensor(wave, 8000, [["reverb", "1"]])
