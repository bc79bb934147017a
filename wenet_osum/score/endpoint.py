"""An OpenAI-compatible chat endpoint, asked with patience."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from wenet_osum.errors import OsumError

_LONGEST_WAIT = 60.0  # seconds between two tries
_BUSY = {408, 409, 425, 429}  # and every 5xx: may go well later
_REFUSED = {400, 413, 422}  # this question, perhaps not the next: content filters, texts too long


class Refused(Exception):
    """The endpoint will not answer this one question; says why."""


@dataclass(frozen=True)
class Endpoint:
    """Where questions go.

    Attributes:
        url: the API's base (``http://localhost:8000/v1``) or its ``.../chat/completions``.
        model: as the endpoint calls it.
        key: sent as a bearer token; None for servers that want none.
        body: further fields of a request, beside model and messages.
        timeout: seconds until a try counts as failed.
        tries: of one question. Between them it waits 1, 2, 4 ... seconds, or as long as the server's Retry-After
            says, at most 60.
        wait: how it waits.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    body: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0})
    timeout: float = 120.0
    tries: int = 8
    wait: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise OsumError(self.url, "not an http(s) URL", "give one such as http://localhost:8000/v1")

    def ask(self, prompt: str) -> str:
        """The model's reply to one message of a user; ``""`` where it says nothing.

        Raises:
            Refused: this question is not answered (status 400, 413, 422).
            OsumError: no question is (another 4xx), or none of the tries went well (429, 5xx, no connection, no
                reply in time, a reply that is not in the API's form).
        """
        content = {**self.body, "model": self.model, "messages": [{"role": "user", "content": prompt}]}
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self._address(), json.dumps(content).encode(), headers)
        for n in range(self.tries):
            asked_for = None  # how long the server wants us to wait
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    return _reply(answer.read())
            except urllib.error.HTTPError as e:
                trouble = f"status {e.code}: {_message(e)}"
                if e.code in _REFUSED:
                    raise Refused(trouble) from None
                if e.code not in _BUSY and e.code < 500:
                    mend = "check --judge, --judge_model and the key"
                    raise OsumError(self.url, trouble, mend) from None
                asked_for = e.headers.get("Retry-After")
            except (OSError, HTTPException) as e:  # refused, reset, too slow, cut short
                trouble = f"{getattr(e, 'reason', e) or type(e).__name__}"
            except ValueError:
                trouble = "a reply that is not in the form of the chat completions API"
            if n + 1 < self.tries:
                self.wait(min(_LONGEST_WAIT, _seconds(asked_for) or 2.0**n))
        mend = "see that it is there and run the command again"
        raise OsumError(self.url, f"{trouble} ({self.tries} tries)", mend)

    def _address(self) -> str:
        path = "/chat/completions"
        parts = urllib.parse.urlsplit(self.url)
        base = parts.path.rstrip("/")
        return parts._replace(path=base if base.endswith(path) else base + path).geturl()


def _reply(body: bytes) -> str:
    """Raises ValueError where the body is not in the API's form."""
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise ValueError from None
    if not isinstance(content, str | None):
        raise ValueError
    return (content or "").encode("utf-8", "replace").decode()  # JSON can write half a character


def _message(error: urllib.error.HTTPError) -> str:
    """What the server says in its error, in one line of at most 200 characters."""
    try:
        text = error.read().decode("utf-8", "replace")
    except (OSError, HTTPException):
        text = ""
    with contextlib.suppress(ValueError, KeyError, TypeError):  # else it is not JSON, or another's
        text = json.loads(text)["error"]["message"]
    return " ".join(str(text).split())[:200] or error.reason


def _seconds(retry_after: str | None) -> float | None:
    """Of a Retry-After header; None where it is absent or a date."""
    try:
        return max(0.0, float(retry_after or ""))
    except ValueError:
        return None
