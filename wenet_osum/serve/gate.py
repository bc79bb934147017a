"""How many requests are let in, and for how long: the outermost rooms of the app."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wenet_osum.serve.errors import Closing
from wenet_osum.serve.errors_http import api_error, later
from wenet_osum.serve.metrics import Metrics
from wenet_osum.serve.patience import Late, within

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
    "permissions-policy": "camera=(), geolocation=(), microphone=(self)",
    # What a page of our own needs: its own files, sound and pictures that it made itself.
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}


class Outermost:
    """Middleware: security headers where a route set none, the count and time of every request, and 500 in OpenAI's
    shape for what nobody caught (its traceback goes to the log)."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status, since = 0, time.monotonic()

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers, asked = MutableHeaders(scope=message), Headers(scope=scope)
                # A client that asked whether to send its body (100-continue) need not send it any more. And where a
                # body has two lengths, a proxy may take its end for another request (RFC 9112, 6.1).
                unsent = status >= 400 and "expect" in asked
                if unsent or ("transfer-encoding" in asked and "content-length" in asked):
                    headers["connection"] = "close"
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        with self.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, send_on)
            except ClientDisconnect:
                pass
            except Exception as e:
                logging.exception("%s %s failed", scope["method"], scope["path"])
                if status:  # half an answer is out: only an end without its end tells that it failed
                    raise
                await api_error(e).response()(scope, receive, send_on)
            finally:
                # 0: the client went away before there was an answer, which nginx calls 499.
                self.metrics.count(scope, status or 499, time.monotonic() - since)


class Gate:
    """Middleware: 503 while ``shut``, 429 with more than ``most`` requests at a time. ``open_paths``, which tell how
    the server stands, are always let in.

    Attributes:
        shut: nobody is let in any more.
        inside: requests that were let in and are not at their end.
    """

    def __init__(self, most: int, open_paths: Collection[str]):
        self.most, self.open_paths = most, frozenset(open_paths)
        self.shut, self.inside = False, 0
        self._empty = asyncio.Event()
        self._empty.set()

    def __call__(self, app: ASGIApp) -> ASGIApp:
        async def enter(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"] in self.open_paths:
                return await app(scope, receive, send)
            if self.shut:
                return await api_error(Closing()).response()(scope, receive, send)
            if self.inside >= self.most:
                error = later(429, "too many requests at a time", "rate_limit_exceeded", 1)
                return await error.response()(scope, receive, send)
            self.inside += 1
            self._empty.clear()
            try:
                await app(scope, receive, send)
            finally:
                self.inside -= 1
                if not self.inside:
                    self._empty.set()

        return enter

    async def drain(self, seconds: float) -> bool:
        """Let nobody in any more, and wait until all are out; False: some were not after ``seconds``."""
        self.shut = True
        return not isinstance(await within(self._empty.wait(), seconds), Late)
