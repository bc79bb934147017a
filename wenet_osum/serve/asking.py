"""A question to the service for as long as its client is there: whoever goes away frees his place."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse

from wenet_osum.serve.errors_http import api_error

T = TypeVar("T")


async def while_there(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled when the client goes away. The request's body is read.

    Raises:
        ClientDisconnect: nobody waits for the result any more.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def events(
    request: Request, messages: AsyncGenerator[dict[str, Any], None], last: str = ""
) -> StreamingResponse:
    """Messages as server-sent events. The first one is waited for, so that an error before it has its own status;
    one behind it becomes an event ``{"error": ...}``, and the last.

    Args:
        last: data of an event behind the messages (``[DONE]``).
    """

    async def first_of() -> dict[str, Any] | None:
        return await anext(messages, None)

    try:
        first = await while_there(request, first_of())
    except BaseException:
        await messages.aclose()
        raise

    async def body() -> AsyncIterator[str]:
        async with contextlib.aclosing(messages):
            try:
                if first is not None:
                    yield _event(first)
                async for message in messages:
                    yield _event(message)
            except Exception as e:
                error = api_error(e)
                if error.status == 500:
                    logging.exception("%s failed behind its first event", request.url.path)
                yield _event(error.body())
                return
            if last:
                yield f"data: {last}\n\n"

    headers = {"x-accel-buffering": "no"}  # nginx would hold events back
    return StreamingResponse(body(), media_type="text/event-stream", headers=headers)


def _event(message: dict[str, Any]) -> str:
    return f"data: {json.dumps(message, separators=(',', ':'))}\n\n"
