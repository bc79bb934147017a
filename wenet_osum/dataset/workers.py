"""Processes that read batches ahead; one that dies or stands still is an error that says where.

Each has a pipe of its own and answers in the order it was asked, and they are asked in turn, so the batches come
in the plan's order whatever their number. (torch's ``DataLoader`` would raise for a dead worker out of a signal
handler, at any line of the caller, and know neither the worker nor the utterance.)
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import traceback
from collections.abc import Iterator
from itertools import cycle
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing import get_context

from wenet_osum.dataset.batch import Batch
from wenet_osum.dataset.channel import channel
from wenet_osum.dataset.plan import Item
from wenet_osum.errors import OsumError

# Batches of a worker that are asked for and not yet taken. Each is a file in memory on its way, of which Linux
# allows a user about 1,000; a worker that is so far ahead waits for the trainer anyway.
MOST_AHEAD = 16


class Failure(NamedTuple):
    """What a worker sends in place of a batch: what was raised, and where, for a person."""

    error: Exception
    where: str


class Workers:
    """``count`` processes that make batches of ``dataset``, each ``prefetch`` of them ahead, ``MOST_AHEAD`` at most.

    Args:
        timeout: seconds that a batch may be waited for.
    """

    def __init__(self, dataset: Any, count: int, prefetch: int, timeout: float):
        self.dataset, self.count, self.timeout = dataset, count, timeout
        self.prefetch = min(prefetch, MOST_AHEAD)
        self.processes: list[Any] = []
        self.pipes: list[Any] = []
        context = get_context()
        self.turn = context.RawValue("q", 0)  # of epochs begun; what was asked in an earlier one is not read
        self.reading = context.RawArray("q", [-1] * count)  # the row that each is at

    def start(self) -> None:
        context = get_context()
        for i in range(self.count):
            ours, theirs = channel()
            process = context.Process(
                target=work,
                args=(theirs, self.dataset, self.turn, self.reading, i, os.getpid()),
                daemon=True,
                name=f"data worker {i}",
            )
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)
        # Before multiprocessing's own end of the process, which would wait for a worker that hangs.
        self.finalize = Finalize(self, stop, args=(self.processes, self.pipes), exitpriority=1)

    def run(self, jobs: Iterator[list[Item]]) -> Iterator[Batch]:
        """The batches of ``jobs``, in their order. A second call ends the first.

        Raises:
            OsumError: a worker died, or did not answer in time; or what it raised.
        """
        if not self.processes:
            self.start()
        self.turn.value += 1
        turn = self.turn.value
        waiting = sum(self.ask(w, jobs) for _ in range(self.prefetch) for w in range(self.count))
        for worker in cycle(range(self.count)):
            if not waiting:
                return
            batch = self.answer(worker, turn)
            waiting += self.ask(worker, jobs) - 1
            yield batch
            if self.turn.value != turn:
                return

    def ask(self, worker: int, jobs: Iterator[list[Item]]) -> int:
        """Give a worker the next job; how many it was, 1 or 0."""
        items = next(jobs, None)
        if items is None:
            return 0
        # A dead worker is told when its answer is waited for.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipes[worker].send((self.turn.value, items))
        return 1

    def answer(self, worker: int, turn: int) -> Batch:
        """What a worker answers to the oldest question of this turn."""
        pipe, process = self.pipes[worker], self.processes[worker]
        while True:
            ready = wait([pipe, process.sentinel], self.timeout)
            if not ready:
                what = f"no batch for {self.timeout:g} s, {self.place(worker)}"
                mend = "see what it waits for there (disk, network share, pipe), or allow it more time (--worker_timeout)"
                raise self.ended(worker, what, mend)
            try:
                if pipe not in ready:
                    raise EOFError
                asked_in, content = pipe.recv()
            except (EOFError, OSError):
                process.join(1)
                how = ending(process.exitcode)
                mend = "see what it wrote before this line"
                if how.endswith("SIGKILL"):
                    mend = "if memory ran out (dmesg tells), give fewer --num_workers or a smaller --prefetch"
                raise self.ended(worker, f"{how}, {self.place(worker)}", mend) from None
            if asked_in != turn:
                continue
            if isinstance(content, Failure):
                ours = isinstance(content.error, OsumError)
                raise content.error from (None if ours else RuntimeError(content.where))
            return {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in content.items()}

    def ended(self, worker: int, what: str, mend: str) -> OsumError:
        """The error for a worker that will not answer; all are stopped, and the next ``run`` starts others."""
        pid = self.processes[worker].pid
        self.finalize()
        return OsumError(f"data worker {worker} (process {pid})", what, mend)

    def place(self, worker: int) -> str:
        row = self.reading[worker]
        return (
            "between two utterances" if row < 0 else f"at utterance {self.dataset.index.samples[row]['key']}"
        )


def ending(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None or code >= 0:
        return f"ended with exit status {code}"
    return f"was killed by {signal.Signals(-code).name}"


def stop(processes: list[Any], pipes: list[Any]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join(1)
    for pipe in pipes:
        pipe.close()
    processes.clear()
    pipes.clear()


def work(pipe: Any, dataset: Any, turn: Any, reading: Any, number: int, parent: int) -> None:
    """A data worker's life: batches as asked for, until the pipe or the parent ends."""
    # What ends a job often signals all its processes. The trainer may need batches to end well, and stops us then.
    # Functions, not SIG_IGN, which a command in a list's pipe would inherit.
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: None)
    torch.set_num_threads(1)  # workers times threads beyond the cores halve the speed
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            while not wait([pipe], 2):  # its end alone would not tell: forked siblings hold it open
                if os.getppid() != parent:
                    return
            asked_in, items = pipe.recv()
            content: Any = None
            if asked_in == turn.value:
                content = answer(dataset, items, reading, number)
            pipe.send((asked_in, content))


def answer(dataset: Any, items: list[Item], reading: Any, number: int) -> Any:
    """A batch with arrays in place of tensors, or a ``Failure``."""

    def at(row: int) -> None:
        reading[number] = row

    try:
        batch = dataset.batch(items, at)
        return {k: v.numpy() if isinstance(v, Tensor) else v for k, v in batch.items()}
    except Exception as e:
        where = f"in data worker {number}:\n{traceback.format_exc()}"
        try:
            pickle.loads(pickle.dumps(e))
        except Exception:  # it cannot travel
            e = RuntimeError(repr(e))
        return Failure(e, where)
    finally:
        at(-1)
