"""Requests that are wrong in many ways, as the bytes that go over the wire."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import struct
import zipfile
from dataclasses import dataclass

import numpy as np
import soundfile
from corrupt import corrupt_files, encoded, sound
from helpers import RATE
from hypothesis import strategies as st

FORMS = ("/v1/audio/transcriptions", "/v1/understand")
CHAT = "/v1/chat/completions"
BOUNDARY = b"x"


def broken_audio() -> dict[str, bytes]:
    """Recordings that are none, or no usual ones."""
    wave = sound(0.3, 1)
    wav = encoded(wave)
    nan = wave.copy()
    nan[100:] = np.nan
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.wav", bytes(1 << 20))
    declared = bytearray(wav)
    struct.pack_into("<I", declared, 4, 0xFFFFFFFF)
    struct.pack_into("<I", declared, 40, 0xFFFFFFFF)
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(600 * RATE, np.float32), RATE, format="FLAC")
    fast = io.BytesIO()
    soundfile.write(fast, np.tile(wave, 24), 384_000, format="WAV")
    return {
        "truncated": wav[: len(wav) // 2],
        "empty": b"",
        "text": "这不是录音。".encode() * 100,
        "nan": encoded(nan, subtype="FLOAT"),
        "zip": zipped.getvalue(),
        "declared": bytes(declared),
        "one_sample": encoded(wave[:1]),
        "8_bit": encoded(wave, subtype="PCM_U8"),
        "64_channels": encoded(np.repeat(wave[:800, None], 64, 1)),
        "silence": silence.getvalue(),
        "384_khz": fast.getvalue(),
        **{name: data for name, (data, _) in corrupt_files().items()},
    }


def head(method: str, path: str, headers: list[tuple[bytes, bytes]]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost", b"Connection: close"]
    return b"\r\n".join([*lines, *(name + b": " + value for name, value in headers), b"", b""])


def form(path: str, body: bytes, kind: bytes = b"multipart/form-data; boundary=x") -> bytes:
    length = str(len(body)).encode()
    return head("POST", path, [(b"Content-Type", kind), (b"Content-Length", length)]) + body


def parts(data: bytes, fields: dict[str, bytes], name: bytes = b"a.wav") -> bytes:
    said = [b'name="%s"\r\n\r\n%s' % (key.encode(), value) for key, value in fields.items()]
    said.append(b'name="file"; filename="%s"\r\n\r\n%s' % (name, data))
    return b"".join(b"--x\r\nContent-Disposition: form-data; %s\r\n" % part for part in said) + b"--x--\r\n"


def chat(data: bytes) -> bytes:
    audio = {"type": "input_audio", "input_audio": {"format": "wav", "data": base64.b64encode(data).decode()}}
    return json.dumps({"model": "osum_model", "messages": [{"role": "user", "content": [audio]}]}).encode()


def audio_request(path: str, data: bytes, name: bytes = b"a.wav") -> bytes:
    if path == CHAT:
        return form(path, chat(data), b"application/json")
    return form(path, parts(data, {"model": b"osum_model"}, name))


@st.composite
def mutated(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes with a few of them cut out, doubled, exchanged or put in."""
    for _ in range(draw(st.integers(1, 3))):
        at, end = sorted((draw(st.integers(0, len(whole))), draw(st.integers(0, len(whole)))))
        match draw(st.sampled_from(["cut", "drop", "double", "replace", "insert"])):
            case "cut":
                whole = whole[:at]
            case "drop":
                whole = whole[:at] + whole[end:]
            case "double":
                whole = whole[:end] + whole[at:]
            case "replace":
                more = draw(st.binary(max_size=20))
                whole = whole[:at] + more + whole[at + len(more) :]
            case _:
                whole = whole[:at] + draw(st.binary(max_size=20)) + whole[at:]
    return whole


