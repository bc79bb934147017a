"""``osum recognize`` over ranks and kills: every utterance once, the same bytes as in one unbroken run."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers import command, one_error_line, run_config, stage2_config, write_corpus, write_list, write_wav
from hypothesis import given
from hypothesis import strategies as st

from wenet_osum.bin import recognize
from wenet_osum.checkpoint.assemble import prepare_configs
from wenet_osum.checkpoint.weights import save_checkpoint
from wenet_osum.config import load_config, save_config
from wenet_osum.dataset.lists import read_raw_list
from wenet_osum.decode import journal as journals
from wenet_osum.decode.journal import Journal, differences
from wenet_osum.decode.results import rounded
from wenet_osum.text import init_tokenizer
from wenet_osum.wenet.encoders import build_model

MODE = "llm_greedy"
COUNT = 20  # utterances that can be decoded


class Work(NamedTuple):
    """A model, a list, and what one unbroken run makes of it."""

    folder: Path
    data: Path
    whole: dict[str, bytes]

    def args(self, out: Path, *more: object) -> list[str]:
        args = ["--config", self.folder / "train.yaml", "--checkpoint", self.folder / "final.pt"]
        args += ["--test_data", self.data, "--result_dir", out, "--modes", MODE, "--num_threads", 1]
        return [
            str(a) for a in [*args, "--task", "asr,ser,sttc", "--labelled_only", "--batch_size", 3, *more]
        ]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("work")
    path = run_config(folder, stage2_config())
    configs = load_config(path)
    prepare_configs(configs, init_tokenizer(configs))
    torch.manual_seed(3)
    model = build_model(configs)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(8)  # answers that differ by utterance
    save_checkpoint(model, folder / "final.pt", {})
    save_config(configs, folder / "train.yaml")
    samples = [s for _, s in read_raw_list(write_corpus(folder / "data", COUNT))]
    for sample in samples[:8]:
        del sample["reply"]
    for sample in samples[4:14]:
        del sample["emotion"]
    broken = write_wav(folder / "broken.wav", 0.5)
    broken.write_bytes(broken.read_bytes()[:-4000])
    bad = [{**samples[0], "key": f"bad{i}", "wav": str(broken), "duration": 0.5} for i in range(3)]
    gone = {**samples[0], "key": "gone", "wav": str(folder / "gone.wav")}
    samples = [*samples, *bad, gone]
    random.Random(5).shuffle(samples)
    data = write_list(folder / "some.list", samples)
    work = Work(folder, data, {})
    assert command(recognize.main, *work.args(folder / "whole")) == 0
    return work._replace(whole=tree(folder / "whole"))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Death(NamedTuple):
    """A rank kills itself while it writes its ``batch``-th batch, of which a share of the bytes gets there."""

    batch: int
    share: float = 1.0


def child(args: list[str], rank: int, size: int, death: Death | None) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size))
    append, calls = Journal.append, []

    def die(self: Journal, entries: dict[int, dict[str, Any]]) -> None:
        before = os.path.getsize(self.path)
        append(self, entries)
        calls.append(1)
        if death and len(calls) == death.batch:
            after = os.path.getsize(self.path)
            os.truncate(self.path, before + round((after - before) * death.share))
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.append = die  # type: ignore[method-assign]
    sys.exit(recognize.main(args))


def start(args: list[str], rank: int = 0, size: int = 1, death: Death | None = None) -> Any:
    # Forked: without importing torch anew.
    process = multiprocessing.get_context("fork").Process(target=child, args=(args, rank, size, death))
    process.start()
    return process


def end(process: Any) -> int:
    process.join(timeout=120)
    process.kill()
    return process.exitcode


def lines_kept(out: Path) -> int:
    """Of utterances, in all journals."""
    return sum(len(journals.read_lines(path).rows) for path in out.glob("partial.*/rank*.jsonl"))


def test_decode_resume_the_unbroken_run_has_all_in_the_order_of_the_list(work: Work):
    samples = [s for _, s in read_raw_list(work.data)]
    for name, label in (("asr", "txt"), ("ser", "emotion"), ("sttc", "reply")):
        rows = [json.loads(line) for line in work.whole[f"{name}/{MODE}/answers.jsonl"].splitlines()]
        text = work.whole[f"{name}/{MODE}/text"].decode().splitlines()
        shares = [p for r in rows for p in r.get("probabilities", {}).values()]
        assert len(shares) == (len(rows) if name == "ser" else 0)
        assert all(sum(p.values()) == pytest.approx(1, abs=1e-3) for p in shares)
        good = [s["key"] for s in samples if s.get(label) and s["key"].startswith("u")]
        assert [r["key"] for r in rows] == [line.split(" ")[0] for line in text] == good
        assert len(good) < COUNT or name == "asr"
        skipped = [json.loads(line) for line in work.whole[f"{name}/skipped.jsonl"].splitlines()]
        bad = [s["key"] for s in samples if s.get(label) and s["key"].startswith("bad")]
        # What the index sets aside comes first.
        assert [s["key"] for s in skipped] == ["gone", *bad]
        assert {s["cause"] for s in skipped} == {"missing", "truncated"} or not bad
    assert len(work.whole) == 9
    assert len(set(work.whole[f"ser/{MODE}/text"].split(b"\n"))) > 5


@pytest.mark.parametrize(("seed", "last"), [(1, 1), (2, 2), (3, 3)])
def test_decode_resume_three_kills_at_random_points(work: Work, tmp_path: Path, seed: int, last: int):
    rng = random.Random(seed)
    args, kept = work.args(tmp_path), 0
    for size in (1, 2, 1):
        death = Death(rng.randint(1, 2), rng.random())
        processes = [start(args, rank, size, death) for rank in range(size)]
        assert [end(p) for p in processes] == [-signal.SIGKILL] * size
        assert kept <= lines_kept(tmp_path) < COUNT + 3
        kept = lines_kept(tmp_path)
        assert not list(tmp_path.rglob("text"))  # nothing half-done bears its final name
    processes = [start(args, rank, last) for rank in range(last)]
    assert [end(p) for p in processes] == [0] * last
    assert tree(tmp_path) == work.whole


def test_decode_resume_does_not_decode_again_what_is_done(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    args = work.args(tmp_path)
    assert end(start(args, death=Death(4))) == -signal.SIGKILL
    done = set(journals.read_lines(tmp_path / f"partial.{MODE}" / "rank0.jsonl").rows.tolist())
    rows: list[int] = []
    append = Journal.append

    def watch(self: Journal, entries: dict[int, dict[str, Any]]) -> None:
        rows.extend(entries)
        append(self, entries)

    monkeypatch.setattr(Journal, "append", watch)
    assert command(recognize.main, *args) == 0
    assert len(done) > 8 and done.isdisjoint(rows) and len(done) + len(rows) == COUNT + 3
    assert tree(tmp_path) == work.whole


@pytest.mark.parametrize("size", [2, 3, 40])
def test_decode_resume_ranks_one_after_the_other_make_what_one_does(work: Work, tmp_path: Path, size: int):
    """As on a cluster that starts them when it likes; more ranks than batches, too."""
    args = work.args(tmp_path)
    order = random.Random(size).sample(range(size), size) if size < 10 else [39, 20, *range(size)]
    for rank in order:
        assert end(start(args, rank, size)) == 0
        if tree(tmp_path) == work.whole:
            break
    assert tree(tmp_path) == work.whole and rank == list(dict.fromkeys(order))[-1]


def test_decode_resume_a_rank_that_comes_late_and_has_nothing_left_to_do(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It finds all that is there, and does not begin anew behind one that has put it together."""
    args = work.args(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "first")
    assert [end(start(args, 0, 2)), end(start(args, 1, 2, Death(1)))] == [0, -signal.SIGKILL]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "second")
    assert end(start(args, 1, 2)) == 0 and not list(tmp_path.rglob("text"))
    assert end(start(args, 0, 2)) == 0
    assert tree(tmp_path) == work.whole


