"""The model's process as its parent sees it: fed with batches, watched, and started again when it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from wenet_osum.decode.load import LoadSpec
from wenet_osum.errors import OsumError
from wenet_osum.serve.batcher import Batcher, Work
from wenet_osum.serve.errors import BadQuestion, Closing, WorkerLost
from wenet_osum.serve.process import Child, Lost
from wenet_osum.serve.settings import Limits
from wenet_osum.serve.stats import Stats
from wenet_osum.serve.worker import Facts, work

WEIGHT = 0.8  # of the past in the measured speed


class Model:
    """Takes batches from ``batcher`` and answers them.

    Attributes:
        ready: it is loaded. failed: why it is given up, or None. rate: pieces that it answers in a second.
    """

    def __init__(
        self, spec: LoadSpec, limits: Limits, stats: Stats, batcher: Batcher, threads: ThreadPoolExecutor
    ):
        self._spec, self._limits, self._stats = spec, limits, stats
        self._batcher, self._threads = batcher, threads
        self._child: Child | None = None
        self.ready = False
        self.failed: str | None = None
        self.rate = 1.0

    async def load(self) -> Facts:
        """Start the process and load the model.

        Raises:
            OsumError: the model is not usable, or the process ended on the way.
        """
        self._child = Child(work, (self._spec,), self._threads)
        try:
            await self._child.start()
            said = await self._child.do(_receive, self._limits.start_seconds)
        except Lost as e:
            raise OsumError(self._spec.checkpoint, f"the process that loads it {e}", "see the log") from None
        if isinstance(said, OsumError):
            raise said
        facts: Facts = said
        self.ready = True
        return facts

    async def run(self) -> None:
        """Answer batches behind ``load``, until this is cancelled. Where no process can be started any more, all get that for an answer."""
        while self._child is not None:
            while not self._child.gone.is_set():
                if batch := await self._next(self._child):
                    await self._answer(self._child, batch)
            self.ready = False
            logging.error("the model's process ended (%s)", self._child.how())
            await self._again()
        while True:  # what waits, and what is still being decoded
            for waiting in await self._batcher.take():
                fail(waiting, WorkerLost(self.failed or "", "see the server's log"))

    async def close(self) -> None:
        """End the process at once."""
        self.ready = False
        if self._child is not None:
            await self._child.close()

    async def _again(self) -> None:
        """Load the model again, at once, then ever later. ``_child`` is None where that is given up."""
        for attempt in range(self._limits.restarts):
            if self._child is not None:
                await self._child.close()
            await asyncio.sleep(attempt and 2 ** (attempt - 1))
            self._stats.restarts += 1
            begun = time.monotonic()
            try:
                await self.load()
            except OsumError as e:
                logging.error("the model cannot be loaded again: %s", e)
                why = str(e)
            else:
                logging.info("the model is loaded again, after %.1f s", time.monotonic() - begun)
                return
        await self.close()
        self._child = None
        self.failed = f"is given up after {self._limits.restarts} attempts to load it again ({why})"

    async def _next(self, child: Child) -> list[Work] | None:
        """The next batch; None where the process ends before there is one."""
        taken = asyncio.ensure_future(self._batcher.take())
        gone = asyncio.ensure_future(child.gone.wait())
        try:
            await asyncio.wait((taken, gone), return_when=asyncio.FIRST_COMPLETED)
            return taken.result() if taken.done() else None
        except asyncio.CancelledError:
            for waiting in taken.result() if taken.done() else ():  # out of the queue, and not yet here
                fail(waiting, Closing())
            raise
        finally:
            taken.cancel()
            gone.cancel()

    async def _answer(self, child: Child, batch: list[Work]) -> None:
        batch = [w for w in batch if not w.answer.done()]  # its request left in between
        if not batch:
            return
        message = (batch[0].lane.question, [w.key for w in batch], [w.feats for w in batch])

        def ask(pipe: Connection) -> Any:
            pipe.send(message)
            return pipe.recv()

        begun, self._stats.in_hand = time.monotonic(), len(batch)
        try:
            said = await child.do(ask, self._limits.batch_seconds)
        except Lost as e:
            for waiting in batch:
                fail(waiting, WorkerLost(f"its process {e}"))
            return
        except asyncio.CancelledError:
            for waiting in batch:
                fail(waiting, Closing())
            raise
        finally:
            self._stats.in_hand = 0
        seconds = time.monotonic() - begun
        self.rate = WEIGHT * self.rate + (1 - WEIGHT) * len(batch) / max(seconds, 1e-3)
        if isinstance(said, OsumError):
            for waiting in batch:
                fail(waiting, BadQuestion(said.where, said.what, said.mend))
            return
        self._stats.batches[len(batch)] += 1
        self._stats.batch_latency.add(seconds)
        self._stats.audio_seconds += sum(w.seconds for w in batch)
        for waiting, answers in zip(batch, said):
            if not waiting.answer.done():
                waiting.answer.set_result(answers)


def _receive(pipe: Connection) -> Any:
    return pipe.recv()


def fail(waiting: Work, e: Exception) -> None:
    """Let an error be a piece's answer, unless it has one."""
    if not waiting.answer.done():
        waiting.answer.set_exception(e)
        waiting.answer.exception()  # seen: its request may look at an earlier piece's, and leave
