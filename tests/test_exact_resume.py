"""A run that is killed and taken up again is the run that was never killed, to the bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import LLM, command, one_error_line, run_config, stage2_config, write_corpus

from wenet_osum.bin import train
from wenet_osum.checkpoint.weights import read_state
from wenet_osum.errors import run_main
from wenet_osum.train.state import find_state, whole_states

DATA: dict[str, Any] = {
    "batch_conf": {"batch_type": "static", "batch_size": 2},
    "prompt_conf": {"style": "tag"},
    "task_weights": {"asr": 1, "ser": 1, "sttc": 1},
    "speed_perturb": True,
    "spec_aug": True,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 24)


def config_of(folder: Path, **changes: Any) -> Path:
    """Everything that is random is on: speed, masks, the order, the tasks, dropout, and so is the average."""
    model = stage2_config()
    model["encoder_conf"]["dropout_rate"] = 0.2
    model["model_conf"]["ctc_weight"] = 0.3
    settings = {"dataset_conf": DATA, "max_epoch": 2, "state_interval": 3, "ema_decay": 0.9}
    return run_config(folder, model, **{**settings, **changes})


def arguments(config: Path, data: Path, model_dir: Path, workers: int, *more: object) -> list[str]:
    args = ["--config", config, "--train_data", data, "--cv_data", data, "--model_dir", model_dir]
    args += ["--tensorboard_dir", model_dir.parent / "tensorboard", "--num_threads", 1, "--device", "cpu"]
    return [str(a) for a in [*args, "--num_workers", workers, "--resume", "auto", *more]]


def one_rank(rank: int, ranks: int, port: int, args: list[str], log: Path) -> None:
    os.setsid()  # its data workers are killed with it
    if ranks > 1:
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank), **where)
    sys.stdout = sys.stderr = open(log, "a", buffering=1)
    torch.set_num_threads(1)
    run_main(lambda: train.main(args))


def start(args: list[str], ranks: int, log: Path) -> list[Any]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context = multiprocessing.get_context("fork")  # without importing torch anew
    run = [context.Process(target=one_rank, args=(r, ranks, port, args, log)) for r in range(ranks)]
    for process in run:
        process.start()
    return run


def finish(run: list[Any], log: Path) -> list[int | None]:
    for process in run:
        process.join(timeout=120)
    codes = [process.exitcode for process in run]
    kill(run, signal.SIGKILL)
    return codes


def kill(run: list[Any], how: int) -> None:
    for process in run:
        if process.is_alive():
            os.killpg(process.pid, how)
    for process in run:
        process.join(timeout=30)


def steps(model_dir: Path) -> list[dict[str, Any]]:
    """The lines of ``log.jsonl`` that tell of steps, less what depends on the clock; the dev lines whole."""
    path = model_dir / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    if lines and not lines[-1].endswith("\n"):  # it is just being written
        lines.pop()
    drop = ("memory_gb", "utterances_per_second", "positions_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in drop} for line in lines]


def wait_for(model_dir: Path, count: int, run: list[Any]) -> None:
    until = time.monotonic() + 60
    while len(steps(model_dir)) < count and any(p.is_alive() for p in run) and time.monotonic() < until:
        time.sleep(0.002)


def check_same(broken: Path, whole: Path) -> None:
    assert steps(broken) == steps(whole)
    for name in ("epoch_0.pt", "epoch_1.pt", "final.pt"):
        a, b = read_state(broken / name), read_state(whole / name)
        assert a.keys() == b.keys() and all(torch.equal(t, b[n]) for n, t in a.items()), name
    a, b = (torch.load(next(whole_states(d)) / "optimizer.pt", weights_only=True) for d in (broken, whole))
    for key, moments in a["state"].items():
        assert all(torch.equal(t, b["state"][key][n]) for n, t in moments.items())


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 2), (2, 0), (2, 2)])
def test_exact_resume_after_five_kills(tmp_path: Path, corpus: Path, ranks: int, workers: int):
    config, log = config_of(tmp_path), tmp_path / "log.txt"
    run = start(arguments(config, corpus, tmp_path / "whole", workers), ranks, log)
    assert finish(run, log) == [0] * ranks, log.read_text()
    total = len(steps(tmp_path / "whole"))
    assert total == 2 * 12 // ranks + 2
    args = arguments(config, corpus, tmp_path / "broken", workers)
    points = sorted(random.Random(ranks * 10 + workers).sample(range(1, total), 5))
    for point in points:
        run = start(args, ranks, log)
        wait_for(tmp_path / "broken", point, run)
        kill(run, signal.SIGKILL)
    run = start(args, ranks, log)
    assert finish(run, log) == [0] * ranks, log.read_text()
    assert "--resume auto: " + str(tmp_path / "broken" / "states") in log.read_text()
    check_same(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.integration
def test_exact_resume_after_sigterm(tmp_path: Path, corpus: Path):
    """SIGTERM saves where the run stands, though no state was due, and ends it with a status of its own."""
    config, log = config_of(tmp_path, state_interval=1000), tmp_path / "log.txt"
    for name in ("whole", "broken"):
        args = arguments(config, corpus, tmp_path / name, 0)
        run = start(args, 1, log)
        if name == "broken":
            wait_for(tmp_path / "broken", 4, run)
            kill(run, signal.SIGTERM)
            assert finish(run, log) == [train.STOPPED]
            assert "stopped by SIGTERM at step" in log.read_text()
            stopped = len(steps(tmp_path / "broken"))
            assert 4 <= stopped < 20
            folder = find_state("auto", tmp_path / "broken")
            assert folder is not None and folder.name == f"step_{stopped:08d}"
            run = start(args, 1, log)
        assert finish(run, log) == [0], log.read_text()
    check_same(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.integration
def test_resume_with_another_number_of_ranks_goes_on_with_the_same_utterances(tmp_path: Path, corpus: Path):
    """Begun by two ranks, ended by one that accumulates over two batches: the same steps, then the same plan."""
    plain = {k: v for k, v in DATA.items() if k not in ("speed_perturb", "spec_aug")}
    config, log = config_of(tmp_path, dataset_conf=plain), tmp_path / "log.txt"
    run = start(arguments(config, corpus, tmp_path / "whole", 0), 2, log)
    assert finish(run, log) == [0, 0], log.read_text()
    run = start(arguments(config, corpus, tmp_path / "m", 0), 2, log)
    wait_for(tmp_path / "m", 4, run)
    kill(run, signal.SIGKILL)
    run = start(arguments(config, corpus, tmp_path / "m", 0, "--override_config", "accum_grad=2"), 1, log)
    assert finish(run, log) == [0], log.read_text()
    mixed, whole = steps(tmp_path / "m"), steps(tmp_path / "whole")
    assert [m["step"] for m in mixed] == [w["step"] for w in whole]
    for m, w in zip(mixed, whole):
        m, w = m.get("dev", m), w.get("dev", w)
        assert m.keys() == w.keys()
        assert all(m[k] == pytest.approx(w[k], abs=1e-4) for k in m), (m, w)


@pytest.mark.integration
def test_resume_auto_takes_the_newest_whole_state(tmp_path: Path, corpus: Path):
    config = config_of(tmp_path, max_epoch=1, keep_states=3)
    args = arguments(config, corpus, tmp_path / "m", 0)
    assert command(train.main, *args) == 0
    found = list(whole_states(tmp_path / "m"))
    assert [f.name for f in found] == ["step_00000012", "step_00000009", "step_00000006"]
    (found[0] / "optimizer.pt").write_bytes(b"half")
    (found[1] / "state.json").unlink()
    (tmp_path / "m" / "states" / ".step_00000013.tmp").mkdir()
    assert find_state("auto", tmp_path / "m") == found[2]
    before = read_state(tmp_path / "m" / "final.pt")
    (tmp_path / "m" / "epoch_0.yaml").unlink()
    assert command(train.main, *args) == 0
    after = read_state(tmp_path / "m" / "final.pt")
    assert all(torch.equal(t, after[n]) for n, t in before.items())
    assert [s["step"] for s in steps(tmp_path / "m")] == [*range(1, 13), 12]


@pytest.mark.integration
def test_bad_input_resume_of_another_run(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]):
    args = arguments(config_of(tmp_path, max_epoch=1), corpus, tmp_path / "m", 0)
    assert command(train.main, *args) == 0
    capsys.readouterr()
    for more, words in (
        (["--override_config", "optim_conf.lr=0.5"], "was saved with optim_conf.lr 0.001, this run has 0.5"),
        (["--train_data", write_corpus(tmp_path / "other", 7)], "other training utterances"),
        (["--resume", tmp_path / "m"], "is no whole state"),
    ):
        assert command(train.main, *args, "--override_config", "max_epoch=2", *more) == 1
        assert words in one_error_line(capsys.readouterr().err)
    # What is done is not done again: nothing is trained, the checkpoint stays.
    stamp = (tmp_path / "m" / "epoch_0.pt").stat().st_mtime_ns
    assert command(train.main, *args) == 0
    assert (tmp_path / "m" / "epoch_0.pt").stat().st_mtime_ns == stamp


@pytest.mark.integration
def test_bad_input_full_disk_leaves_the_last_state_whole(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from wenet_osum.train import state

    args = arguments(config_of(tmp_path, max_epoch=1), corpus, tmp_path / "m", 0)
    save, calls = state.save_tensors, []

    def full(content: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) > 3:
            raise OSError(28, "No space left on device", str(path))
        save(content, path)

    monkeypatch.setattr(state, "save_tensors", full)
    assert command(train.main, *args) == 1
    assert "No space left on device" in one_error_line(capsys.readouterr().err)
    monkeypatch.undo()
    left = find_state("auto", tmp_path / "m")
    assert left is not None and left.name == "step_00000003"
    assert command(train.main, *args) == 0


@pytest.mark.integration
def test_resume_from_an_older_state_and_from_none(tmp_path: Path, corpus: Path):
    """What came after is another run's: it is not kept in the place of new states, and never taken up."""
    config = config_of(tmp_path, max_epoch=1, keep_states=3)
    args = arguments(config, corpus, tmp_path / "m", 0)
    assert command(train.main, *args) == 0
    newest, middle, oldest = whole_states(tmp_path / "m")
    final = read_state(tmp_path / "m" / "final.pt")
    assert command(train.main, *args, "--resume", oldest) == 0
    assert [f.name for f in whole_states(tmp_path / "m")] == [newest.name, middle.name, oldest.name]
    again = read_state(tmp_path / "m" / "final.pt")
    assert all(torch.equal(t, again[n]) for n, t in final.items())
    few = ["--resume", "none", "--override_config", "state_interval=5"]
    assert command(train.main, *args, *few) == 0
    assert [f.name for f in whole_states(tmp_path / "m")] == [
        f"step_{n:08d}" for n in (12, 10, 5)
    ]  # none of before


