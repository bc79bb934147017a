"""A model that answers requests: bytes of an upload and what is asked in, answers out. No HTTP here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Awaitable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from wenet_osum.decode.answer import Answered
from wenet_osum.decode.formats import Transcript
from wenet_osum.decode.hearing import piece_key, transcript
from wenet_osum.decode.load import LoadSpec
from wenet_osum.decode.vad import Silero
from wenet_osum.errors import OsumError
from wenet_osum.serve.batcher import Batcher, Lane, Work
from wenet_osum.serve.decoders import Decoders
from wenet_osum.serve.errors import Busy, Closing, ServeError, TimedOut, TooLarge, WorkerLost
from wenet_osum.serve.model import Model, fail
from wenet_osum.serve.patience import Late, within
from wenet_osum.serve.question import Question
from wenet_osum.serve.settings import MIB, Limits
from wenet_osum.serve.stats import Stats
from wenet_osum.tasks import TaskTable

T = TypeVar("T")


@dataclass
class Piece:
    """The answers to one piece of a recording, by task name.

    Attributes:
        start, end: seconds in the recording; times of words in ``answers`` count from ``start``.
        duration: seconds of the whole recording.
    """

    start: float
    end: float
    duration: float
    answers: dict[str, Answered]


@dataclass(frozen=True)
class TaskFacts:
    """A task of the loaded model: its tag, what its answers have, and its label fields with their values."""

    name: str
    tag: str
    transcript: bool
    align: bool
    reply: bool
    labels: dict[str, tuple[str, ...]]


@dataclass(eq=False)
class _Request:
    """A request that is open. ``found``: its pieces as they are decoded, each with its span; at last None, or why
    there are no more."""

    name: str
    lane: Lane
    deadline: float
    duration: float = 0.0
    heard: bool = False  # a piece, or the end, has come
    found: asyncio.Queue[tuple[float, float, Work] | Exception | None] = field(default_factory=asyncio.Queue)

    async def within(self, what: Awaitable[T], seconds: float) -> T:
        """What is awaited, before the deadline; ``seconds``: the whole time, for the error."""
        found = await within(what, max(0.0, self.deadline - time.monotonic()))
        if isinstance(found, Late):
            raise TimedOut(seconds)
        return found


class Service:
    """Answers requests by a model in a process of its own, which is started again when it ends.

    Programs that use it keep ``multiprocessing``'s rule: what they run stands under
    ``if __name__ == "__main__":``.

    Args:
        load: which model, and how it is loaded.
        limits: bounds.

    Attributes:
        limits: as given.
        model_name: the checkpoint's name without folder and suffix.
        tasks: task name -> what it is; after ``start``.
    """

    def __init__(self, load: LoadSpec, limits: Limits = Limits()):  # noqa: B008
        self.model_name = Path(os.path.abspath(load.checkpoint)).stem
        self.tasks: dict[str, TaskFacts] = {}
        self.limits, self._stats = limits, Stats()
        # One for each decoder and the model, and some for those that are started.
        self._threads = ThreadPoolExecutor(limits.decoders + 4, "osum-pipe")
        self._batcher = Batcher(limits.batch_size, limits.max_wait)
        self._model = Model(load, limits, self._stats, self._batcher, self._threads)
        self._table: TaskTable
        self._decoders: Decoders
        self._running: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()  # the model is loaded, or will never be
        self._idle = asyncio.Event()
        self._closing = False
        self._failed: str | None = None
        self._open: set[_Request] = set()

    @property
    def ready(self) -> bool:
        """Whether a model is loaded and requests are taken."""
        return self._model.ready and not self._closing

    @property
    def failed(self) -> str | None:
        """Why no model could be started, for good; None: all is well."""
        return self._failed or self._model.failed

    @property
    def stats(self) -> Stats:
        """Counts; the same object every time."""
        self._stats.open, self._stats.queue = len(self._open), self._batcher.count
        return self._stats

    async def start(self) -> None:
        """Load the model; comes back when it is ready. ``hear`` may be called before: such requests wait.

        Raises:
            OsumError: the config or the checkpoint is not usable. Closing: ``stop`` was called.
        """
        try:
            if self.limits.vad == "silero":
                Silero()  # is it installed?
            facts = await self._model.load()
        except OsumError as e:
            self._failed = str(e)
            await self._model.close()
            raise
        finally:
            self._begun.set()
        if self._closing:
            await self._model.close()
            raise Closing
        self._table = facts.table
        self.tasks = {
            t.name: TaskFacts(
                t.name, t.tag, t.transcript, t.align, t.reply, {f.name: f.values for f in t.fields}
            )
            for t in facts.table.values()
        }
        longest = min(self.limits.piece_seconds, facts.most_seconds)
        self._decoders = Decoders(facts.conf, longest, self.limits, self._stats, self._threads)
        self._running = asyncio.create_task(self._model.run())

    async def stop(self, grace: float = 30.0) -> None:
        """Take no more requests, wait at most ``grace`` seconds for those that are open, end all processes. May be
        called again, with less patience, and while ``start`` is under way, which then raises."""
        self._closing = True
        if self._open:
            await within(self._idle.wait(), grace)
        self._begun.set()
        for request in self._open:
            request.found.put_nowait(Closing())
        for work in self._batcher.drop_all():
            fail(work, Closing())
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            await self._decoders.close()
        await self._model.close()

    async def hear(self, data: bytes, question: Question, name: str = "audio") -> Transcript:
        """The answers to a whole recording.

        What this gives is what ``osum transcribe`` gives for a file of that name (its folder plays no part).
        Cancel the task that waits here, and the pieces that wait leave the queue at once.

        Args:
            data: encoded audio: wave, flac, ogg, opus, mp3 ...
            name: of the file, as it is shown; never opened.

        Raises:
            ServeError: Busy, TooLarge, BadAudio, BadQuestion, WorkerLost, Closing, TimedOut.
        """
        async with contextlib.aclosing(self.stream(data, question, name)) as items:
            async for item in items:
                if isinstance(item, Transcript):
                    return item
        raise AssertionError("a stream ends with a Transcript, or an error")

    async def stream(
        self, data: bytes, question: Question, name: str = "audio"
    ) -> AsyncGenerator[Piece | Transcript, None]:
        """As ``hear``, piece by piece, in order; the last item is the whole, a ``Transcript``. Close it
        (``aclose``) to leave early. Most errors come in place of the first item, so wait for that before
        anything is promised to a client.

        Raises:
            ServeError: as ``hear``; where it comes to it, after the pieces before.
        """
        begun, outcome = time.monotonic(), "cancelled"  # what it is where nobody waits for the end
        name = name.encode(errors="replace").decode()  # whatever a client calls it
        try:
            self._admit(data)
            request = _Request(name, Lane(question), begun + self.limits.request_seconds)
            self._open.add(request)
            self._idle.clear()
            self._batcher.coming += 1
            try:
                async with contextlib.aclosing(self._answers(request, data)) as items:
                    async for item in items:
                        if isinstance(item, Transcript):
                            outcome = "ok"
                            self._stats.latency.add(time.monotonic() - begun)
                        yield item
            finally:
                self._open.remove(request)
                self._heard(request)
                if not self._open:
                    self._idle.set()
        except ServeError as e:
            outcome = e.outcome
            raise
        except Exception:
            outcome = "error"
            raise
        finally:
            self._stats.requests[outcome] += 1

    def _admit(self, data: bytes) -> None:
        if self._closing:
            raise Closing
        if self.failed:
            raise WorkerLost(self.failed, "see the server's log")
        if len(data) > self.limits.max_bytes:
            what = f"{len(data) / MIB:.1f} MiB, at most {self.limits.max_bytes / MIB:g}"
            raise TooLarge(what, "send flac, ogg or mp3, or cut it into parts")
        waiting = self._batcher.count + self._batcher.coming
        if waiting >= self.limits.max_queue:
            raise Busy(min(max(1.0, waiting / self._model.rate), 120.0))

    async def _answers(self, request: _Request, data: bytes) -> AsyncGenerator[Piece | Transcript, None]:
        seconds, lane = self.limits.request_seconds, request.lane
        await request.within(self._begun.wait(), seconds)
        if self._failed:
            raise WorkerLost(self._failed, "see the server's log")
        if not self.tasks:  # stopped before there was a model
            raise Closing
        lane.question = lane.question.checked(self._table, self.limits.max_prompt)
        feeding = asyncio.create_task(self._feed(request, data))
        spans: list[tuple[float, float]] = []
        answers: list[dict[str, Answered]] = []
        try:
            while (item := await request.within(request.found.get(), seconds)) is not None:
                if isinstance(item, Exception):
                    raise item
                start, end, work = item
                answers.append(await request.within(work.answer, seconds))
                spans.append((start, end))
                yield Piece(start, end, request.duration, answers[-1])
        finally:
            feeding.cancel()
            self._batcher.drop(lane)
        tasks = [self._table[name] for name in lane.question.tasks]
        yield transcript(request.name, Path(request.name).stem, request.duration, spans, answers, tasks)

    async def _feed(self, request: _Request, data: bytes) -> None:
        """Decode an upload and let its pieces wait for the model, not many at a time."""
        name, lane = request.name, request.lane
        try:
            async with self._decoders.open(data, name) as decoding:
                del data
                request.duration = decoding.duration
                while (sound := await decoding.next()) is not None:
                    self._heard(request)
                    key = piece_key(Path(name).stem, lane.given)
                    work = self._batcher.put(lane, key, sound.feats, sound.end - sound.start)
                    request.found.put_nowait((sound.start, sound.end, work))
                    await self._batcher.room(lane)
            request.found.put_nowait(None)
        except Exception as e:
            request.found.put_nowait(e)

    def _heard(self, request: _Request) -> None:
        self._batcher.coming -= not request.heard
        request.heard = True
