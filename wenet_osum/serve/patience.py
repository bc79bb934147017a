"""Waiting for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


class Late:
    """What ``within`` gives where there was no result in time."""


async def within(what: Awaitable[T], seconds: float | None) -> T | Late:
    """What is awaited, or ``Late`` after ``seconds`` (None: any time), when it is cancelled.

    Not ``asyncio.wait_for``: before Python 3.12 that loses a cancellation which comes in the same turn of the loop as
    the result (cpython#86296), and who was cancelled goes on for ever.
    """
    future: asyncio.Future[Any] = asyncio.ensure_future(what)
    future.add_done_callback(lambda f: f.cancelled() or f.exception())  # seen, if nobody looks any more
    try:
        await asyncio.wait((future,), timeout=seconds)
        return future.result() if future.done() else Late()
    finally:
        future.cancel()
