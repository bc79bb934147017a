"""What a server allows over HTTP, and whom."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from wenet_osum.serve.settings import MIB


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class HttpSettings:
    """Of the app; bounds of one recording are in ``Limits``.

    Attributes:
        names: by which clients may call the model; the first is the one that is shown.
        keys: API keys; none: anyone may ask.
        cors: origins (``https://host``) of other sites whose pages may ask; ``*``: all.
        hosts: names under which it may be asked, beside this machine's own; None: any.
        max_requests: that may be inside at a time.
        held_bytes: of all bodies that are inside at a time.
        body_seconds: that a body may take to arrive, and a second more for every 32 KiB.
        examples: a folder of recordings that the page offers. feedback: the file that keeps what its users say.
        docs: whether ``/docs`` and ``/openapi.json`` are there.
    """

    names: tuple[str, ...] = ("osum",)
    keys: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = None
    max_requests: int = 256
    held_bytes: int = 1024 * MIB
    body_seconds: float = 20.0
    examples: Path | None = None
    feedback: Path | None = None
    docs: bool = True
