"""Processes at the other end of a pipe: the model's, and those that decode.

They are forked from one that has imported all that they need (multiprocessing's ``forkserver``), so that a new one
is there within a moment. None outlives the program: a child watches its parent, and the fork server does too.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from wenet_osum.serve.patience import Late, within

T = TypeVar("T")

_CONTEXT = multiprocessing.get_context("forkserver")
# What loading a model imports only then is here too: it takes seconds, and a lost model is missed meanwhile.
_PRELOAD = [
    "wenet_osum.serve.worker",
    "wenet_osum.serve.decoder",
    *(f"wenet_osum.models.{name}" for name in ("osum", "whisper_encoder", "adapter", "ctc", "llm_decoder")),
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen2.modeling_qwen2",
    "wenet_osum.serve.forked",
]


class Lost(Exception):
    """The process at the other end is gone, or was ended because it took too long; says which."""


class Child:
    """A process, and the pipe to it. One exchange at a time; each runs in a thread, where it may wait.

    Args:
        target: a function of a module, called with the pipe's other end and ``args``.
        threads: where exchanges run.

    Attributes:
        gone: set once the process has ended.
    """

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...], threads: ThreadPoolExecutor):
        self._target, self._args, self._threads = target, args, threads
        self.gone = asyncio.Event()
        self._closed = False

    async def start(self) -> None:
        """Start the process.

        Raises:
            Lost: it, or the fork server, cannot be started.
        """
        loop = asyncio.get_running_loop()
        try:
            self.pipe, self._process = await loop.run_in_executor(
                self._threads, _start, self._target, self._args
            )
        except (OSError, EOFError) as e:
            raise Lost(f"cannot be started ({e})") from None
        loop.add_reader(self._process.sentinel, self._end)
        if self._closed:
            await self.close()
            raise Lost("is not wanted any more")

    async def do(self, exchange: Callable[[Connection], T], seconds: float | None = None) -> T:
        """What ``exchange(pipe)`` gives. A process that takes longer than ``seconds``, or whose exchange is
        cancelled, is ended: what it would say next belongs to nobody.

        Raises:
            Lost: there is no process any more.
        """
        loop = asyncio.get_running_loop()
        try:
            said = await within(loop.run_in_executor(self._threads, exchange, self.pipe), seconds)
        except (EOFError, OSError):
            await self._ended()
            raise Lost(f"ended ({self.how()})") from None
        except BaseException:
            self.kill()
            raise
        if isinstance(said, Late):
            self.kill()
            await self._ended()
            raise Lost(f"gave no answer within {seconds:g} s")
        return said

    def how(self) -> str:
        """How the process ended, e.g. ``SIGKILL``."""
        code = self._process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-code).name
        return f"exit status {code}"

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(OSError, AttributeError):  # ended already, or not begun
            self._process.kill()

    async def close(self) -> None:
        """End the process at once, wait for its end and free its pipe; also before or while it is started."""
        self._closed = True
        if not hasattr(self, "_process"):
            return
        self.kill()
        await self._ended()
        self.pipe.close()

    async def _ended(self) -> None:
        await within(self.gone.wait(), 10)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._process.join()
        self.gone.set()


def _start(target: Callable[..., None], args: tuple[Any, ...]) -> tuple[Connection, Any]:
    _CONTEXT.set_forkserver_preload(_PRELOAD)
    ours, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=_live, args=(target, theirs, *args), daemon=True)
    # Who ends a whole group of processes (timeout, supervisord) means the parent, which drains: the fork server and
    # its children inherit that they do not hear SIGTERM. The tracker is first, as its start would undo this.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return ours, process


def _live(target: Callable[..., None], pipe: Connection, *args: Any) -> None:
    """A child's life: Ctrl-C is the parent's affair; without a parent there is nothing left to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        target(pipe, *args)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
