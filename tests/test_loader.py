"""The loader: any part of an epoch's plan, the same with any number of workers, and never a hang."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import write_corpus, write_units
from torch import Tensor

from wenet_osum.config import DATASET_DEFAULTS
from wenet_osum.dataset.batch import Batch, collate
from wenet_osum.dataset.channel import channel
from wenet_osum.dataset.dataset import OsumDataset
from wenet_osum.dataset.index_build import build_index
from wenet_osum.dataset.loader import Loader
from wenet_osum.dataset.plan import Item
from wenet_osum.errors import OsumError
from wenet_osum.tasks import load_tasks
from wenet_osum.text import CharTokenizer


class Numbers:
    """A dataset without audio: batch ``i`` of an epoch is item ``i``; its plan tells how much of it was looked at."""

    def __init__(self, count: int = 40, read: Callable[[Item], None] = lambda item: None):
        self.count, self.read = count, read
        self.index = SimpleNamespace(samples=[{"key": f"u{i}"} for i in range(count)])
        self.looked_at: list[int] = []

    def plan(self, epoch: int, group: int = 1) -> Any:
        dataset = self

        class Plan:
            def __len__(self) -> int:
                return dataset.count

            def __getitem__(self, i: int) -> list[Item]:
                dataset.looked_at.append(i)
                return [Item(i, "asr", epoch)]

        return Plan()

    def batch(self, items: list[Item], at: Callable[[int], None] | None = None) -> Batch:
        for item in items:
            if at:
                at(item.row)
            self.read(item)
        keys = [f"{item.epoch}-{item.row}" for item in items]
        return {"keys": keys, "feats": torch.tensor([i.row for i in items]), "skipped": []}


def keys(loader: Loader, epoch: int = 0, start: int = 0) -> list[str]:
    count = loader.plan(epoch, start)
    found = [b["keys"] for b in loader]
    assert len(found) == count
    return [k for batch in found for k in batch]


@pytest.fixture
def loaders() -> Iterator[Callable[..., Loader]]:
    """Makes loaders, whose workers end with the test."""
    made: list[Loader] = []

    def make(dataset: Any, *args: Any, **how: Any) -> Loader:
        made.append(Loader(dataset, *args, **how))
        return made[-1]

    yield make
    for loader in made:
        if loader.workers and loader.workers.processes:
            loader.workers.finalize()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_begins_anywhere_at_no_cost(workers: int, loaders: Callable[..., Loader]):
    dataset = Numbers(1_000_000)
    loader = loaders(dataset, workers, prefetch=2)
    assert loader.plan(3, start=999_990) == 10
    assert dataset.looked_at == []
    assert [k for b in loader for k in b["keys"]] == [f"3-{i}" for i in range(999_990, 1_000_000)]
    assert min(dataset.looked_at) == 999_990
    assert loader.plan(3, start=1_000_000) == 0 and list(loader) == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_what_was_read_ahead_of_an_epoch_left_early_is_not_delivered(
    workers: int, loaders: Callable[..., Loader]
):
    loader = loaders(Numbers(), workers)
    loader.plan(0)
    for n, _ in enumerate(loader):
        if n == 2:
            break
    assert keys(loader, 1, 5) == [f"1-{i}" for i in range(5, 40)]
    assert keys(loader, 1, 5) == [f"1-{i}" for i in range(5, 40)]
    loader.plan(2)
    old = iter(loader)
    next(old)
    assert keys(loader, 3) == [f"3-{i}" for i in range(40)]
    if workers:
        assert list(old) == []  # the workers went on to another epoch


@pytest.mark.parametrize("count", [0, 1, 7, 8])
def test_every_rank_has_as_many_batches(count: int):
    ranks = [Loader(Numbers(count), rank=r, world_size=4) for r in range(4)]
    steps = {loader.plan(0, start=min(count, 1)) for loader in ranks}
    assert steps == {-(-max(0, count - 1) // 4)}
    found = [[b["keys"] for b in loader] for loader in ranks]
    assert {len(f) for f in found} == steps
    by_step = [k for step in zip(*found) for k in step]
    assert [k for batch in by_step for k in batch] == [f"0-{i}" for i in range(1, count)]


def test_another_world_size_goes_on_where_two_stopped():
    first = [k for r in range(2) for k in keys(Loader(Numbers(10), rank=r, world_size=2))[:2]]
    rest = [k for r in range(3) for k in keys(Loader(Numbers(10), rank=r, world_size=3), start=4)]
    assert sorted(first + rest) == [f"0-{i}" for i in range(10)]


def real(tmp_path: Path, **changes: Any) -> OsumDataset:
    tokenizer = CharTokenizer(write_units(tmp_path / "units.txt"))
    batches = {**DATASET_DEFAULTS["batch_conf"], "batch_type": "static", "batch_size": 2}
    conf = {**DATASET_DEFAULTS, "spec_aug": True, "speed_perturb": True, "batch_conf": batches, **changes}
    data_list = tmp_path / "data/data.list"
    if not data_list.exists():
        write_corpus(tmp_path / "data", 9)
    table = load_tasks()
    return OsumDataset(
        build_index(data_list, "raw", table, tokenizer.encode, conf), table, tokenizer, conf, 777, True
    )


def assert_same(a: Batch, b: Batch) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, b[name]) and value.dtype == b[name].dtype
        else:
            assert value == b[name]


def test_workers_change_no_bit(tmp_path: Path, loaders: Callable[..., Loader]):
    dataset = real(tmp_path)
    all_of = [loaders(dataset, n, prefetch=2) for n in (0, 1, 2, 3)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for epoch in (0, 1):
            for loader in all_of:
                loader.plan(epoch)
            for batches in zip(*all_of, strict=True):
                for batch in batches[1:]:
                    assert_same(batches[0], batch)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_an_utterance_is_drawn_for_by_its_key(tmp_path: Path):
    """The list may be in another order, or longer; a second time in one epoch is another draw."""
    dataset = real(tmp_path, speed_perturb=False)
    turned = real(tmp_path, speed_perturb=False)
    turned.index.samples = turned.index.samples[::-1]
    first = dataset.example(Item(2, "asr", 0))["feats"]
    assert torch.equal(first, turned.example(Item(6, "asr", 0))["feats"])
    for other in (Item(2, "asr", 1), Item(2, "asr", 0, 1)):
        assert not torch.equal(first, dataset.example(other)["feats"])


def test_packed_batch_is_the_padded_one_without_its_padding(tmp_path: Path):
    examples = [e for row in range(4) if isinstance(e := real(tmp_path)[Item(row, "asr", 0)], dict)]
    padded, packed = collate(examples), collate(examples, pack=True)
    lengths = padded["feats_lengths"].tolist()
    assert len(set(lengths)) > 1 and packed["feats"].shape == (sum(lengths), 80)
    for i, part in enumerate(packed.pop("feats").split(lengths)):
        assert torch.equal(part, padded["feats"][i, : lengths[i]])
    del padded["feats"]
    assert_same(padded, packed)


def test_batch_type_pack_reaches_the_batches(tmp_path: Path):
    dataset = real(tmp_path)
    dataset.conf["batch_conf"]["batch_type"] = "pack"
    batch = dataset.batch([Item(0, "asr", 0), Item(3, "asr", 0)])
    assert batch["feats"].dim() == 2 and batch["target"].dim() == 2


def wait_then_kill(loader: Loader, which: signal.Signals, worker: int = 1) -> None:
    assert loader.workers is not None
    os.kill(loader.workers.processes[worker].pid, which)


def test_bad_input_killed_worker_is_an_error_that_says_where(loaders: Callable[..., Loader]):
    """As the kernel does when memory runs out."""

    def read(item: Item) -> None:
        if item.row == 13:
            os.kill(os.getpid(), signal.SIGKILL)

    loader = loaders(Numbers(read=read), 2)
    loader.plan(0)
    seen: list[str] = []
    began = time.monotonic()
    with pytest.raises(
        OsumError, match=r"data worker 1 \(process \d+\): was killed by SIGKILL, at utterance u13; "
    ):
        for batch in loader:
            seen += batch["keys"]
    assert time.monotonic() - began < 20
    assert seen == [f"0-{i}" for i in range(13)]
    assert loader.workers is not None and not loader.workers.processes
    assert keys(loader, 0, 14) == [f"0-{i}" for i in range(14, 40)]  # others begin anew


def test_bad_input_worker_killed_between_two_batches(loaders: Callable[..., Loader]):
    loader = loaders(Numbers(), 2, prefetch=1)
    loader.plan(0)
    batches = iter(loader)
    next(batches)
    wait_then_kill(loader, signal.SIGKILL)
    with pytest.raises(OsumError, match="data worker 1 .* SIGKILL"):
        list(batches)


def test_bad_input_worker_that_ends_itself(loaders: Callable[..., Loader]):
    def read(item: Item) -> None:
        os._exit(3)

    with pytest.raises(OsumError, match=r"ended with exit status 3, at utterance u0"):
        keys(loaders(Numbers(read=read), 1))


def test_bad_input_hung_read_is_an_error_that_says_where(tmp_path: Path, loaders: Callable[..., Loader]):
    """A pipe that nobody writes to, in the place of a file on a share that went away."""
    dataset = real(tmp_path)
    dataset.train = False
    loader = loaders(dataset, 2, timeout=1.5)
    wav = Path(dataset.index.samples[5]["wav"])
    wav.unlink()
    os.mkfifo(wav)
    loader.plan(0)
    began = time.monotonic()
    with pytest.raises(
        OsumError, match=r"data worker \d \(process \d+\): no batch for 1.5 s, at utterance u05; "
    ):
        list(loader)
    assert time.monotonic() - began < 20


def test_bad_input_workers_error_keeps_its_line(loaders: Callable[..., Loader]):
    def read(item: Item) -> None:
        if item.row == 3:
            raise OsumError("units.txt", "lacks 'x' and has no <unk>", "add a line '<unk> 1'")

    with pytest.raises(OsumError) as told:
        keys(loaders(Numbers(read=read), 2))
    assert str(told.value) == "units.txt: lacks 'x' and has no <unk>; add a line '<unk> 1'"


def test_a_fault_of_ours_in_a_worker_keeps_its_traceback(loaders: Callable[..., Loader]):
    class Local(Exception):  # cannot be pickled
        pass

    def read(item: Item) -> None:
        raise ZeroDivisionError("here") if item.row == 0 else Local("there")

    loader = loaders(Numbers(read=read), 1)
    with pytest.raises(ZeroDivisionError) as told:
        keys(loader)
    assert "in data worker 0" in str(told.value.__cause__) and "test_loader.py" in str(told.value.__cause__)
    with pytest.raises(RuntimeError, match="Local.*there"):
        keys(loader, 0, 1)


def test_a_signal_to_end_leaves_the_workers_to_the_trainer(loaders: Callable[..., Loader]):
    """A scheduler signals every process of a job; the step under way is finished and saved first."""
    loader = loaders(Numbers(), 2, prefetch=1)
    loader.plan(0)
    seen = []
    for n, batch in enumerate(loader):
        seen += batch["keys"]
        if n == 1:
            wait_then_kill(loader, signal.SIGTERM)
            wait_then_kill(loader, signal.SIGINT, 0)
    assert seen == [f"0-{i}" for i in range(40)]


ENDS = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from test_loader import Loader, Numbers
seconds, how = float(sys.argv[2]), sys.argv[3]
loader = Loader(Numbers(read=lambda item: time.sleep(seconds if item.row > 1 else 0)), 2)
loader.plan(0)
next(iter(loader))
print(*[p.pid for p in loader.workers.processes], flush=True)
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize(("seconds", "how", "status"), [(600, "ends", 0), (0, "killed", -signal.SIGKILL)])
def test_workers_end_with_the_process(seconds: float, how: str, status: int):
    """A worker that hangs does not hold up the end; a process that was killed leaves none behind."""
    command = [sys.executable, "-c", ENDS, str(Path(__file__).parent), str(seconds), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    workers = [int(pid) for pid in done.stdout.split()]
    deadline = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(workers) == 2 and not any(map(alive, workers))


@pytest.mark.parametrize("shared", [True, False])
def test_what_crosses_between_processes_is_the_message(shared: bool, monkeypatch: pytest.MonkeyPatch):
    if not shared:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    one, other = channel()
    message = {
        "keys": ["a", "今"],
        "feats": np.random.default_rng(0).standard_normal((2, 7, 3)),
        "turned": np.arange(6).reshape(2, 3).T[::2],
        "none": np.full((2, 0), -1),
        "large": np.arange(50_000 if shared else 5),
    }
    gc.collect()
    open_files = len(os.listdir("/dev/fd"))
    for _ in range(3):
        one.send(message)
    for _ in range(3):
        back = other.recv()
        assert back.keys() == message.keys() and back["keys"] == message["keys"]
        for name in message.keys() - {"keys"}:
            np.testing.assert_array_equal(back[name], message[name])
        back["feats"][:] = 0  # it is ours
        del back
    assert len(os.listdir("/dev/fd")) <= open_files
    other.send(7)
    assert one.recv() == 7
    one.close()
    with pytest.raises((EOFError, OSError)):
        other.recv()
    with pytest.raises(OSError):
        other.send(1)


def test_bad_input_stopped_worker_is_an_error(loaders: Callable[..., Loader]):
    """Stopped whole, as a debugger or a frozen container does; what it sent before still comes."""
    loader = loaders(Numbers(), 1, prefetch=3, timeout=1.5)
    loader.plan(0)
    batches = iter(loader)
    next(batches)
    time.sleep(0.3)
    wait_then_kill(loader, signal.SIGSTOP, 0)
    seen = 1
    with pytest.raises(OsumError, match="no batch for 1.5 s"):
        for _ in batches:
            seen += 1
    assert 3 <= seen < 40
