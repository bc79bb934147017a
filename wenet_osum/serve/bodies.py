"""Bodies of requests, bounded in size, in time and in number: no more of one is held than may be."""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wenet_osum.serve.errors_http import ApiError, later
from wenet_osum.serve.patience import Late, within

LEAST_RATE = 32 * 1024  # bytes a second below which a client counts as stuck
CLOSE = {"connection": "close"}  # what is left of the body is not waited for


class Bodies:
    """Middleware: every body has at most ``most`` bytes (413), all of those that are held at a time ``held_most``
    (429), and arrives in ``seconds`` and a second more for every 32 KiB (408).

    What is wrong is raised where the body is read, as ``ApiError``. The rest of a body is then dropped as it comes,
    for as long as ``Protocol`` waits, so that its sender comes to read the answer.
    """

    def __init__(self, app: ASGIApp, most: int, held_most: int, seconds: float):
        self.app, self.most, self.held_most, self.seconds = app, most, held_most, seconds
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        declared = Headers(scope=scope).get("content-length", "")
        large = len(declared) < 20 and declared.isdecimal() and int(declared) > self.most
        got, ended, since = 0, False, time.monotonic()

        def too_large() -> ApiError:
            what = f"the request has more than {self.most} bytes, the most that is taken"
            return ApiError(413, what, "file", "too_large")

        async def bounded() -> Message:
            nonlocal got, ended
            if ended:  # behind the body comes only the end of the connection, whenever that is
                return await receive()
            if large:
                raise too_large()
            left = since + self.seconds + got / LEAST_RATE - time.monotonic()
            message = await within(receive(), max(left, 0.001))
            if isinstance(message, Late):
                raise ApiError(408, "the body did not arrive in time", None, "timeout", headers=CLOSE)
            size = len(message.get("body", b""))
            got, self.held = got + size, self.held + size
            ended = not message.get("more_body", False)
            if got > self.most:
                raise too_large()
            if self.held > self.held_most:
                raise later(429, "too much is being sent at a time", "rate_limit_exceeded")
            return message

        try:
            await self.app(scope, bounded, send)
        finally:
            self.held -= got
