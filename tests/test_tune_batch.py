"""osum tune-batch: the worst batches of a size, the search, trials in processes of their own, the file."""

from __future__ import annotations

import os
import signal
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import LLM, build, command, one_error_line, run_config, stage1_config, stage2_config
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wenet_osum import cli
from wenet_osum.bin import tune_batch
from wenet_osum.bin.tune_batch import Tuner
from wenet_osum.checkpoint.assemble import prepare_configs
from wenet_osum.config import DATASET_DEFAULTS, check_config, load_config
from wenet_osum.dataset.features import log_mel_spectrogram
from wenet_osum.dataset.filter import check_answer
from wenet_osum.dataset.plan import cut_dynamic
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.text import init_tokenizer
from wenet_osum.train.trial import (
    Outcome,
    Trial,
    fake_batch,
    free_memory,
    random_model,
    run_shapes,
    run_trial,
)
from wenet_osum.train.tune import (
    Room,
    Shape,
    feature_frames,
    largest,
    undominated,
    worst_by_budget,
    worst_by_count,
)
from wenet_osum.wenet.encoders import build_model

FILTER = DATASET_DEFAULTS["filter_conf"]


def dataset_conf(**changes: Any) -> dict[str, Any]:
    return check_config({"dataset_conf": changes}, "here")["dataset_conf"]


# The worst batches


@st.composite
def filters(draw: st.DrawFn) -> dict[str, Any]:
    low, high = sorted(draw(st.tuples(st.integers(0, 40), st.integers(1, 40))))
    least, most = sorted(draw(st.tuples(st.integers(0, 12), st.integers(1, 12))))
    sparse, dense = sorted(draw(st.tuples(st.sampled_from([0, 0.1, 0.5]), st.sampled_from([0.3, 1.0, 100]))))
    return {
        "min_length": low,
        "max_length": high,
        "token_min_length": least,
        "token_max_length": most,
        "min_output_input_ratio": sparse,
        "max_output_input_ratio": dense,
    }


def let_through(limits: dict[str, Any]) -> list[tuple[int, int]]:
    """(frames, tokens) of every utterance that the index keeps, of those with a frame and a token."""
    pairs = []
    for frames, tokens in product(range(1, 41), range(1, 13)):
        try:
            check_answer("k", tokens, frames, limits)
        except BadUtterance:
            continue
        if limits["min_length"] <= frames <= limits["max_length"]:
            pairs.append((frames, tokens))
    return pairs


