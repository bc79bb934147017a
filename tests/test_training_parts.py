"""Health, phases, the average of weights and the figures of a step, each alone and in a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import build, command, one_error_line, random_batch, run_config, stage2_config, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wenet_osum.bin import train
from wenet_osum.checkpoint.weights import read_state
from wenet_osum.errors import OsumError
from wenet_osum.train.ema import Ema
from wenet_osum.train.health import WARM_UP, Health
from wenet_osum.train.meter import Meter
from wenet_osum.train.phases import Phases

CONF = {"loss_ratio": 10.0, "max_bad_steps": 3}
LORA_MODEL = {"decoder_conf": {**stage2_config()["decoder_conf"], "lora": {}}}


def run_train(folder: Path, config: Path, data: Path, name: str, *more: object) -> int:
    args = ["--config", config, "--train_data", data, "--cv_data", data, "--model_dir", folder / name]
    args += ["--tensorboard_dir", folder / "tensorboard", "--num_threads", 1, "--device", "cpu"]
    return command(train.main, *args, *more)


# --- health ---


def test_a_loss_far_above_its_mean_is_bad_once_there_is_a_mean():
    health = Health(CONF)
    assert not health.judge(90.0, 1.0)  # the first losses of a run may be anything
    for _ in range(400):
        assert not health.judge(2.0, 1.0)
    assert health.mean == pytest.approx(2.0, rel=0.2)
    assert health.judge(30.0, 1.0).startswith("the loss is 30, its running mean")
    assert health.mean < 3 and not health.judge(3.0, 1.0)  # a bad loss is not in the mean
    assert "norm is nan" in health.judge(2.0, float("nan"))


def test_health_off_asks_for_finite_numbers_only():
    health = Health({**CONF, "loss_ratio": 0})
    assert not any(health.judge(loss, 1.0) for loss in [1.0] * (WARM_UP + 5) + [1e9])
    assert health.judge(float("inf"), 1.0)


def test_bad_steps_count_within_a_thousand():
    health = Health(CONF)
    for step in (0, 500, 1401, 2399):  # never three within a thousand
        health.note_bad(step, "why", "where")
    with pytest.raises(OsumError, match="3 of the last 1000 steps were bad, the last: nan"):
        health.note_bad(2399 + 1, "nan", "where")


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.1, 100), max_size=80), st.integers(0, 80))
def test_health_goes_on_from_its_state(losses: list[float], cut: int):
    whole, first = Health(CONF), Health(CONF)
    said = [whole.judge(x, 1.0) for x in losses]
    again = [first.judge(x, 1.0) for x in losses[:cut]]
    second = Health(CONF)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert again + [second.judge(x, 1.0) for x in losses[cut:]] == said
    assert second.state_dict() == whole.state_dict()


# --- phases ---


def test_phases_by_step():
    model = build(stage2_config(**LORA_MODEL))
    conf = [{"steps": 2, "trainable": ["adapter"]}, {"steps": 3, "trainable": ["adapter", "encoder"]}]
    phases = Phases([*conf, {"trainable": ["lora"]}], model)
    assert [phases.at(step) for step in (0, 1, 2, 4, 5, 10**9)] == [0, 0, 1, 1, 2, 2]
    assert phases.everything() == ["adapter", "encoder", "lora"]
    assert Phases([], model).at(7) == 0 and Phases([], model).everything() is None


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ([{"trainable": ["adapter"]}, {"trainable": ["lora"]}], "phases[0].steps: is missing"),
        ([{"steps": 0, "trainable": ["adapter"]}], "phases[0].steps: is 0"),
        ([{"trainable": []}], "phases[0].trainable: is []"),
        ([{"trainable": ["ear"]}], "no part 'ear'; choose from encoder, adapter, llm, lora, ctc"),
        ([{"step": 3, "trainable": ["adapter"]}], "write {steps: N, trainable: [part, ...]}"),
        (["adapter"], "phases[0]: is 'adapter'"),
    ],
)
def test_bad_input_phases(conf: list[Any], words: str):
    with pytest.raises(OsumError) as e:
        Phases(conf, build(stage2_config(**LORA_MODEL)))
    assert words in str(e.value)


@pytest.mark.integration
def test_a_part_learns_in_its_phase_and_in_no_other(tmp_path: Path):
    """The authors' order in one run; and going on from a state in the middle of a phase is the same run."""
    data = write_corpus(tmp_path / "data", 6)
    phases = [
        {"steps": 2, "trainable": ["adapter"]},
        {"steps": 2, "trainable": ["adapter", "encoder"]},
        {"trainable": ["lora"]},
    ]
    model = stage2_config(**LORA_MODEL)
    config = run_config(tmp_path, model, phases=phases, max_epoch=6, save_interval=1, keep_states=99)
    assert run_train(tmp_path, config, data, "m") == 0
    states = [read_state(tmp_path / "m" / f"{tag}.pt") for tag in ("init", *(f"step_{i}" for i in range(6)))]

    def moved(step: int) -> set[str]:
        parts = {"adapter": "adapter", "speech_bounds": "adapter", "encoder": "encoder", "ctc": "ctc"}
        names = {n for n, t in states[step].items() if not torch.equal(t, states[step + 1][n])}
        return {parts.get(n.split(".")[0], "lora" if "lora_" in n else "llm") for n in names}

    assert [moved(i) for i in range(6)] == [{"adapter"}] * 2 + [{"adapter", "encoder"}] * 2 + [{"lora"}] * 2
    state = tmp_path / "m" / "states" / "step_00000003"
    assert run_train(tmp_path, config, data, "m", "--resume", state) == 0
    again = read_state(tmp_path / "m" / "step_5.pt")
    assert all(torch.equal(t, again[n]) for n, t in states[-1].items())


