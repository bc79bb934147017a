"""A server's life in this process, with a service without a model: signals, slow clients, what is no HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import command, one_error_line
from serve_stand_in import FakeService, app_of

from wenet_osum.bin import serve as program
from wenet_osum.errors import OsumError
from wenet_osum.serve import protocol
from wenet_osum.serve.server import TWICE, listen, serve
from wenet_osum.serve.settings import Limits


def request(**fields: str) -> bytes:
    """A transcription's request, whole."""
    parts = [f'name="{name}"\r\n\r\n{value}' for name, value in {"model": "tiny", **fields}.items()]
    parts.append('name="file"; filename="a.wav"\r\n\r\nRIFF')
    form = "".join(f"--x\r\nContent-Disposition: form-data; {part}\r\n" for part in parts) + "--x--\r\n"
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x"
    )
    return f"{head}\r\nContent-Length: {len(form)}\r\n\r\n{form}".encode()


ASK = request()
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def life(
    service: FakeService, scene: Callable[[int, Any], Awaitable[None]], grace: float = 5, **settings: Any
) -> int:
    """A server's exit status; ``scene`` gets its port and its app, and sends the signal that ends it."""

    async def run() -> int:
        stand_in: Any = service
        app = app_of(service, **settings)
        with listen("127.0.0.1", 0) as sock:
            running = asyncio.ensure_future(serve(app, stand_in, sock, grace, False))
            await asyncio.wait_for(scene(sock.getsockname()[1], app), 20)
            return await asyncio.wait_for(running, 20)

    status = asyncio.run(run())
    assert service.stopped
    return status


async def until(what: Callable[[], object]) -> None:
    while not what():
        await asyncio.sleep(0.005)


class Client:
    """A connection; it is open for as long as this is there."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer

    async def answer(self) -> tuple[int, dict[bytes, bytes], Any]:
        """Status, headers and JSON of the next answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.strip().split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers[b"content-length"]))
        return int(first.split()[1]), headers, json.loads(body)

    async def slowly(self, said: bytes) -> bytes:
        """What comes, till the server ends it, while bytes drip out."""

        async def drip() -> None:
            for byte in said:
                self.writer.write(bytes([byte]))
                await asyncio.sleep(0.05)

        dripping = asyncio.ensure_future(drip())
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""
        finally:
            dripping.cancel()


async def talk(port: int, *said: bytes) -> Client:
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    client.writer.write(b"".join(said))
    await client.writer.drain()
    return client


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_drains_and_ends_well():
    service = FakeService(wait=asyncio.Event())

    async def scene(port: int, app: Any) -> None:
        client = await talk(port, ASK)
        await until(lambda: service.asked)
        terminate()
        await until(lambda: app.state.gate.shut)
        status, headers, body = await (await talk(port, ASK)).answer()
        assert (status, body["error"]["code"]) == (503, "closing") and b"retry-after" in headers
        status, _, body = await (await talk(port, HEALTH)).answer()
        assert (status, body) == (200, {"status": "ok"})
        status, _, body = await (await talk(port, HEALTH.replace(b"health", b"ready"))).answer()
        assert (status, body) == (503, {"status": "closing"})
        assert service.wait is not None
        service.wait.set()
        status, _, body = await client.answer()
        assert status == 200 and body["text"]

    assert life(service, scene) == 0 and not service.cancelled


def test_who_is_inside_too_long_is_told():
    service = FakeService(wait=asyncio.Event())

    async def stop(grace: float = 30) -> None:
        service.stopped += 1
        if service.wait is not None and not service.wait.is_set():
            from wenet_osum.serve.errors import Closing

            service.error = Closing()
            service.wait.set()

    service.stop = stop  # type: ignore[method-assign]

    async def scene(port: int, app: Any) -> None:
        client = await talk(port, ASK)
        await until(lambda: service.asked)
        terminate()
        status, _, body = await client.answer()
        assert (status, body["error"]["code"]) == (503, "closing")

    assert life(service, scene, grace=0.1) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(second: signal.Signals):
    service = FakeService(wait=asyncio.Event())

    async def scene(port: int, app: Any) -> None:
        client = await talk(port, ASK)
        await until(lambda: service.asked)
        terminate()
        await until(lambda: app.state.gate.shut)
        os.kill(os.getpid(), second)  # the first one's echo, as ``timeout`` sends it to the group
        await asyncio.sleep(TWICE)
        assert service.cancelled == 0
        os.kill(os.getpid(), second)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.answer()

    assert life(service, scene, grace=3600) == 128 + second
    assert service.cancelled == 1


def test_a_model_that_cannot_be_loaded_ends_the_server():
    service = FakeService(ready=False)

    async def start() -> None:
        raise OsumError("osum_model", "is no model", "give one")

    service.start = start  # type: ignore[method-assign]

    async def scene(port: int, app: Any) -> None:
        pass

    with pytest.raises(OsumError, match="is no model"):
        life(service, scene)


