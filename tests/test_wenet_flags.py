"""Flags of WeNet's programs on ours: the same meaning, one line for those without, one line for what cannot be."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import (
    build,
    command,
    one_error_line,
    run_config,
    stage1_config,
    stage2_config,
    write_corpus,
    write_list,
    write_wav,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wenet_osum.bin import average_model, recognize, train
from wenet_osum.bin.decode_flags import add_decode_flags
from wenet_osum.bin.wenet_flags import RECOGNIZE, TRAIN, add_engine_flags, idle_flags
from wenet_osum.checkpoint.assemble import leave_room, load_table, max_frames
from wenet_osum.checkpoint.weights import read_state
from wenet_osum.config import DATASET_DEFAULTS, load_config
from wenet_osum.device import card, cuda_or_cpu
from wenet_osum.errors import OsumError
from wenet_osum.train.engine import Engine
from wenet_osum.train.optim import freeze_modules


def value_of(how: dict[str, Any]) -> list[str]:
    if how.get("action") == "store_true":
        return []
    if "choices" in how:
        return [how["choices"][0]]
    return ["1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One short training with every flag that has no effect, counted in steps."""
    folder = tmp_path_factory.mktemp("run")
    data = write_corpus(folder / "data")
    config = run_config(folder, stage2_config(), save_interval=2, max_epoch=2, dtype="fp32")
    idle = [word for flag, how in TRAIN.items() for word in (flag, *value_of(how))]
    args = ["--config", config, "--train_data", data, "--cv_data", data, "--model_dir", folder / "exp"]
    args += ["--tensorboard_dir", folder / "tb", "--device", "cpu", "--pin_memory", "--fp16_grad_sync"]
    args += ["--ddp.dist_backend", "nccl", "--prefetch", "7", "--print_model", *idle]
    assert command(train.main, *args) == 0
    return {"folder": folder, "exp": folder / "exp", "data": data, "config": config, "args": args}


def decode(run: dict[str, Any], *more: object) -> list[object]:
    args = ["--config", run["exp"] / "train.yaml", "--checkpoint", run["exp"] / "final.pt"]
    args += ["--test_data", run["data"], "--result_dir", run["folder"] / "out", "--modes", "llm_greedy"]
    return [*args, *more]


def test_training_flags_without_effect_are_told_in_one_line(
    run: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    args = [*run["args"], "--override_config", "max_epoch 1", "--model_dir", run["folder"] / "once"]
    assert command(train.main, *args) == 0
    out, err = capsys.readouterr()
    (line,) = [x for x in err.splitlines() if x.startswith("no effect here: ")]
    names, _, lora = line.removeprefix("no effect here: ").partition("; ")
    assert names.split(", ") == [*TRAIN, "--pin_memory", "--fp16_grad_sync"]
    assert lora == "LoRA is set by decoder_conf.lora"
    assert "WhisperEncoder" in out and "the number of model params: " in out


def test_decoding_flags_without_effect_are_told_in_one_line(
    run: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    idle = [word for flag, how in RECOGNIZE.items() for word in (flag, *value_of(how))]
    idle += ["--decoding_chunk_size", "16", "--num_decoding_left_chunks", "-1"]
    assert command(recognize.main, *decode(run, *idle)) == 0
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("no effect here: ")]
    names = line.removeprefix("no effect here: ").partition("; ")[0]
    assert names.split(", ") == [*RECOGNIZE, "--decoding_chunk_size"]


def test_nothing_is_told_where_nothing_is_without_effect(
    run: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    assert command(recognize.main, *decode(run)) == 0
    assert "no effect" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["deepspeed"], "error: --deepspeed_config: is missing; give DeepSpeed's json"),
        (["deepspeed", "--deepspeed_config", "none.json"], "error: none.json: No such file or directory"),
        (["torch_fsdp", "--fsdp_sharding_strategy", "no_shard"], "no_shard: shares nothing out; use"),
    ],
)
def test_bad_input_engines(
    run: dict[str, Any], capsys: pytest.CaptureFixture[str], flags: list[str], message: str
):
    assert command(train.main, *run["args"], "--train_engine", *flags) == 1
    assert message in one_error_line(capsys.readouterr().err)