def test_decode_resume_ranks_at_once_make_what_one_does(work: Work, tmp_path: Path):
    processes = [start(work.args(tmp_path, "--num_workers", 1), rank, 3) for rank in range(3)]
    assert [end(p) for p in processes] == [0, 0, 0]
    assert tree(tmp_path) == work.whole


def test_decode_resume_a_dead_rank_is_not_waited_for(work: Work, tmp_path: Path):
    args = work.args(tmp_path)
    assert end(start(args, 1, 2, Death(2))) == -signal.SIGKILL
    assert end(start(args, 0, 2)) == 0
    assert not list(tmp_path.rglob("text"))
    assert end(start(args, 1, 2)) == 0  # alone
    assert tree(tmp_path) == work.whole


@pytest.mark.parametrize(
    "tear",
    [
        lambda content: content[:-1],
        lambda content: content + b'{"row": 3, "ans',
        lambda content: content + bytes(500),  # what a power cut leaves on some file systems
        lambda content: content[:30],  # inside the facts
        lambda content: b"",
    ],
    ids=["line end", "half a line", "zeros", "facts", "nothing"],
)
def test_decode_resume_with_a_torn_last_line(work: Work, tmp_path: Path, tear: Callable[[bytes], bytes]):
    args = work.args(tmp_path)
    assert end(start(args, death=Death(3))) == -signal.SIGKILL
    path = tmp_path / f"partial.{MODE}" / "rank0.jsonl"
    path.write_bytes(tear(path.read_bytes()))
    assert command(recognize.main, *args) == 0
    assert tree(tmp_path) == work.whole