@pytest.mark.integration
def test_bad_input_states_that_nothing_was_said_of(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
):
    """A forgotten flag does not cost the run; ``none`` said aloud begins anew and leaves nothing of the old one."""
    config = config_of(tmp_path, max_epoch=2)
    args = arguments(config, corpus, tmp_path / "m", 0)
    silent = [a for a in args if a not in ("--resume", "auto")]
    assert command(train.main, *args) == 0
    capsys.readouterr()
    assert command(train.main, *silent) == 1
    assert "give --resume auto to go on" in one_error_line(capsys.readouterr().err)
    assert len(list(whole_states(tmp_path / "m"))) == 2
    one = ["--resume", "none", "--override_config", "max_epoch=1"]
    assert command(train.main, *silent, *one) == 0
    assert not (tmp_path / "m" / "epoch_1.pt").exists() and (tmp_path / "m" / "epoch_0.pt").exists()


@pytest.mark.integration
def test_more_epochs_of_a_linear_schedule_are_not_trained_at_rate_0(tmp_path: Path, corpus: Path):
    config = config_of(tmp_path, max_epoch=1, scheduler="linear")
    args = arguments(config, corpus, tmp_path / "m", 0)
    assert command(train.main, *args) == 0
    assert command(train.main, *args, "--override_config", "max_epoch=2") == 0
    rates = [s["lr"] for s in steps(tmp_path / "m") if "lr" in s]
    assert len(rates) == 24 and all(rate > 0 for rate in rates[12:22])


