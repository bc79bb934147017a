"""The routes of the page: its files, what it must know of the server, examples, feedback."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from wenet_osum.decode.recordings import SUFFIXES
from wenet_osum.errors import OsumError
from wenet_osum.score.report import TASK_ORDER
from wenet_osum.serve.errors_http import ApiError, from_validation
from wenet_osum.serve.http_settings import HttpSettings
from wenet_osum.serve.page.feedback import MOST_BODY, Feedback, FeedbackFile, check
from wenet_osum.serve.service import Service, TaskFacts

# What needs no API key: the page itself, and what tells it to ask for one.
OPEN_PATHS = ("/", "/page/facts", "/page/static/")

MOST_EXAMPLES = 12  # more would be no choice but a list

# Scripts, styles, sounds and pictures of the page's own, and nothing inline.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src blob:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # asked for anew each time, and by its ETag sent only when it changed
}


class PageFiles(StaticFiles):
    """The folder of the page's files, with ``HEADERS``."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def find_examples(folder: Path | None) -> list[Path]:
    """The recordings in a folder, by name, at most ``MOST_EXAMPLES``; what is left out is told in one line.

    Raises:
        OsumError: no such folder, or no recording in it.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise OsumError(f"--examples {folder}", "no such folder", "give one with recordings")
    found = sorted(p for p in folder.iterdir() if p.suffix[1:].lower() in SUFFIXES and p.is_file())
    if not found:
        raise OsumError(f"--examples {folder}", "no recording in it", f"known: {' '.join(sorted(SUFFIXES))}")
    if len(found) > MOST_EXAMPLES:
        logging.info("--examples %s: the first %d of %d are shown", folder, MOST_EXAMPLES, len(found))
    return found[:MOST_EXAMPLES]


def task_facts(tasks: Mapping[str, TaskFacts]) -> list[dict[str, Any]]:
    """The tasks as the page shows them: the eight usual ones first, in their order."""
    rank = {name: n for n, name in enumerate(TASK_ORDER)}
    return [
        {
            "name": task.name,
            "usual": task.name in rank,
            "reply": task.reply,
            "fields": [{"name": field, "values": list(values)} for field, values in task.labels.items()],
        }
        for task in sorted(tasks.values(), key=lambda t: rank.get(t.name, len(rank)))
    ]


async def read_json(request: Request, most: int) -> Any:
    """The JSON of a body of at most ``most`` bytes.

    Raises:
        ApiError: 415, 413, 400.
    """
    # Another site's page can send text/plain without asking first, but not JSON.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "send application/json", None, "unsupported_media_type")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise ApiError(413, f"at most {most} bytes", None, "too_large")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "no JSON", None, "invalid_json") from None


def add_page(app: FastAPI, service: Service, settings: HttpSettings) -> None:
    """Put the page at ``/`` and what it needs below ``/page``.

    Raises:
        OsumError: ``settings.examples`` is no folder with recordings, or ``settings.feedback`` cannot be written.
    """
    files = PageFiles(directory=Path(__file__).parent / "static")
    examples = find_examples(settings.examples)
    store = FeedbackFile(settings.feedback) if settings.feedback else None

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    @app.get("/page/facts", include_in_schema=False)
    async def facts() -> dict[str, Any]:
        return {
            "ready": service.ready,
            "model": settings.names[0],
            "tasks": task_facts(service.tasks) if service.ready else [],
            "limits": {"bytes": service.limits.max_bytes, "seconds": service.limits.max_seconds},
            "examples": [
                {
                    "name": path.name,
                    "title": path.stem.replace("_", " "),
                    "url": f"page/examples/{n}",
                }
                for n, path in enumerate(examples)
            ],
            "feedback": store is not None,
            "key": bool(settings.keys),
            "docs": settings.docs and not settings.keys,  # a link carries no key
        }

    @app.get("/page/examples/{number}", include_in_schema=False)
    async def example(number: str) -> Response:
        # A number of the list made at the start: no name from a request comes near the file system.
        found = {str(n): path for n, path in enumerate(examples)}.get(number)
        if found is None or not found.is_file():
            raise ApiError(404, "no such example", None, "not_found")
        return FileResponse(found, headers=HEADERS)

    if store is not None:

        @app.post("/page/feedback", status_code=204, include_in_schema=False)
        async def feedback(request: Request) -> None:
            body = await read_json(request, MOST_BODY)
            try:
                given = Feedback.model_validate(body)
            except ValidationError as e:
                raise from_validation(e) from None
            check(given, service.tasks)
            row = {"model": settings.names[0], **given.model_dump(exclude_none=True)}
            await run_in_threadpool(store.add, row)

    app.mount("/page/static", files, name="page")