def test_decode_resume_killed_while_putting_together(work: Work, tmp_path: Path):
    """After some of the final files are there; then after all are, before the journals go."""
    args = work.args(tmp_path)

    def dies_at(rename: int) -> None:
        replace, calls = os.replace, []

        def die(*paths: Any) -> None:
            replace(*paths)
            calls.append(1)
            if len(calls) == rename:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = die
        sys.exit(recognize.main(args))

    for n in (4, 9, 3):  # the first is the index; when it is made already there is one less
        process = multiprocessing.get_context("fork").Process(target=dies_at, args=(n,))
        process.start()
        assert end(process) == -signal.SIGKILL
        assert lines_kept(tmp_path) == COUNT + 3
    assert command(recognize.main, *args) == 0
    assert tree(tmp_path) == work.whole


def test_decode_resume_by_other_flags_is_refused(
    work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    args = work.args(tmp_path)
    assert end(start(args, death=Death(2))) == -signal.SIGKILL
    before = tree(tmp_path)
    short = write_list(tmp_path / "short.list", [s for _, s in read_raw_list(work.data)][:9])
    for more, named in (
        (["--batch_size", 4], "flags.batch_size 3 then, 4 now"),
        (["--task", "asr"], "task asr,ser,sttc then, asr now"),
        (["--override_config", "seed=9"], "config.seed 777 then, 9 now"),
        (["--test_data", short], "test_data.lines"),
    ):
        capsys.readouterr()
        assert command(recognize.main, *args, *more) == 1
        line = one_error_line(capsys.readouterr().err)
        assert named in line and f"partial.{MODE}" in line and "--restart" in line
    short.unlink()
    assert {k: v for k, v in tree(tmp_path).items() if "idx" not in k} == {
        k: v for k, v in before.items() if "idx" not in k
    }
    # Where it runs is free.
    assert command(recognize.main, *args, "--num_workers", 1) == 0
    assert tree(tmp_path) == work.whole


def test_decode_resume_by_another_checkpoint_is_refused(
    work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    args = work.args(tmp_path)
    assert end(start(args, death=Death(2))) == -signal.SIGKILL
    other = tmp_path / "final.pt"
    other.write_bytes((work.folder / "final.pt").read_bytes())
    assert command(recognize.main, *args, "--checkpoint", other) == 1
    assert "checkpoint.final.pt" in one_error_line(capsys.readouterr().err)


def test_decode_resume_restart_throws_the_part_away(work: Work, tmp_path: Path):
    """Of more ranks than there are now, by other flags."""
    for rank in (0, 2):
        assert end(start(work.args(tmp_path, "--task", "asr"), rank, 3, Death(2))) == -signal.SIGKILL
    args = work.args(tmp_path, "--restart")
    processes = [start(args, rank, 2) for rank in range(2)]
    assert [end(p) for p in processes] == [0, 0]
    assert tree(tmp_path) == work.whole


def test_decode_resume_a_damaged_journal_is_named(
    work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert end(start(work.args(tmp_path), death=Death(2))) == -signal.SIGKILL
    path = tmp_path / f"partial.{MODE}" / "rank0.jsonl"
    path.write_bytes(path.read_bytes() + b"?\n")
    assert command(recognize.main, *work.args(tmp_path)) == 1
    line = one_error_line(capsys.readouterr().err)
    assert "rank0.jsonl: is damaged at byte" in line and "--restart" in line
    assert command(recognize.main, *work.args(tmp_path, "--restart")) == 0
    assert tree(tmp_path) == work.whole


def test_decode_resume_two_processes_are_not_one_rank(
    work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with Journal(tmp_path / f"partial.{MODE}") as ours:
        done = ours.begin({"a": 1}, 3)
        ours.append({0: {"skipped": {}}})
        other = start(work.args(tmp_path))
        assert end(other) not in (0, None)
        assert not done.any() and lines_kept(tmp_path) == 1


def test_decode_resume_a_rank_that_comes_too_late(tmp_path: Path):
    """All has been put together while it started: nothing is left behind, nothing done twice."""
    folder = tmp_path / "out" / "partial.x"
    with Journal(folder, 0, 2) as first, Journal(folder, 1, 2) as second:
        first.begin({}, 2)
        first.append({1: {"skipped": {"b": 1}}, 0: {"skipped": {"a": 1}}})
        lacking, entries = first.entries()
        assert not lacking and [e["row"] for e in entries] == [0, 1]
        first.remove()
        assert first.taken and second.taken
        folder.mkdir()
        second.store.touch()  # made while the first was at its end
        assert second.begin({}, 2).all()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("-1", "2"), ("one", "2"), ("1", None)])
def test_decode_resume_ranks_that_are_none(
    work: Work,
    tmp_path: Path,
    rank: str,
    size: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("RANK", rank)
    if size:
        monkeypatch.setenv("WORLD_SIZE", size)
    assert command(recognize.main, *work.args(tmp_path)) == 1
    assert f"RANK={rank}" in one_error_line(capsys.readouterr().err)


def test_decode_resume_leaves_nothing_where_nothing_is_decoded(
    work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    empty = write_list(tmp_path / "empty.list", [])
    out = tmp_path / "out"
    assert command(recognize.main, *work.args(out, "--test_data", empty)) == 1
    assert "no utterance can be decoded" in one_error_line(capsys.readouterr().err)
    assert not out.exists()
    unlabelled = write_list(
        tmp_path / "some.list", [{"key": "a", "txt": "", "wav": str(work.folder / "data/u00.wav")}]
    )
    assert command(recognize.main, *work.args(out, "--test_data", unlabelled, "--task", "ser")) == 0
    assert "nothing to decode" in capsys.readouterr().err and not out.exists()


def test_decode_resume_a_list_of_bad_utterances_alone(work: Work, tmp_path: Path):
    samples = [s for _, s in read_raw_list(work.data) if s["key"].startswith("bad")]
    data = write_list(tmp_path / "bad.list", samples)
    assert command(recognize.main, *work.args(tmp_path, "--test_data", data, "--task", "asr")) == 0
    assert (tmp_path / MODE / "text").read_bytes() == b""
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 3
    assert not list(tmp_path.glob("partial*"))


def test_decode_resume_after_a_full_disk(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    append = Journal.append

    class Full:
        """A file with room for 100 bytes."""

        def __init__(self, file: Any):
            self.fileno, self.write_there, self.room = file.fileno, file.write, 100

        def close(self) -> None:
            pass

        def write(self, content: bytes) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = self.write_there(content[: self.room])
            self.room -= written
            return written

    def fills(self: Journal, entries: dict[int, dict[str, Any]]) -> None:
        if os.path.getsize(self.path):
            self._file = Full(self._file)  # type: ignore[assignment]
        append(self, entries)

    with monkeypatch.context() as m:
        m.setattr(Journal, "append", fills)
        assert command(recognize.main, *work.args(tmp_path)) == 1
    line = one_error_line(capsys.readouterr().err)
    assert "rank0.jsonl: No space left on device" in line
    assert lines_kept(tmp_path) == 3
    assert command(recognize.main, *work.args(tmp_path)) == 0
    assert tree(tmp_path) == work.whole


def test_decode_resume_in_modes_beside_each_other(work: Work, tmp_path: Path):
    """Modes of the LLM and the CTC head in one journal."""
    modes = ["--modes", "llm_greedy", "ctc_greedy_search", "--beam_size", 2]
    assert command(recognize.main, *work.args(tmp_path / "whole", *modes)) == 0
    args = work.args(tmp_path / "out", *modes)
    assert end(start(args, death=Death(3, 0.5))) == -signal.SIGKILL
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["partial.llm_greedy+ctc_greedy_search"]
    assert [end(p) for p in [start(args, rank, 2) for rank in range(2)]] == [0, 0]
    whole = tree(tmp_path / "whole")
    assert tree(tmp_path / "out") == whole and len(whole) == 3 * 2 * 2 + 3
    assert whole[f"ser/{MODE}/text"] == work.whole[f"ser/{MODE}/text"]
    assert whole["ser/ctc_greedy_search/text"] != whole[f"ser/{MODE}/text"]


@pytest.mark.slow
@pytest.mark.integration
def test_decode_resume_under_torchrun(work: Work, tmp_path: Path):
    """Two ranks, of which one is killed: torchrun ends the other, and the same command finishes."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, sys\n"
        "from test_decode_resume import Death, child\n"
        "rank = int(os.environ['RANK'])\n"
        "child(sys.argv[1:], rank, 2, Death(2) if rank else None)\n"
    )
    out = tmp_path / "out"
    killed = subprocess.run([*line, script, *work.args(out)], env=env, capture_output=True, timeout=300)
    assert killed.returncode != 0 and lines_kept(out) >= 6 and not list(out.rglob("text"))
    again = subprocess.run(
        [*line, "-m", "wenet_osum.bin.recognize", *work.args(out)], env=env, capture_output=True, timeout=300
    )
    assert again.returncode == 0, again.stderr
    assert tree(out) == work.whole


# --- parts ---


def test_decode_resume_differences_are_told_by_their_place():
    then = {"flags": {"beam": 1, "gone": 2}, "same": [1]}
    assert list(differences(then, {"flags": {"beam": 4}, "same": [1], "new": "x"})) == [
        "flags.beam 1 then, 4 now",
        "flags.gone 2 then, None now",
        "new None then, x now",
    ]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300).filter(lambda v: sum(v) > 0))
def test_decode_resume_rounded_probabilities_sum_to_one(values: list[float]):
    shares = {str(i): float(v) for i, v in enumerate(np.array(values) / sum(values))}
    found = rounded(shares)
    assert sum(found.values()) == pytest.approx(1, abs=1e-9)
    assert all(abs(found[k] - shares[k]) < 1e-4 + 1e-9 and round(found[k], 4) == found[k] for k in shares)
