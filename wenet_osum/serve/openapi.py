"""What ``/openapi.json`` tells of the routes, which read their bodies themselves so that nothing is read unbounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from wenet_osum import __version__
from wenet_osum.serve.openai_schema import ChatRequest, Error, TranscriptionForm, UnderstandForm

REFERENCE = "#/components/schemas/{model}"
FILE = {"type": "string", "format": "binary", "description": "wav, flac, mp3, ogg, opus, aiff ..."}
WRONG = {
    400: "what is wrong with the request",
    401: "no API key, or an unknown one",
    403: "asked from a page of another site",
    404: "no such model",
    408: "the body did not arrive in time",
    413: "too many bytes, or seconds",
    429: "too many requests; Retry-After says when to ask again",
    503: "loading, shutting down, or the model's process was lost; Retry-After",
    504: "no answer in time",
}


def describe(
    answer: Any,
    form: type[BaseModel] | None = None,
    json: type[BaseModel] | None = None,
    others: Sequence[str] = (),
) -> dict[str, Any]:
    """Arguments of a route.

    Args:
        answer: the model of its JSON. form, json: the model of what it reads. others: media types it may also answer
            with.
    """
    content: dict[str, Any] = {}
    if form is not None:
        content["multipart/form-data"] = {"schema": {"$ref": REFERENCE.format(model=form.__name__)}}
    if json is not None:
        content["application/json"] = {"schema": {"$ref": REFERENCE.format(model=json.__name__)}}
    found: dict[int | str, dict[str, Any]] = {200: {"model": answer}}
    if others:
        found[200]["content"] = {kind: {"schema": {"type": "string"}} for kind in others}
    statuses = WRONG if content else {code: WRONG[code] for code in (401, 403, 404, 429, 503)}
    found |= {code: {"model": Error, "description": what} for code, what in statuses.items()}
    extra = {"requestBody": {"required": True, "content": content}} if content else None
    return {"response_model": None, "responses": found, "openapi_extra": extra}


def add_openapi(app: FastAPI, keys: bool) -> None:
    """Make ``app.openapi`` know the models that routes read by themselves."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app, keys)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _schema(app: FastAPI, keys: bool) -> dict[str, Any]:
    found = get_openapi(
        title="osum serve",
        version=__version__,
        description="Speech understanding: OpenAI's API for transcriptions and chat, and every task at /v1/understand.",
        routes=app.routes,
    )
    parts = found.setdefault("components", {})
    read: list[type[BaseModel]] = [TranscriptionForm, UnderstandForm, ChatRequest]
    _, defined = models_json_schema([(model, "validation") for model in read], ref_template=REFERENCE)
    schemas = parts.setdefault("schemas", {}) | defined["$defs"]
    for form in (TranscriptionForm, UnderstandForm):
        schema = schemas[form.__name__]
        schema["properties"] = {"file": FILE, **schema["properties"]}
        schema["required"] = ["file", *schema.get("required", [])]
    parts["schemas"] = dict(sorted(schemas.items()))
    if keys:
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
    return found
