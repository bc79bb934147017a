"""Who may ask: API keys, and no pages of other sites."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from wenet_osum.errors import OsumError
from wenet_osum.fileio import read_lines
from wenet_osum.serve.errors_http import ApiError
from wenet_osum.serve.http_settings import is_loopback


def read_keys(path: str | Path) -> list[str]:
    """API keys, one a line; blank lines and those with ``#`` in front are left out.

    Raises:
        OsumError: no key in it, or no such file.
    """
    keys = [line.strip() for _, line in read_lines(path)]
    keys = [key for key in keys if key and not key.startswith("#")]
    if not keys:
        raise OsumError(str(path), "holds no API key", "write one a line")
    return keys


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class Auth:
    """Middleware: 401 without a key that is known, where there are keys; ``open_paths`` need none, nor does what is
    below those of them that end in ``/``."""

    def __init__(self, app: ASGIApp, keys: Iterable[str], open_paths: Collection[str]):
        self.app, self.open_paths = app, frozenset(open_paths)
        self.below = tuple(path for path in open_paths if path.endswith("/") and path != "/")
        self.keys = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.keys and not self.is_open(scope):
            scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            # All are compared, each in constant time: how long it takes tells nothing about any of them.
            given = _digest(key.strip())
            known = [hmac.compare_digest(given, other) for other in self.keys]
            if scheme.lower() != "bearer" or not any(known):
                what = "Incorrect API key provided." if key else "You didn't provide an API key."
                error = ApiError(
                    401,
                    f"{what} Send it as Authorization: Bearer KEY.",
                    None,
                    "invalid_api_key",
                    headers={"www-authenticate": "Bearer"},
                )
                return await error.response()(scope, receive, send)
        await self.app(scope, receive, send)

    def is_open(self, scope: Scope) -> bool:
        path = scope["path"]
        return path in self.open_paths or path.startswith(self.below)


class SameOrigin:
    """Middleware: 403 for a page of another site that is not among ``origins``.

    Browsers send a plain form to any address, loopback included, without asking first; they do say whose page it is.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]):
        self.app, self.origins = app, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            origin, host = headers.get("origin"), headers.get("host", "")
            if origin is not None and "*" not in self.origins and origin not in self.origins:
                try:
                    own = urlsplit(origin).netloc.lower() == host.lower() != ""
                except ValueError:
                    own = False
                if not own:
                    error = ApiError(
                        403, "pages of other sites may not ask here (see --cors)", None, "cors_not_allowed"
                    )
                    return await error.response()(scope, receive, send)
        await self.app(scope, receive, send)


class KnownHost:
    """Middleware: 403 for a request to a name that is neither this machine's own nor among ``hosts``.

    A page of another site may let its own name lead here (DNS rebinding); to its browser it is then our page.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]):
        self.app, self.hosts = app, frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                name = urlsplit("//" + Headers(scope=scope).get("host", "")).hostname or ""
            except ValueError:
                name = "?"
            if name and not is_loopback(name) and name not in self.hosts:
                error = ApiError(
                    403, "it may not be asked under this name (see --allow_host)", None, "host_not_allowed"
                )
                return await error.response()(scope, receive, send)
        await self.app(scope, receive, send)
