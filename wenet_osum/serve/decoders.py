"""Uploads decoded by a few processes, which are kept for the next upload unless one broke them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from wenet_osum.serve.decoder import decode
from wenet_osum.serve.errors import BadAudio, TooLarge, WorkerLost
from wenet_osum.serve.process import Child, Lost
from wenet_osum.serve.settings import Limits
from wenet_osum.serve.stats import Stats

LONG = 120.0  # seconds from which an upload counts as long
KEPT = 2  # decoders that long uploads leave to short ones
READS = "wave, flac, ogg (vorbis or opus), mp3 and aiff are read"


@dataclass(frozen=True)
class Sound:
    """A piece of an upload: seconds in it, and its features (T, F), float32."""

    start: float
    end: float
    feats: np.ndarray


class Decoding:
    """An upload that is being decoded. ``duration``: its seconds."""

    def __init__(self, child: Child, name: str, limits: Limits):
        self._child, self._name, self._limits = child, name, limits
        self.duration = 0.0
        self.done = False  # the decoder waits for the next upload

    async def begin(self, data: bytes) -> None:
        """Raises: as ``next``."""

        def send(pipe: Connection) -> dict[str, Any]:
            pipe.send_bytes(self._name.encode())
            pipe.send_bytes(data)
            return json.loads(pipe.recv_bytes())  # type: ignore[no-any-return]

        self.duration = self._checked(await self._do(send))["duration"]

    async def next(self) -> Sound | None:
        """The next piece, or None at the end.

        Raises:
            BadAudio: it cannot be decoded, or not within the limits. TooLarge: it is too long.
        """

        def receive(pipe: Connection) -> tuple[dict[str, Any], bytes]:
            facts = json.loads(pipe.recv_bytes())
            return facts, pipe.recv_bytes() if "shape" in facts else b""

        facts, body = await self._do(receive)
        if not self._checked(facts):
            self.done = True
            return None
        feats = np.frombuffer(body, np.float32).reshape(facts["shape"])
        return Sound(facts["start"], facts["end"], feats)

    async def _do(self, exchange: Any) -> Any:
        try:
            return await self._child.do(exchange)
        except Lost:
            how = self._child.how()
            if how == signal.SIGXCPU.name:
                what = f"takes more than {self._limits.decode_seconds:g} s to decode"
                raise BadAudio(what, "send it as a 16 kHz mono wave file") from None
            raise BadAudio(f"breaks its decoder ({how})", f"send another format: {READS}") from None

    def _checked(self, facts: dict[str, Any]) -> dict[str, Any]:
        if "error" in facts:
            self.done = True
            if facts["error"] == "too_large":
                raise TooLarge(facts["what"], facts["mend"])
            mend = f"send another format: {READS}" if "unreadable" in facts["what"] else facts["mend"]
            raise BadAudio(facts["what"], mend)
        return facts


class Decoders:
    """At most ``limits.decoders`` processes. A long upload keeps one until it is answered, so some are left to
    short ones.

    Args:
        conf: ``dataset_conf``. max_seconds: of a piece.
    """

    def __init__(
        self,
        conf: dict[str, Any],
        max_seconds: float,
        limits: Limits,
        stats: Stats,
        threads: ThreadPoolExecutor,
    ):
        self._args = (conf, max_seconds, limits)
        self._limits, self._stats, self._threads = limits, stats, threads
        self._free: list[Child] = []
        self._all: set[Child] = set()
        self._room = asyncio.Semaphore(limits.decoders)
        self._long = asyncio.Semaphore(max(1, limits.decoders - KEPT))

    @contextlib.asynccontextmanager
    async def open(self, data: bytes, name: str) -> AsyncIterator[Decoding]:
        """Begin to decode an upload; waits for a free process.

        Raises:
            BadAudio, TooLarge: as ``Decoding.next``. WorkerLost: no process can be started.
        """
        async with contextlib.AsyncExitStack() as held:
            if likely_seconds(data) > LONG:
                await held.enter_async_context(self._long)
            await held.enter_async_context(self._room)
            child = await self._take()
            decoding = Decoding(child, name, self._limits)
            try:
                await decoding.begin(data)
                yield decoding
            finally:
                await self._give(child, decoding.done)

    async def close(self) -> None:
        """End all processes."""
        await asyncio.gather(*(child.close() for child in self._all))
        self._free.clear()
        self._all.clear()

    async def _take(self) -> Child:
        while self._free:
            child = self._free.pop()
            if not child.gone.is_set():
                return child
            await self._give(child, False)
        child = Child(decode, self._args, self._threads)
        self._all.add(child)
        try:
            await child.start()
        except BaseException as e:
            self._all.discard(child)
            if isinstance(e, Lost):
                raise WorkerLost(f"has no decoder: it {e}") from None
            raise
        return child

    async def _give(self, child: Child, sound: bool) -> None:
        if sound:
            self._free.append(child)
            return
        self._stats.decoder_losses += 1
        self._all.discard(child)
        await child.close()


def likely_seconds(data: bytes) -> float:
    """A guess by the size: of a wave file, 16 bits at 16 kHz; of all else, 32 kbit/s."""
    return len(data) / (32000 if data[:4] == b"RIFF" else 4000)