@pytest.mark.integration
def test_bad_input_phases_beside_trainable(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = write_corpus(tmp_path / "data", 2)
    both = {**stage2_config()["model_conf"], "trainable": ["adapter"]}
    config = run_config(tmp_path, stage2_config(model_conf=both), phases=[{"trainable": ["llm"]}])
    assert run_train(tmp_path, config, data, "m") == 1
    assert "model_conf.trainable: is given beside phases" in one_error_line(capsys.readouterr().err)


# --- average ---


def test_average_of_weights():
    layer = nn.Linear(2, 2)
    ema = Ema(dict(layer.named_parameters()), 0.5)
    first = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
    ema.update()  # at first with decay 2 / 11
    torch.testing.assert_close(ema.averages["weight"], first + 9 / 11)
    now = layer.weight.detach().clone()
    with ema.in_place():
        torch.testing.assert_close(layer.weight, first + 9 / 11)
    assert torch.equal(layer.weight, now)
    other = Ema(dict(nn.Linear(2, 2).named_parameters()), 0.5)
    other.load_state_dict(ema.state_dict())
    assert other.count == 1 and torch.equal(other.averages["weight"], ema.averages["weight"])


@pytest.mark.integration
def test_checkpoints_hold_the_average(tmp_path: Path):
    data = write_corpus(tmp_path / "data", 6)
    config = run_config(tmp_path, stage2_config(), ema_decay=0.9)
    assert run_train(tmp_path, config, data, "m") == 0
    kept, (state,) = read_state(tmp_path / "m" / "epoch_0.pt"), (tmp_path / "m" / "states").iterdir()
    averages = torch.load(state / "ema.pt", weights_only=True)
    last = torch.load(state / "model.pt", weights_only=True)
    assert int(averages.pop("count")) == 2
    assert all(torch.equal(kept[n], t) for n, t in averages.items())
    assert any(not torch.equal(last[n], t) for n, t in averages.items())


# --- figures ---


def test_losses_by_task_are_those_of_their_utterances():
    """A batch of two tasks: each one's figure is the model's loss over its utterances alone."""
    model = build(stage2_config())
    batch = {**random_batch([40, 61, 33, 52]), "tasks": ["asr", "ser", "asr", "asr"]}
    batch["target_weights"][1, :1] *= 5

    def figures(batch: dict[str, Any]) -> dict[str, float]:
        meter = Meter(["asr", "ser", "sgc"])
        meter.begin()
        count = float(batch["target_weights"].sum())
        with torch.no_grad():
            out = model({**batch, "normalizers": {"target": count, "ctc": 1.0}}, torch.device("cpu"))
        meter.add(batch, out, weight=count)
        return meter.end(lambda *values: list(values), mean=True)

    def rows(which: list[int]) -> dict[str, Any]:
        pick = {n: v[which] if isinstance(v, torch.Tensor) else v for n, v in batch.items()}
        return {**pick, "tasks": [batch["tasks"][i] for i in which], "keys": which}

    whole, asr, ser = figures(batch), figures(rows([0, 2, 3])), figures(rows([1]))
    assert whole["loss/asr"] == pytest.approx(asr["loss"], abs=1e-5)
    assert whole["loss/ser"] == pytest.approx(ser["loss"], abs=1e-5)
    assert "loss/sgc" not in whole and whole["loss/asr"] != pytest.approx(whole["loss/ser"], abs=1e-3)
    assert whole["padding"] == pytest.approx(1 - (40 + 61 + 33 + 52) / (4 * 61))


@pytest.mark.integration
def test_a_run_logs_what_it_does(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = write_corpus(tmp_path / "data", 6)
    config = run_config(tmp_path, stage2_config(), cv_decode_conf={"utterances": 2})
    assert run_train(tmp_path, config, data, "m") == 0
    events = EventAccumulator(str(tmp_path / "tensorboard" / "m"))
    events.Reload()
    names = set(events.Tags()["scalars"])
    train_names = ("train_loss", "acc", "padding", "target_share", "grad_norm", "lr_0", "memory_gb")
    rates = ("utterances_per_second", "positions_per_second")
    assert names >= {f"train/{n}" for n in (*train_names, *rates)} | {"epoch/loss", "epoch/acc"}
    tasks = {"loss/asr", "loss/ser", "loss/sttc"}
    assert tasks & {n.removeprefix("train/") for n in names} and {"epoch/loss/asr"} <= names
    assert {"epoch/ser/accuracy", "epoch/sttc/exact"} <= names
    assert any(n.startswith("epoch/asr/") for n in names)
    lines = [json.loads(line) for line in (tmp_path / "m" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 2] and lines[-1]["dev"]["loss"] > 0
    first = events.Scalars("train/train_loss")[0].value
    assert first == pytest.approx(lines[0]["loss"], rel=1e-6)