_NAMES = (
    "model language prompt keywords[] response_format temperature timestamp_granularities[] stream include[] "
    "chunking_strategy tasks tasks[] hotwords lang seed file file[] __class__ x"
)
_VALUES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"nan",
            b"1e999",
            b"-1",
            b"true",
            b"\xff\xfe",
            b"\x00",
            b"all",
            b"word",
            b"osum_model",
            b"x" * 70_000,
        ]
    ),
)
_ODD = st.sampled_from(
    [
        (b"Content-Type", b"multipart/form-data"),
        (b"Content-Type", b'multipart/form-data; boundary=""'),
        (b"Content-Type", b"multipart/form-data; boundary=" + b"y" * 5000),
        (b"Content-Type", b"multipart/form-data; boundary=x; charset=utf-7"),
        (b"Content-Type", b"multipart/mixed; boundary=x"),
        (b"Content-Type", b"application/json"),
        (b"Content-Type", b"\xff\xfe; charset=\x80"),
        (b"Content-Length", b"-1"),
        (b"Content-Length", b"1e3"),
        (b"Content-Length", b"9" * 30),
        (b"Content-Length", b"0"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Transfer-Encoding", b"gzip"),
        (b"Content-Encoding", b"gzip"),
        (b"Expect", b"100-continue"),
        (b"Upgrade", b"websocket"),
        (b"Authorization", b"Bearer \xff"),
        (b"Origin", b"http://["),
        (b"Origin", b"null"),
        (b"Range", b"bytes=0-1,5-"),
        (b"X", b"y" * 20_000),
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that is wrong somewhere; now and then it is not, after all."""
    files = _FILES
    path = draw(st.sampled_from([*FORMS, CHAT]))
    data = files[draw(st.sampled_from(sorted(files)))] if draw(st.booleans()) else files["text"]
    match draw(st.sampled_from(["audio", "audio", "form", "fields", "headers", "json", "base64", "path"])):
        case "audio":
            return audio_request(path, data)
        case "form":
            name = draw(st.sampled_from([b"a.wav", b"../../etc/passwd", b'"', b"\xff\x00", b"a|", b""]))
            body = parts(data[:2000], {"model": b"osum_model"}, name)
            return form(draw(st.sampled_from(FORMS)), draw(mutated(body)))
        case "fields":
            fields = draw(st.dictionaries(st.sampled_from(_NAMES.split()), _VALUES, max_size=5))
            return form(draw(st.sampled_from(FORMS)), parts(data, {"model": b"osum_model", **fields}))
        case "headers":
            body = parts(files["text"], {"model": b"osum_model"})
            odd = draw(st.lists(_ODD, min_size=1, max_size=3))
            known = {name for name, _ in odd}
            usual = [(b"Content-Type", b"multipart/form-data; boundary=x")]
            usual += (
                [(b"Content-Length", str(len(body)).encode())] if b"Transfer-Encoding" not in known else []
            )
            kept = [pair for pair in usual if pair[0] not in known]
            return (
                head(draw(st.sampled_from(["POST", "PUT", "GET", "\x00", "HEAD"])), path, kept + odd) + body
            )
        case "json":
            whole = chat(files["text"][:60])
            depth = b"[" * draw(st.sampled_from([10, 1000, 100_000]))
            odd = [depth, b'{"model": ' + depth, b"\xef\xbb\xbf{}", b"null", b'"\\ud800"', b"1" * 6000]
            body = draw(st.one_of(mutated(whole), st.sampled_from(odd), st.binary(max_size=50)))
            where = draw(st.sampled_from([CHAT, "/page/feedback"]))
            return form(where, body, b"application/json")
        case "base64":
            message = json.loads(chat(b"x"))
            given = draw(
                st.one_of(st.text(max_size=30), st.sampled_from(["=", "A", "AA==\n", "data:,", "é"]))
            )
            message["messages"][0]["content"][0]["input_audio"]["data"] = given
            body = json.dumps(message).encode(errors="surrogatepass")
            return form(CHAT, body, b"application/json")
        case _:
            odd = draw(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
            below = draw(st.sampled_from(["/", "/page/static/", "/page/examples/", "/v1/models/", "/v1/"]))
            return head(draw(st.sampled_from(["GET", "POST", "HEAD", "OPTIONS"])), below + odd, [])


_FILES = broken_audio()


@dataclass
class Said:
    """An answer. ``status`` 0: the connection ended without one."""

    status: int
    headers: dict[str, str]
    body: bytes


def say(port: int, raw: bytes, seconds: float = 30) -> Said:
    """What the server says to it, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), seconds) as to:
        with contextlib.suppress(OSError):  # it may have answered already
            to.sendall(raw)
        found = bytearray()
        with contextlib.suppress(ConnectionError):
            while more := to.recv(1 << 16):
                found += more
    top, _, body = bytes(found).partition(b"\r\n\r\n")
    while top.startswith(b"HTTP/1.1 100"):
        top, _, body = body.partition(b"\r\n\r\n")
    if not top:
        return Said(0, {}, b"")
    first, *lines = top.decode("latin-1").split("\r\n")
    return Said(int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body)