@settings(max_examples=150, deadline=None)
@given(filters(), st.integers(1, 300), st.integers(1, 100))
def test_the_worst_batches_of_a_budget_are_batches_of_the_plan_and_bound_them(
    limits: dict[str, Any], frames: int, tokens: int
):
    pairs = let_through(limits)
    assume(pairs)
    room = Room(limits)
    shapes = worst_by_budget(frames, tokens, room)
    for s in shapes:  # none that cannot be
        assert (s.frames, s.tokens) in pairs
        assert cut_dynamic([s.frames] * s.rows, [s.tokens] * s.rows, frames, tokens) == [0]
    # ... and the longest utterance, the longest answer, the most rows are among them.
    assert max(s.frames for s in shapes) == max(f for f, _ in pairs)
    assert max(s.tokens for s in shapes) == max(t for _, t in pairs)
    assert max(s.rows for s in shapes) == max(max(1, min(frames // f, tokens // t)) for f, t in pairs)
    longest = [s for s in shapes if s.frames == room.longest]
    least = min(t for f, t in pairs if f == room.longest)
    assert max(s.rows for s in longest) == max(1, min(frames // room.longest, tokens // least))


@settings(max_examples=100, deadline=None)
@given(filters(), st.integers(1, 40), st.integers(1, 45))
def test_the_worst_batch_of_a_bucket_is_its_longest_utterance(limits: dict[str, Any], low: int, high: int):
    pairs = [(f, t) for f, t in let_through(limits) if low <= f < high]
    assume(let_through(limits))
    got = worst_by_count(3, Room(limits), low, high)
    assert got == ([Shape(3, *map(max, zip(*pairs)))] if pairs else [])


def test_bad_input_a_filter_that_lets_nothing_through():
    for change in ({"min_length": 20000}, {"token_min_length": 300}, {"max_output_input_ratio": 0.0}):
        with pytest.raises(OsumError, match="filter_conf"):
            Room({**FILTER, **change})


def test_what_another_shape_exceeds_is_left_out():
    a, b, c = Shape(2, 100, 5), Shape(2, 90, 5), Shape(3, 90, 4)
    assert undominated([a, b, c, a]) == [a, c]


@settings(max_examples=40, deadline=None)
@given(st.integers(30, 1500), st.sampled_from([0, 300]), st.sampled_from([80, 160, 200]))
def test_feature_frames_are_those_of_the_features(frames: int, padding: int, hop: int):
    mel = {**DATASET_DEFAULTS["log_mel_spectrogram_conf"], "padding": padding, "hop_length": hop}
    conf = dataset_conf(log_mel_spectrogram_conf=mel)
    assert feature_frames(frames, conf) == len(log_mel_spectrogram(np.zeros(frames * 160), **mel))
    slow = dataset_conf(log_mel_spectrogram_conf=mel, speed_perturb=True)
    assert feature_frames(900, slow) == feature_frames(1000, conf)
    slow["filter_conf"]["max_length"] = 950
    assert feature_frames(900, slow) == feature_frames(950, conf)
    slow["log_mel_spectrogram_conf"]["pad_or_trim"] = True
    assert feature_frames(900, slow) == 30 * 16000 // hop


# The search


@given(st.integers(0, 5000), st.integers(1, 50), st.integers(50, 4000))
def test_search_finds_the_largest(edge: int, first: int, most: int):
    asked: list[int] = []

    def fits(size: int) -> bool:
        asked.append(size)
        return size <= edge

    size = largest(fits, first, most)
    if edge < first:
        assert size == 0 and asked == [first]
        return
    assert first <= size <= min(edge, most)
    assert min(edge, most) - size <= max(1, 0.05 * size)
    assert len(asked) == len(set(asked)) < 22
    # Never far beyond what fits: on a CPU a trial that is too large takes the whole machine with it.
    assert max(asked) <= max(first, 2 * edge)


def tuner(conf: dict[str, Any], bytes_per_frame: float, limit: float = 1e6) -> Tuner:
    """A device on which a batch takes so many bytes for each of its padded frames and 50 for each token."""

    def run(trial: Trial, shapes: list[Shape]) -> Outcome:
        peak = max(s.rows * (bytes_per_frame * s.frames + 50 * s.tokens) for s in shapes)
        return Outcome(peak <= limit, int(peak), int(limit), "" if peak <= limit else "over the limit")

    trial = Trial({"dataset_conf": conf}, build, 5, "cpu", "fp32", 1, 1.0)
    return Tuner(trial, conf, run)


LIMITS = {**FILTER, "min_length": 50, "max_length": 1000, "token_max_length": 100}


def test_static_sizes_fit():
    conf = dataset_conf(filter_conf=LIMITS, batch_conf={"batch_type": "static"})
    assert tuner(conf, 95).sizes() == {"batch_size": 10}  # 1 M / (95,000 + 5,000)


def test_bucket_sizes_fit_each_for_itself():
    edges = {"bucket_boundaries": [50, 101, 501, 2000], "bucket_batch_sizes": [7, 1, 1, 1, 9]}
    conf = dataset_conf(filter_conf=LIMITS, batch_conf={"batch_type": "bucket", **edges})
    found = tuner(conf, 95).sizes()["bucket_batch_sizes"]
    # Nothing is shorter than 50 or longer than 1,000: those two stay as they are.
    assert (found[0], found[3], found[4]) == (7, 10, 9)
    assert 66 * 0.95 <= found[1] <= 68 and found[2] == 19


@pytest.mark.parametrize("batch_type", ["dynamic", "pack"])
def test_budgets_fit_and_keep_their_ratio(batch_type: str):
    batch = {"batch_type": batch_type, "max_frames_in_batch": 12000, "max_tokens_in_batch": 3000}
    conf = dataset_conf(filter_conf=LIMITS, batch_conf=batch)
    found = tuner(conf, 50).sizes()
    frames, tokens = found["max_frames_in_batch"], found["max_tokens_in_batch"]
    assert tokens == round(frames / 4) and 0.9 * 16000 < frames <= 16000 * 1.02


def test_bad_input_one_utterance_that_does_not_fit(caplog: pytest.LogCaptureFixture):
    for batch_type in ("static", "dynamic"):
        conf = dataset_conf(filter_conf=LIMITS, batch_conf={"batch_type": batch_type})
        with pytest.raises(OsumError, match=r"not even 1 x 10\.00 s, 100 tokens .*gradient_checkpointing"):
            tuner(conf, 2000).sizes()


def write_system(root: Path, files: dict[str, str]) -> tuple[Path, Path]:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root / "proc", root / "cgroup"


def test_free_memory_is_the_machines_or_the_containers(tmp_path: Path):
    meminfo = {"proc/meminfo": "MemTotal:  16000 kB\nMemAvailable:  9000 kB\n"}
    v1 = {
        "limit_in_bytes": "4096000",
        "usage_in_bytes": "3000000",
        "stat": "cache 5\ntotal_inactive_file 500000",
    }
    v2 = {"max": "7000000", "current": "6000000", "stat": "anon 5\ninactive_file 2000000\n"}
    assert free_memory(*write_system(tmp_path / "a", meminfo)) == 9216000
    one = {f"cgroup/memory/memory.{n}": text for n, text in v1.items()}
    assert free_memory(*write_system(tmp_path / "b", {**meminfo, **one})) == 1596000
    two = {f"cgroup/memory.{n}": text for n, text in v2.items()}
    assert free_memory(*write_system(tmp_path / "c", {**meminfo, **two})) == 3000000
    unlimited = {**meminfo, **two, "cgroup/memory.max": "max\n"}
    assert free_memory(*write_system(tmp_path / "d", unlimited)) == 9216000
    with pytest.raises(OsumError, match="give it in GB"):
        free_memory(tmp_path, tmp_path)


# Trials


def trial_of(folder: Path, config: dict[str, Any], build: Any = build_model, **changes: Any) -> Trial:
    configs = load_config(run_config(folder, config, **changes))
    prepare_configs(configs, init_tokenizer(configs))
    return Trial(configs, build, 7, "cpu", "fp32", int(100e9), 1.0)


TIED = stage2_config(decoder_conf={"llm_config": {**LLM, "tie_word_embeddings": True}, "lora": {}})


@pytest.mark.parametrize("config", [TIED, stage1_config()], ids=["tied_lora", "stage1"])
def test_the_model_without_its_weights_has_the_same_shape(tmp_path: Path, config: dict[str, Any]):
    trial = trial_of(tmp_path, config)
    real, fake = build_model(trial.configs), random_model(trial, torch.device("cpu"))
    facts = [
        {n: (p.shape, p.dtype, p.requires_grad) for n, p in model.named_parameters()}
        for model in (real, fake)
    ]
    assert facts[0] == facts[1]  # a tied weight is there once, under one name
    assert {n: b.shape for n, b in real.named_buffers()} == {n: b.shape for n, b in fake.named_buffers()}


def test_a_fake_batch_has_its_shape_and_is_always_the_same(tmp_path: Path):
    configs = trial_of(tmp_path, stage2_config()).configs
    batch, again = (fake_batch(Shape(3, 120, 6), configs, 4) for _ in range(2))
    assert batch["feats"].shape == (3, 120, 80) and batch["feats_lengths"].tolist() == [120] * 3
    assert batch["target"].shape == (3, 6) and batch["target_weights"].shape == (3, 7)
    assert batch["prompt"].shape == (3, 4) and torch.equal(batch["feats"], again["feats"])
    configs["dataset_conf"]["batch_conf"]["batch_type"] = "pack"
    assert torch.equal(fake_batch(Shape(3, 120, 6), configs, 4)["feats"], batch["feats"].reshape(360, 80))


@pytest.mark.parametrize("config", [TIED, stage1_config()], ids=["stage2", "stage1"])
def test_a_trial_trains_a_step_on_every_shape(
    tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    trial, seen = trial_of(tmp_path, config, accum_grad=4, ema_decay=0.9), []

    def note(shape: Shape, configs: dict[str, Any], prompt: int) -> Any:
        seen.append(shape)
        return fake_batch(shape, configs, prompt)

    monkeypatch.setattr("wenet_osum.train.trial.fake_batch", note)
    shapes = [Shape(2, 100, 3), Shape(1, 150, 5)]
    outcome = run_shapes(trial, shapes)
    assert outcome.fits and 0 < outcome.peak < outcome.limit == 100e9
    once = [shapes[0], shapes[0], shapes[1], shapes[1]]  # two batches a step, for the gradients between them
    assert seen == [Shape(1, 100, 1)] * 2 + once + once
    trial.configs["dataset_conf"]["batch_conf"]["batch_type"] = "pack"
    assert run_shapes(trial, shapes).fits
    over = run_shapes(trial._replace(memory=1000), shapes)
    assert not over.fits and over.why == "over the limit"


def dies(configs: dict[str, Any]) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def complains(configs: dict[str, Any]) -> Any:
    raise OsumError("decoder_conf.llm", "no such folder", "check it")


def breaks(configs: dict[str, Any]) -> Any:
    raise ValueError("a fault of ours")


def is_refused(configs: dict[str, Any]) -> Any:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")


def eats(configs: dict[str, Any]) -> Any:
    kept = [torch.ones(30_000_000, device="cpu") for _ in range(1000)]  # 120 GB, if it were let
    return kept


@pytest.mark.slow
def test_a_trial_that_dies_is_an_answer_and_one_that_breaks_is_an_error(tmp_path: Path):
    trial = trial_of(tmp_path, stage2_config())
    shapes = [Shape(1, 100, 3)]
    assert run_trial(trial._replace(build=dies), shapes).why == "killed by the system"
    assert run_trial(trial._replace(build=is_refused), shapes).why == "out of memory"
    over = run_trial(trial._replace(build=eats, memory=1_500_000_000), shapes)
    assert over.why == "over the limit" and 1.5e9 < over.peak < 8e9
    with pytest.raises(OsumError, match="no such folder; check it"):
        run_trial(trial._replace(build=complains), shapes)
    with pytest.raises(OsumError, match="exit status 1"):
        run_trial(trial._replace(build=breaks), shapes)
    assert run_trial(trial, shapes).fits


@pytest.mark.slow
def test_tune_batch_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The size found keeps to the limit when it is run again, and twice the size does not."""
    batch = {"batch_type": "static", "batch_size": 2}
    limits = {**FILTER, "max_length": 2500}
    wide = stage2_config(decoder_conf={"llm_config": {**LLM, "intermediate_size": 2048}})
    config = run_config(tmp_path, wide, dataset_conf={"batch_conf": batch, "filter_conf": limits})
    out = tmp_path / "tuned.yaml"
    args = [config, "--device", "cpu", "--memory", 1.0, "--num_threads", 1, "--write", out]
    assert command(tune_batch.main, *args) == 0
    shown = capsys.readouterr().out
    tuned, before = (yaml.safe_load(p.read_text(encoding="utf-8")) for p in (out, config))
    size = tuned["dataset_conf"]["batch_conf"].pop("batch_size")
    del before["dataset_conf"]["batch_conf"]["batch_size"]
    assert size > 2 and tuned == before
    assert f"batch_size: {size}" in shown and "fits" in shown and "over the limit" in shown
    configs = load_config(out)
    prepare_configs(configs, init_tokenizer(configs))
    trial = Trial(configs, build_model, 7, "cpu", "fp32", int(1e9), 0.9)
    again = run_trial(trial, [Shape(size, 2500, 200)], 1)
    assert again.fits and again.peak <= 0.9e9
    assert not run_trial(trial, [Shape(2 * size, 2500, 200)], 1).fits


def test_bad_input_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = run_config(tmp_path, stage2_config())
    before = config.read_bytes()
    assert command(tune_batch.main, config, "--write", config) == 1
    assert "is there already; give another name, or --force" in one_error_line(capsys.readouterr().err)
    assert config.read_bytes() == before
    for flags in (["--memory", "0"], ["--headroom", "1.5"], ["--headroom", "x"], ["--device", "mps"]):
        assert command(tune_batch.main, config, *flags) == 2
    assert "--headroom" in capsys.readouterr().err


def test_the_command_has_a_hyphen_or_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name in ("tune-batch", "tune_batch"):
        monkeypatch.setattr("sys.argv", ["osum", name, "--help"])
        with pytest.raises(SystemExit):
            cli.main()
        assert "usage: osum tune-batch" in capsys.readouterr().out


def test_the_copy_keeps_what_the_config_had(tmp_path: Path):
    source, target = tmp_path / "a.yaml", tmp_path / "b.yaml"
    source.write_text("model: osum\ndataset_conf:\nseed: 3\n")
    tune_batch.write_copy(str(source), str(target), ["dataset_conf.shuffle=false"], {"batch_size": 4}, False)
    assert yaml.safe_load(target.read_text()) == {
        "model": "osum",
        "dataset_conf": {"shuffle": False, "batch_conf": {"batch_size": 4}},
        "seed": 3,
    }
    with pytest.raises(OsumError, match="already"):
        tune_batch.write_copy(str(source), str(source), [], {"batch_size": 4}, False)
    tune_batch.write_copy(str(source), str(source), [], {"batch_size": 4}, True)
    assert yaml.safe_load(source.read_text())["dataset_conf"] == {"batch_conf": {"batch_size": 4}}
