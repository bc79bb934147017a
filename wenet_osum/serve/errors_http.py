"""Errors over HTTP: every one is OpenAI's ``{"error": {"message", "type", "param", "code"}}``, without a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from wenet_osum.errors import OsumError
from wenet_osum.serve.errors import (
    BadAudio,
    BadQuestion,
    Busy,
    Closing,
    ServeError,
    TimedOut,
    TooLarge,
    WorkerLost,
)

INVALID = "invalid_request_error"
SERVER = "server_error"
RETRY = 5  # seconds after which a client should ask again, where nothing better is known


class ApiError(Exception):
    """An answer that is an error.

    Args:
        status: of HTTP. message: one line. param: the field that is wrong. code: a short fixed slug. kind: OpenAI's
            ``type``. headers: further ones of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        kind: str = INVALID,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.kind = status, message, param, code, kind
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers)


def unsupported(param: str, why: str) -> ApiError:
    """What OpenAI's API knows and this model does not."""
    return ApiError(400, why, param, "unsupported_value")


def later(status: int, message: str, code: str, seconds: float = RETRY) -> ApiError:
    """The server's trouble of this moment: 429 or 503, and when to ask again."""
    kind = "requests" if status == 429 else SERVER
    return ApiError(status, message, None, code, kind, {"retry-after": str(max(1, round(seconds)))})


def one_line(e: OsumError) -> str:
    """What is wrong and what to do; where it is (a file's name) the client knows."""
    return f"{e.what}; {e.mend}" if e.mend else e.what or str(e)


def api_error(e: Exception) -> ApiError:
    """The answer to an error of the engine; of what is no error of its own, 500 and nothing about it."""
    match e:
        case ApiError():
            return e
        case Busy():
            return later(429, "too many recordings are waiting", "rate_limit_exceeded", e.retry_after)
        case TooLarge():
            return ApiError(413, one_line(e), "file", "too_large")
        case BadAudio():
            return ApiError(400, one_line(e), "file", "invalid_audio")
        case BadQuestion():
            return ApiError(400, str(e), e.where, "invalid_value")
        case TimedOut():
            return ApiError(504, one_line(e), None, "timeout", SERVER)
        case Closing():
            return later(503, "the server is shutting down", "closing")
        case WorkerLost():
            return later(503, str(e), "model_lost")
    return ApiError(500, "the server failed; its log has the reason", None, "internal_error", SERVER)


def from_validation(e: ValidationError) -> ApiError:
    """The first thing that is wrong with a request, by the name of its field."""
    first = e.errors(include_url=False, include_context=False, include_input=False)[0]
    param = ".".join(str(part) for part in first["loc"])[:100] or None
    code = {
        "missing": "missing_required_parameter",
        "extra_forbidden": "unknown_parameter",
        "unsupported_value": "unsupported_value",
    }
    what = first["msg"][:400]  # it may quote what a client sent
    message = f"{param}: {what}" if param else what
    if first["type"] == "extra_forbidden":
        message = f"Unknown parameter: '{param}'."
    if first["type"] == "missing":
        message = f"Missing required parameter: '{param}'."
    return ApiError(400, message, param, code.get(first["type"], "invalid_value"))


def add_handlers(app: FastAPI) -> None:
    """All that routes raise, and what the framework itself answers (404, 405, its own validation)."""

    async def api(request: Request, e: Exception) -> JSONResponse:
        return api_error(e).response()

    async def http(request: Request, e: Exception) -> JSONResponse:
        assert isinstance(e, HTTPException)
        where = f"{request.method} {request.scope['path'][:200]}"  # no look at Host, which may be malformed
        if e.status_code == 404:
            return ApiError(404, f"Invalid URL ({where})", None, "unknown_url").response()
        if e.status_code == 405:
            found = ApiError(
                405, f"Not allowed: {where}", None, "method_not_supported", headers=e.headers or {}
            )
            return found.response()
        kind = SERVER if e.status_code >= 500 else INVALID
        return ApiError(e.status_code, str(e.detail), kind=kind, headers=e.headers or {}).response()

    async def validation(request: Request, e: Exception) -> JSONResponse:
        assert isinstance(e, RequestValidationError)
        first = e.errors()[0]
        param = ".".join(str(part) for part in first["loc"][1:]) or None
        return ApiError(400, f"{param}: {first['msg']}", param, "invalid_value").response()

    app.add_exception_handler(ApiError, api)
    app.add_exception_handler(ServeError, api)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)
