"""A server's life: it listens, loads the model, answers; on SIGTERM it lets nobody in, and ends when all are out."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from wenet_osum.errors import OsumError
from wenet_osum.serve.protocol import MAX_HEAD, Protocol
from wenet_osum.serve.service import Service

SIGNALS = (signal.SIGTERM, signal.SIGINT)
KEEP_ALIVE = 5  # seconds that a connection may idle between requests
TWICE = 0.3  # seconds within which a second signal is the first one's echo
LAST_WORDS = 2.0  # seconds in which those that were cut off are told so


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections; ``port`` 0: any that is free.

    Raises:
        OsumError: there is no such address, or it is taken.
    """
    where = f"--host {host} --port {port}"
    if not 0 <= port < 1 << 16:  # the system would take the last 16 bits of it
        raise OsumError(where, "no such port", "give one from 0 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as e:
        raise OsumError(where, e.strerror or str(e), "give another address") from None


class Server(uvicorn.Server):
    """uvicorn's, which on the first signal goes on answering 503 until nobody is inside; on the second it ends.

    Attributes:
        forced: the second signal; None: there was none.
        failed: why there is no model.
    """

    def __init__(self, app: FastAPI, service: Service, grace: float, access_log: bool):
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=access_log,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=int(LAST_WORDS),
                h11_max_incomplete_event_size=MAX_HEAD,
            )
        )
        self.gate, self.room, self.service, self.grace = app.state.gate, app.state.room, service, grace
        self.closing: asyncio.Task[None] | None = None
        self.told = 0.0  # when
        self.forced: signal.Signals | None = None
        self.failed: OsumError | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for sig in SIGNALS:
            loop.add_signal_handler(sig, self.on_signal, sig)
        try:
            yield
        finally:
            for sig in SIGNALS:
                loop.remove_signal_handler(sig)

    def on_signal(self, sig: signal.Signals) -> None:
        now = asyncio.get_running_loop().time()
        if self.closing is None:
            self.closing, self.told = asyncio.ensure_future(self.close()), now
            return
        if now - self.told < TWICE:  # ``timeout`` and others tell the process, and then its group
            return
        logging.info("%s again: ending at once", sig.name)
        self.forced = sig
        self.closing.cancel()
        self.force_exit = self.should_exit = True
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def close(self) -> None:
        logging.info("closing: %d requests inside, %g s for them", self.gate.inside, self.grace)
        if not await self.gate.drain(self.grace):
            logging.warning("closing: %d requests are cut off", self.gate.inside)
            await self.service.stop(0)
            await self.gate.drain(LAST_WORDS)
        self.should_exit = True

    async def load(self) -> None:
        """Start the service, and end the server when there is no model, or none any more."""
        try:
            await self.service.start()
            self.room.started = True
            logging.info("ready: %s", ", ".join(self.room.settings.names))
            while not self.service.failed:
                await asyncio.sleep(1)
            self.failed = OsumError("model", self.service.failed, "see the log")
        except OsumError as e:
            self.failed = e
        self.should_exit = True


async def serve(app: FastAPI, service: Service, sock: socket.socket, grace: float, access_log: bool) -> int:
    """Answer until a signal comes.

    Args:
        sock: from ``listen``. grace: seconds for those that are inside when it comes.

    Returns:
        exit status: 0; 128 and the signal's number when there was a second one.

    Raises:
        OsumError: the model cannot be loaded, or ended for good.
    """
    gc.freeze()  # torch's objects, some hundred thousand: no look at them while answering, nor at the end
    server = Server(app, service, grace, access_log)
    host, port = sock.getsockname()[:2]
    logging.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    loading = asyncio.ensure_future(server.load())
    try:
        await server.serve(sockets=[sock])
    finally:
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await service.stop(0)
    if server.forced is not None:
        return 128 + server.forced
    if server.failed is not None:
        raise server.failed
    return 0