@pytest.mark.integration
def test_a_checkpoint_that_was_due_is_written_by_the_run_that_goes_on(tmp_path: Path, corpus: Path):
    from wenet_osum.train.loop import Trainer

    config = config_of(tmp_path, max_epoch=1, save_interval=4, state_interval=4)
    args = arguments(config, corpus, tmp_path / "m", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "validate", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train.main(args)
    assert not list((tmp_path / "m").glob("step_*.pt"))
    assert command(train.main, *args) == 0
    assert {p.stem for p in (tmp_path / "m").glob("step_*.pt")} == {"step_3", "step_7", "step_11"}


@pytest.mark.integration
def test_an_llm_that_learned_in_an_earlier_phase_stays_in_checkpoints(tmp_path: Path, corpus: Path):
    """Its folder no longer holds what it has become."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {k: v for k, v in LLM.items() if k != "model_type"}
    llm = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", vocab_size=300, **shape))
    llm.save_pretrained(tmp_path / "llm")
    phases = [{"steps": 2, "trainable": ["llm"]}, {"trainable": ["adapter"]}]
    model = stage2_config(decoder_conf={"llm": str(tmp_path / "llm")}, ctc="none")
    config = run_config(tmp_path, model, phases=phases)
    assert command(train.main, *arguments(config, corpus, tmp_path / "m", 0)) == 0
    last = read_state(tmp_path / "m" / "final.pt")
    assert any(n.startswith("decoder.causal_lm") for n in last)