def test_flags_of_another_engine_are_told():
    parser = argparse.ArgumentParser()
    parser.add_argument("--train_engine")
    add_engine_flags(parser)
    flags = ["--deepspeed_config", "x.json", "--fsdp_sharding_strategy", "zero3", "--timeout", "1200"]
    for engine, told in (
        ("torch_ddp", "no effect here: --deepspeed_config, --fsdp_sharding_strategy"),
        ("torch_fsdp", "no effect here: --deepspeed_config"),
        ("deepspeed", "no effect here: --fsdp_sharding_strategy"),
    ):
        args = parser.parse_args([*flags, "--train_engine", engine])
        assert idle_flags(args) == told and args.timeout == 1200


def test_bad_input_amp_on_a_cpu(run: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    assert command(train.main, *run["args"], "--use_amp") == 1
    assert one_error_line(capsys.readouterr().err).startswith(
        "error: --use_amp: is fp16, which is not for a CPU"
    )


def test_bad_input_modes_of_other_models_before_anything_is_decoded(
    run: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    modes = ["--modes", "llm_greedy", "ctc_prefix_beam_search", "--result_dir", run["folder"] / "none"]
    assert command(recognize.main, *decode(run, *modes)) == 1
    line = one_error_line(capsys.readouterr().err)
    assert "'ctc_prefix_beam_search'" in line and "llm_greedy, llm_beam, ctc_greedy_search" in line
    assert not (run["folder"] / "none").exists()


# --- device ---


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch):
    """A machine that shows so many CUDA cards."""

    def show(count: int, visible: str | None = None) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return show


def test_cuda_where_there_is_one(cards):
    cards(1)
    assert cuda_or_cpu(None) == "cuda" and cuda_or_cpu("cpu") == "cpu"
    cards(0)
    assert cuda_or_cpu(None) == "cpu" and cuda_or_cpu("cuda") == "cuda"  # which find_device refuses


def test_gpu_number_is_a_card_as_recipes_count_them(cards):
    cards(4)
    assert card(0) == ("cuda", 0) and card(3) == ("cuda", 3)
    cards(2, "2,3")
    assert card(3) == ("cuda", 1) and card(0) == ("cuda", 0)
    cards(0, "-1")
    assert card(0) == ("cpu", 0)


def test_bad_input_gpu_number(cards):
    cards(2)
    with pytest.raises(OsumError, match="--gpu 2: torch sees 2 CUDA devices; give 0 to 1"):
        card(2)


def test_gpu_zero_without_cuda_is_the_cpu(run: dict[str, Any], cards, capsys: pytest.CaptureFixture[str]):
    cards(0, "-1")
    assert command(recognize.main, *decode(run, "--gpu", "0")) == 0
    assert "torch sees no CUDA device: this runs on the CPU" in capsys.readouterr().err


def test_a_run_in_fp16_is_decoded_in_fp32_on_a_cpu(run: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    assert command(recognize.main, *decode(run, "--override_config", "dtype fp16")) == 0
    assert "decoding in fp32" in capsys.readouterr().err


def test_ranks_on_a_cpu_talk_by_gloo(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    backends: list[str] = []
    monkeypatch.setattr("torch.distributed.init_process_group", lambda b, **_: backends.append(b))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with caplog.at_level("INFO"):
        Engine("cpu")
        Engine("cpu", backend="gloo")
    assert backends == ["gloo", "gloo"]
    assert caplog.messages == ["nccl is for CUDA: ranks on cpu talk by gloo"]


# --- what learns ---


def test_freeze_modules_stops_what_has_the_word_in_its_name(run: dict[str, Any], tmp_path: Path):
    args = [*run["args"], "--model_dir", tmp_path / "exp", "--override_config", "max_epoch 1"]
    assert command(train.main, *args, "--freeze_modules", "encoder.,speech_bounds") == 0
    before, after = (read_state(tmp_path / "exp" / f"{name}.pt") for name in ("init", "final"))
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same >= {n for n in before if "encoder." in n or "speech_bounds" in n}
    assert not torch.equal(before["adapter.project.weight"], after["adapter.project.weight"])


def test_bad_input_freeze_modules():
    with pytest.raises(OsumError, match="--freeze_modules: no weight has 'encodr' in its name; .*encoder., "):
        freeze_modules(build(stage2_config()), ["adapter", "encodr"])


# --- files ---


def test_files_and_yaml_keys_are_wenets(run: dict[str, Any]):
    names = {p.name for p in run["exp"].iterdir() if p.suffix in (".pt", ".yaml")}
    # Two steps an epoch: in WeNet step_1 is the second one.
    tags = ["init", "step_1", "step_3", "epoch_0", "epoch_1"]
    assert names >= {"train.yaml", "final.pt", *(f"{t}.{end}" for t in tags for end in ("pt", "yaml"))}

    def facts(tag: str) -> dict[str, Any]:
        return yaml.safe_load((run["exp"] / f"{tag}.yaml").read_text(encoding="utf-8"))

    whole = {
        "model",
        "dataset_conf",
        "vocab_size",
        "output_dim",
        "input_dim",
        "dtype",
        "use_amp",
        "save_states",
    }
    whole |= {"train_engine", "model_dir"}
    first = facts("init")
    assert first["tag"] == "init" and first["save_time"] and "epoch" not in first
    for tag, epoch, step in (("step_1", 0, 1), ("epoch_0", 0, 2), ("step_3", 1, 3), ("epoch_1", 1, 4)):
        found = facts(tag)
        assert (found["tag"], found["epoch"], found["step"]) == (tag, epoch, step)
        assert found["lrs"] and found["save_time"] and found["loss_dict"].keys() >= {"loss", "acc"}
        assert found.keys() >= whole
    assert facts("train").keys() >= whole


def test_training_starts_over_from_init_pt(run: dict[str, Any], tmp_path: Path):
    args = [*run["args"], "--model_dir", tmp_path / "exp", "--override_config", "max_epoch 1"]
    assert command(train.main, *args, "--checkpoint", run["exp"] / "init.pt") == 0
    assert (tmp_path / "exp" / "epoch_0.pt").is_file()
    a, b = read_state(run["exp"] / "init.pt"), read_state(tmp_path / "exp" / "init.pt")
    assert all(torch.equal(t, b[n]) for n, t in a.items())


def test_curves_have_wenets_names(run: dict[str, Any], tmp_path: Path):
    log = EventAccumulator(str(run["folder"] / "tb" / "exp"))
    log.Reload()
    tags = set(log.Tags()["scalars"])
    assert tags >= {"train/train_loss", "train/grad_norm", "train/lr_0", "train/lr_1", "train/loss_llm"}
    assert tags >= {"cv/loss", "cv/acc", "epoch/loss", "epoch/acc"} and "train/loss" not in tags
    steps = {tag: sorted({e.step for e in log.Scalars(tag)}) for tag in ("cv/loss", "epoch/loss")}
    assert steps["cv/loss"] == [1, 3] and steps["epoch/loss"] == [0, 1]


# --- room in the position tables ---


def test_encoder_room_bounds_the_length():
    table, model = load_table({"tasks": None}), build(stage2_config())
    encode = lambda text: [0] * len(text)  # noqa: E731
    assert max_frames(model.encoder) == 3000 and max_frames(torch.nn.Linear(1, 1)) is None
    conf = leave_room(model, DATASET_DEFAULTS, table, encode)["filter_conf"]
    assert conf == {**DATASET_DEFAULTS["filter_conf"], "max_length": pytest.approx(3000.99, abs=0.01)}
    small = stage2_config()
    small["encoder_conf"]["max_positions"] = 50
    conf = leave_room(build(small), DATASET_DEFAULTS, table, encode)["filter_conf"]
    assert conf["max_length"] == pytest.approx(100.99, abs=0.01)
    whisper = leave_room(build(stage1_config()), DATASET_DEFAULTS, table, encode)["filter_conf"]
    assert whisper["token_max_length"] == 200
    shorter = {**DATASET_DEFAULTS, "filter_conf": {**DATASET_DEFAULTS["filter_conf"], "max_length": 500}}
    assert leave_room(model, shorter, table, encode)["filter_conf"]["max_length"] == 500


def test_bad_input_padding_beyond_the_encoder():
    mel = {**DATASET_DEFAULTS["log_mel_spectrogram_conf"], "pad_or_trim": True}
    table, model = load_table({"tasks": None}), build(stage2_config())
    fits = leave_room(model, {**DATASET_DEFAULTS, "log_mel_spectrogram_conf": mel}, table, len)
    assert fits["filter_conf"]["max_length"] == 10240  # every utterance becomes 30 s
    with pytest.raises(OsumError, match="max_duration: is 31 s, the encoder has positions for 3000 frames"):
        leave_room(
            model, {**DATASET_DEFAULTS, "log_mel_spectrogram_conf": {**mel, "max_duration": 31}}, table, len
        )


def test_bad_input_audio_longer_than_the_encoder_is_set_aside(tmp_path: Path):
    """In training and in decoding, at the last sample that fits, whatever filter_conf says."""
    small = stage2_config()
    small["encoder_conf"]["max_positions"] = 50  # 1 s
    config = run_config(tmp_path, small)
    lines = write_corpus(tmp_path / "data", 3).read_text(encoding="utf-8").splitlines()
    samples = [json.loads(line) for line in lines]
    for key, seconds in (("fits", 1.0099), ("long", 1.0101)):
        wav = write_wav(tmp_path / "data" / f"{key}.wav", seconds)
        samples.append({**samples[0], "key": key, "wav": str(wav)})
    data = write_list(tmp_path / "a.list", samples)
    exp = tmp_path / "exp"
    args = ["--train_data", data, "--cv_data", data, "--model_dir", exp, "--tensorboard_dir", tmp_path / "tb"]
    assert command(train.main, "--config", config, "--device", "cpu", *args) == 0
    run = {"exp": exp, "data": data, "folder": tmp_path}
    assert command(recognize.main, *decode(run)) == 0
    for path in (exp / "skipped.jsonl", tmp_path / "out" / "skipped.jsonl"):
        skipped = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert {(s["key"], s["cause"]) for s in skipped} == {("long", "too_long")}
    text = (tmp_path / "out" / "llm_greedy" / "text").read_text(encoding="utf-8")
    assert [line.split(" ")[0] for line in text.splitlines()] == ["u00", "u01", "u02", "fits"]
    assert load_config(exp / "train.yaml")["dataset_conf"]["filter_conf"]["max_length"] == 10240


def test_decoding_into_the_models_folder_keeps_what_training_listed(run: dict[str, Any]):
    (run["exp"] / "skipped.jsonl").write_text("training's\n")
    assert command(recognize.main, *decode(run, "--result_dir", run["exp"])) == 0
    assert (run["exp"] / "skipped.jsonl").read_text() == "training's\n"
    assert (run["exp"] / "decode.skipped.jsonl").read_text() == ""


def test_the_page_for_wenet_users_names_every_flag(capsys: pytest.CaptureFixture[str]):
    page = (Path(__file__).parents[1] / "docs" / "from-wenet.md").read_text(encoding="utf-8")
    for name, program, idle in (
        ("train", train, TRAIN),
        ("recognize", recognize, RECOGNIZE),
        ("average_model", average_model, {}),
    ):
        (row,) = re.findall(rf"^\| `{name}` \|(.*)\|$", page, re.M)
        same, differs, without = (set(re.findall("`(--[^`]+)`", cell)) for cell in row.split("|"))
        with pytest.raises(SystemExit):
            program.get_args(["--help"])
        known = set(re.findall(r"^  (--[\w.]+)", capsys.readouterr().out, re.M))
        assert without == set(idle) and not same & differs and same | differs <= known
        ours = {"--num_threads", "--task", "--labelled_only", "--resume", "--restart", "--worker_timeout"}
        parser = argparse.ArgumentParser()
        add_decode_flags(parser)
        ours |= {f"--{name}" for name in vars(parser.parse_args([]))}
        assert known - same - differs <= ours
