"""The app of ``osum serve``: its routes, and the rooms that every request passes."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from wenet_osum.serve import ops
from wenet_osum.serve.auth import Auth, KnownHost, SameOrigin
from wenet_osum.serve.bodies import Bodies
from wenet_osum.serve.chat import add_chat
from wenet_osum.serve.errors_http import add_handlers
from wenet_osum.serve.gate import Gate, Outermost
from wenet_osum.serve.http_settings import HttpSettings
from wenet_osum.serve.metrics import Metrics
from wenet_osum.serve.model_facts import ModelFacts
from wenet_osum.serve.openapi import add_openapi
from wenet_osum.serve.page.routes import OPEN_PATHS, add_page
from wenet_osum.serve.room import Room
from wenet_osum.serve.service import Service
from wenet_osum.serve.settings import MIB
from wenet_osum.serve.transcriptions import add_transcriptions
from wenet_osum.serve.understand import add_understand


def create_app(service: Service, settings: HttpSettings, facts: ModelFacts) -> FastAPI:
    """Args:
    service: is started and stopped by whoever runs the app; ``app.state.room.started`` tells that it was.

    Returns:
        the app; ``app.state.gate`` closes it.

    Raises:
        OsumError: ``settings.examples`` or ``settings.feedback`` cannot be used.
    """
    app = FastAPI(redirect_slashes=False, docs_url=None, redoc_url=None, openapi_url=None)
    room = app.state.room = Room(service, settings, facts)
    gate = app.state.gate = Gate(settings.max_requests, ops.OPEN_PATHS)
    metrics = Metrics(service)
    add_handlers(app)
    add_transcriptions(app, room)
    add_chat(app, room)
    add_understand(app, room)
    ops.add_ops(app, room, gate, metrics)
    add_openapi(app, bool(settings.keys))
    if settings.docs:
        ops.add_docs(app)
    add_page(app, service, settings)
    # The last one added is the first to see a request.
    most = service.limits.max_bytes
    app.add_middleware(
        Bodies, most=most * 4 // 3 + MIB, held_most=settings.held_bytes, seconds=settings.body_seconds
    )
    app.add_middleware(Auth, keys=settings.keys, open_paths=(*ops.OPEN_PATHS, *OPEN_PATHS))
    app.add_middleware(SameOrigin, origins=settings.cors)
    if settings.hosts is not None:
        app.add_middleware(KnownHost, hosts=settings.hosts)
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(gate)
    app.add_middleware(Outermost, metrics=metrics)
    return app
