"""Clients that are slow, silent or gone, many at a time, at a real ``osum serve``: others are answered meanwhile, and
every place is free again."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serve_fuzz import broken_audio, form, parts, say
from served import Server, served

pytestmark = [pytest.mark.slow, pytest.mark.integration]
MANY = 60


@pytest.fixture(scope="module")
def server(here: Path) -> Iterator[Server]:
    with served(here, "--body_seconds", "2") as server:
        yield server
        assert "Traceback" not in "".join(server.log)


def opened(server: Server, said: bytes) -> socket.socket:
    to = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 60)
    to.sendall(said)
    return to


def numbers(server: Server) -> dict[str, float]:
    text = httpx.get(server.url + "/metrics", timeout=60).text
    return {name: float(value) for name, value in re.findall(r"^(osum_\S+) ([\d.e+]+)$", text, re.M)}


def free(server: Server) -> dict[str, float]:
    """The server's numbers once nobody is inside, but who asks for them."""
    for _ in range(300):
        found = numbers(server)
        names = ("osum_open_requests", "osum_queue_pieces", "osum_in_hand_pieces")
        if found["osum_http_requests_in_flight"] == 1 and not any(found[name] for name in names):
            return found
        time.sleep(0.1)
    raise AssertionError(found)


def is_answered(server: Server) -> None:
    fields = {"model": b"osum_model"}
    request = form("/v1/audio/transcriptions", parts(broken_audio()["8_bit"], fields))
    assert say(int(server.url.rpartition(":")[2]), request).status == 200


def ended(connections: list[socket.socket], seconds: float) -> list[bytes]:
    """What each was told at last; the server ends all of them within ``seconds``."""
    until, told = time.monotonic() + seconds, []
    for to in connections:
        to.settimeout(max(0.1, until - time.monotonic()))
        try:
            told.append(to.recv(1 << 16))
        except ConnectionError:
            told.append(b"")
        to.close()
    return told


def test_slow_headers_and_slow_bodies(server: Server, here: Path):
    whole = form("/v1/understand", parts((here / "talk.flac").read_bytes(), {}))
    heads = [opened(server, b"POST /v1/understand HTTP/1.1\r\nHost: localhost\r\nX: ") for _ in range(MANY)]
    bodies = [opened(server, whole[:5000]) for _ in range(MANY)]
    is_answered(server)
    for n in range(4):  # a few bytes now and then do not help them
        time.sleep(0.5)
        for to in heads:
            to.sendall(b"x")
        for to in bodies[: MANY // 2]:
            with contextlib.suppress(OSError):  # told already
                to.sendall(whole[5000 + n : 5001 + n])
    assert all(b" 408 " in told for told in ended(bodies, 20))
    is_answered(server)
    assert set(ended(heads, 20)) == {b""}
    free(server)


def test_who_leaves_while_sending_waiting_or_reading(server: Server, here: Path):
    before = numbers(server).get('osum_requests_total{outcome="cancelled"}', 0)
    talk = (here / "talk.flac").read_bytes()
    whole = form("/v1/understand", parts(talk, {}))
    stream = form("/v1/audio/transcriptions", parts(talk, {"model": b"osum_model", "stream": b"true"}))
    sending = [opened(server, whole[:100_000]) for _ in range(MANY)]
    waiting = [opened(server, whole) for _ in range(MANY // 4)]
    reading = [opened(server, stream) for _ in range(4)]
    reading[0].recv(100)  # one has its first piece
    for to in sending + waiting + reading:
        to.close()
    is_answered(server)
    after = free(server)
    # Some were gone before all of their upload was read, and the stream's may have been at its end.
    assert after['osum_requests_total{outcome="cancelled"}'] > before
    assert after["osum_decoder_losses_total"] <= MANY  # a decoder whose upload nobody wants is ended
    assert after["osum_worker_restarts_total"] == 0


def test_who_never_reads(server: Server):
    """Answers that fit the buffers are written off; the connection is ended when it idles."""
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    silent = []
    for _ in range(MANY):
        to = socket.socket()
        to.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        to.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        to.sendall(request * 100)  # some MB of answers
        silent.append(to)
    is_answered(server)
    begun = time.monotonic()
    while numbers(server)["osum_http_requests_in_flight"] > 1:
        assert time.monotonic() < begun + 60
        time.sleep(0.5)
    free(server)
    for to in silent:
        to.close()
