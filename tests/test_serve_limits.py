"""What ``osum serve`` bounds over HTTP: sizes, times and numbers; and who goes away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from serve_stand_in import FakeService, app_of
from test_serve_http import URL, client, error_of, post

from wenet_osum.serve.settings import Limits


def test_bodies_are_bounded_in_size():
    to = client(FakeService(limits=Limits(max_bytes=30_000)))  # and a MiB for what is around it
    large = b"x" * 1_200_000
    got = to.post(URL, data={"model": "tiny"}, files={"file": ("a.wav", large)})
    assert error_of(got, 413)["code"] == "too_large"

    def chunks():
        yield b"--x\r\n"
        for _ in range(120):
            yield large[:10_000]

    kind = {"content-type": "multipart/form-data; boundary=x"}
    error_of(to.post(URL, content=chunks(), headers=kind), 413)  # of no declared length
    full = client(FakeService(limits=Limits(max_bytes=1 << 20)), held_bytes=1000)
    got = full.post(URL, data={"model": "tiny"}, files={"file": ("a.wav", b"x" * 2000)})
    assert error_of(got, 429)["code"] == "rate_limit_exceeded" and "retry-after" in got.headers
    assert post(full).status_code == 200  # what was held is let go


def scope_of(path: str, headers: dict[str, str] | None = None, method: str = "POST") -> dict[str, Any]:
    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": pairs,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


FORM = (
    b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n--x\r\n'
    b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--x\r\n'
    b'Content-Disposition: form-data; name="stream"\r\n\r\nSTREAM\r\n--x--\r\n'
)
FORM_HEADERS = {"content-type": "multipart/form-data; boundary=x"}


def test_a_body_that_does_not_come_is_not_waited_for():
    sent: list[Any] = []

    async def receive() -> Any:
        if not sent and receive.__dict__.setdefault("first", True):
            receive.__dict__["first"] = False
            return {"type": "http.request", "body": FORM[:40], "more_body": True}
        await asyncio.sleep(3600)

    async def send(message: Any) -> None:
        sent.append(message)

    app = app_of(FakeService(), body_seconds=0.05)
    asyncio.run(app(scope_of(URL, FORM_HEADERS), receive, send))
    assert sent[0]["status"] == 408 and (b"connection", b"close") in sent[0]["headers"]
    assert app.state.gate.inside == 0


@pytest.mark.parametrize("stream", ["false", "true"])
@pytest.mark.parametrize("wait", [True, False])
def test_who_goes_away_frees_his_place(stream: str, wait: bool):
    """Before the first piece; and, of a stream, behind it."""
    if not wait and stream == "false":
        return

    async def scene() -> FakeService:
        service = FakeService(wait=asyncio.Event() if wait else None, pieces=["a day"] * 1000)
        app, sent, gone = app_of(service), [], asyncio.Event()
        parts = [
            {"type": "http.request", "body": FORM.replace(b"STREAM", stream.encode()), "more_body": False}
        ]

        async def receive() -> Any:
            if parts:
                return parts.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) > 3:
                gone.set()
            await asyncio.sleep(0)

        running = asyncio.ensure_future(app(scope_of(URL, FORM_HEADERS), receive, send))
        while not service.asked:
            await asyncio.sleep(0.001)
        if wait:
            gone.set()
        await asyncio.wait_for(running, 5)
        assert not wait or not sent
        assert app.state.gate.inside == 0
        return service

    service = asyncio.run(scene())
    assert service.cancelled == 1


def test_no_more_requests_at_a_time_than_may_be():
    async def scene() -> list[int]:
        service = FakeService(wait=asyncio.Event())
        app, found = app_of(service, max_requests=2), []

        async def ask() -> None:
            parts = [{"type": "http.request", "body": FORM.replace(b"STREAM", b"0"), "more_body": False}]

            async def receive() -> Any:
                return parts.pop() if parts else await asyncio.sleep(3600)

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    found.append(message["status"])

            await app(scope_of(URL, FORM_HEADERS), receive, send)

        asking = [asyncio.ensure_future(ask()) for _ in range(3)]
        while not found:
            await asyncio.sleep(0.001)
        assert service.wait is not None and found == [429]
        assert not await app.state.gate.drain(0.01)  # two are inside
        await ask()
        service.wait.set()
        assert await app.state.gate.drain(5)
        await asyncio.gather(*asking)
        return found

    assert asyncio.run(scene()) == [429, 503, 200, 200]


def test_what_all_hold_together_is_bounded():
    """Three bodies of 400 bytes where 1,000 may be held: the third is turned away, and let in when one is gone."""

    async def scene() -> list[int]:
        service = FakeService(wait=asyncio.Event())
        app, found = app_of(service, held_bytes=1000), []
        form = FORM.replace(b"RIFF", b"R" * (400 - len(FORM) + 4)).replace(b"STREAM", b"0")

        async def ask() -> None:
            parts = [form[:200], form[200:]]

            async def receive() -> Any:
                if parts:
                    return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
                await asyncio.sleep(3600)

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    found.append(message["status"])

            await app(scope_of(URL, FORM_HEADERS), receive, send)

        asking = [asyncio.ensure_future(ask()) for _ in range(2)]
        while len(service.asked) < 2:
            await asyncio.sleep(0.001)
        await ask()
        assert service.wait is not None and found == [429]
        service.wait.set()
        await asyncio.gather(*asking)
        await ask()
        return found

    assert asyncio.run(scene()) == [429, 200, 200, 200]
