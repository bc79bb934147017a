"""How the server stands, what it has, and how it is asked: for machines, and ``/docs`` for people."""

from __future__ import annotations

import html
from typing import Any

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import HTMLResponse, JSONResponse, Response

from wenet_osum.serve.gate import Gate
from wenet_osum.serve.metrics import Metrics
from wenet_osum.serve.openai_schema import Model, ModelList
from wenet_osum.serve.openapi import describe
from wenet_osum.serve.room import Room

OPEN_PATHS = (
    "/health",
    "/ready",
)  # for whoever watches the server: no key, and let in when it is full or closing

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}code{white-space:pre-wrap}"
)


def add_ops(app: FastAPI, room: Room, gate: Gate, metrics: Metrics) -> None:
    @app.get("/health", tags=["operation"])
    async def health() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/ready", tags=["operation"], responses={503: {"description": "loading, or shutting down"}})
    async def ready() -> JSONResponse:
        """The model answers; 503 while it is loaded, started anew, or the server shuts down."""
        if room.service.ready and not gate.shut:
            return JSONResponse({"status": "ready"})
        state = "closing" if gate.shut else "failed" if room.service.failed else "loading"
        return JSONResponse({"status": state}, 503, {"retry-after": "5"})

    @app.get("/metrics", tags=["operation"])
    async def numbers() -> Response:
        """Counts for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models", **describe(ModelList))
    async def models() -> ModelList:
        """The model, by each of its names."""
        return ModelList(data=[Model(id=name, created=room.since) for name in room.settings.names])

    @app.get("/v1/models/{model:path}", **describe(Model))
    async def model(model: str) -> Model:
        """The model, if that is its name."""
        room.check_model(model)
        return Model(id=model, created=room.since)


def add_docs(app: FastAPI) -> None:
    """``/docs``: the routes as ``/openapi.json`` has them, on a page that loads nothing from anywhere."""

    @app.get("/openapi.json", include_in_schema=False)
    async def schema() -> JSONResponse:
        return JSONResponse(app.openapi())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(
            page(app.openapi()),
            headers={"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )


def page(schema: dict[str, Any]) -> str:
    parts = [
        f"<h1>{html.escape(schema['info']['title'])}</h1><p>{html.escape(schema['info']['description'])}</p>"
    ]
    parts.append('<p>Machines read <a href="openapi.json">openapi.json</a>.</p>')
    models = schema["components"]["schemas"]
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            parts.append(f"<h2>{method.upper()} {html.escape(path)}</h2>")
            parts.append(f"<p>{html.escape(route.get('description') or route.get('summary', ''))}</p>")
            for kind, body in route.get("requestBody", {}).get("content", {}).items():
                name = body["schema"]["$ref"].rpartition("/")[2]
                parts.append(f"<p>{html.escape(kind)}:</p><dl>{_fields(models[name])}</dl>")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>osum serve</title><style>{_STYLE}</style>'
        + "".join(parts)
    )


def _fields(model: dict[str, Any]) -> str:
    rows = []
    for name, field in model["properties"].items():
        must = " (required)" if name in model.get("required", []) else ""
        kinds = field.get("enum") or field.get("type") or ""
        shown = (
            ", ".join("null" if k is None else str(k) for k in kinds) if isinstance(kinds, list) else kinds
        )
        what = " ".join(filter(None, [str(shown), field.get("description", "")]))
        rows.append(f"<dt><b>{html.escape(name)}</b>{must}</dt><dd>{html.escape(what)}</dd>")
    return "".join(rows)