def test_slow_and_silent_clients_are_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)

    async def scene(port: int, app: Any) -> None:
        assert await (await talk(port)).reader.read() == b""
        assert await (await talk(port)).slowly(HEALTH) == b""
        # Behind an answer too, and where the rest of a body never comes.
        client = await talk(port, HEALTH)
        assert (await client.answer())[0] == 200
        assert await client.slowly(HEALTH) == b""
        client = await talk(port, ASK.replace(b"/v1/audio/transcriptions", b"/nothing")[:-20])
        assert (await client.answer())[0] == 404
        assert await client.slowly(b"x" * 10) == b""
        # A body that drips.
        status, headers, body = await (await talk(port, ASK[:-60])).answer()
        assert (status, body["error"]["code"], headers[b"connection"]) == (408, "timeout", b"close")
        # All the while others are answered.
        client = await talk(port, ASK, HEALTH)
        assert (await client.answer())[0] == 200 and (await client.answer())[0] == 200
        terminate()

    assert life(FakeService(), scene, body_seconds=0.3) == 0


def test_a_client_that_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "STUCK_SECONDS", 0.3)
    made = protocol.Protocol.connection_made

    def small(self: protocol.Protocol, transport: Any) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        transport.set_write_buffer_limits(high=4096)
        made(self, transport)

    monkeypatch.setattr(protocol.Protocol, "connection_made", small)
    service = FakeService(pieces=["word " * 1000] * 50)

    async def scene(port: int, app: Any) -> None:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        _, writer = await asyncio.open_connection(sock=client, limit=1024)
        writer.write(request(stream="true"))
        await until(lambda: service.asked)
        await until(lambda: not app.state.gate.inside)
        terminate()

    assert life(service, scene) == 0


def test_what_is_no_http_is_told_so():
    async def scene(port: int, app: Any) -> None:
        for said in (
            b"hello\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01" * 20,
        ):
            status, _, body = await (await talk(port, said, b"\r\n\r\n")).answer()
            assert (status, body["error"]["code"]) == (400, "invalid_http")
        status, _, body = await (await talk(port, b"GET /" + b"x" * 70_000)).answer()
        assert status == 400
        terminate()

    assert life(FakeService(), scene) == 0


def test_a_body_that_breaks_leaves_no_traceback(caplog: pytest.LogCaptureFixture):
    head = b"Host: x\r\nContent-Type: multipart/form-data; boundary=x\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n"

    async def scene(port: int, app: Any) -> None:
        for line in (b"POST /v1/audio/transcriptions", b"POST /nothing", b"HEAD /"):
            client = await talk(port, line + b" HTTP/1.1\r\n" + head)
            assert (await client.reader.read()).startswith(b"HTTP/1.1 400 ")
        terminate()

    assert life(FakeService(), scene) == 0
    assert not [record for record in caplog.records if record.exc_info]


def test_a_port_that_is_taken_and_a_host_that_is_none(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    with listen("127.0.0.1", 0) as sock:
        taken = sock.getsockname()[1]
        for host, port in (("127.0.0.1", taken), ("127.0.0.1", 70_000), ("no.such.host.invalid", 0)):
            assert command(program.main, tmp_path, "--host", host, "--port", port) == 1
            assert one_error_line(capsys.readouterr().err).startswith(f"error: --host {host} --port {port}")


@pytest.mark.parametrize("given", [["--api_key", ""], ["--api_key", " key"], ["--api_keys", ""], []])
def test_keys_of_an_unset_variable_keep_nobody_out(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    if not given:
        monkeypatch.setenv("OSUM_API_KEYS", "")
    assert command(program.main, tmp_path, *given) == 1
    assert one_error_line(capsys.readouterr().err).startswith("error: --api_key")


def test_loopback():
    assert all(map(program.is_loopback, ("127.0.0.1", "::1", "localhost", "127.0.0.9")))
    assert not any(map(program.is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org")))


def test_flags(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OSUM_API_KEYS", "keys.txt")
    args = program.get_args(
        ["osum_model", "--max_upload", "2", "--max_audio_seconds", "60", "--max_seconds", "3"]
    )
    assert args.api_keys == "keys.txt" and args.host == "127.0.0.1"
    limits = program.limits_of(args)
    assert (limits.max_bytes, limits.max_seconds, limits.piece_seconds) == (2 << 20, 60, 3)
    usual = program.limits_of(program.get_args(["osum_model"]))
    assert usual == Limits()  # the flags' defaults are the engine's
    for bad in (
        ["--port", "x"],
        ["--grace", "-1"],
        ["--grace", "nan"],
        ["--max_seconds", "0"],
        ["--cors", "https://x.example/"],
        [],
    ):
        with pytest.raises(SystemExit):
            program.get_args([*bad, *(["osum_model"] if bad else [])])


def test_who_asks_before_he_sends_is_told():
    async def scene(port: int, app: Any) -> None:
        head = (
            ASK.partition(b"Content-Length")[0] + b"Content-Length: 9000000\r\nExpect: 100-continue\r\n\r\n"
        )
        client = await talk(port, head)
        status, headers, body = await client.answer()
        # Its body will not come, so nothing else can come on this connection.
        assert (status, body["error"]["code"], headers[b"connection"]) == (413, "too_large", b"close")
        terminate()

    assert life(FakeService(), scene) == 0


def test_behind_a_body_of_two_lengths_nothing_is_answered():
    """A proxy that goes by the other length takes what is hidden in the body for another client's request."""

    async def scene(port: int, app: Any) -> None:
        head = b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        client = await talk(port, head, b"0\r\n\r\n", HEALTH)
        status, headers, _ = await client.answer()
        assert (status, headers[b"connection"]) == (405, b"close")
        assert await client.reader.read() == b""
        terminate()

    assert life(FakeService(), scene) == 0
