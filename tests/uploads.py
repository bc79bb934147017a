"""What strangers upload to a server, and what becomes of it."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import soundfile
from corrupt import corrupt_files

from wenet_osum.serve.errors import BadAudio, ServeError, TooLarge

RATE = 16000


def talk(seconds: float, seed: int) -> np.ndarray:
    """Bursts with pauses between them."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    return np.where(t % 1 < 0.7, 0.3 * np.sin((200 + 60 * seed) * 2 * np.pi * t), 0) + 0.003 * rng.normal(
        size=len(t)
    )


def encoded(wave: np.ndarray, form: str = "WAV", subtype: str | None = None, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=form, subtype=subtype)
    return file.getvalue()


SHORT = encoded(talk(0.8, 1))


def flac(samples: int) -> bytes:
    """A second of flac that says it has ``samples``; 0: it does not say."""
    data = bytearray(encoded(talk(1, 1), "FLAC"))
    data[21:26] = ((data[21] & 0xF0) << 32 | samples).to_bytes(5, "big")
    return bytes(data)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.wav", SHORT)
    return file.getvalue()


def wave_of(rate: int, channels: int) -> bytes:
    data = bytearray(encoded(talk(1, 1)))
    struct.pack_into("<HIIH", data, 22, channels, rate, rate * 2 * channels % 2**32, 2 * channels)
    return bytes(data)


def uploads() -> dict[str, tuple[bytes, type[ServeError], str]]:
    hundred = encoded(np.zeros(100 * 3600 * 10), "FLAC", rate=10)
    quiet = encoded(np.zeros(120 * 8000), "FLAC", rate=8000)
    untold = bytearray(quiet)
    untold[21:26] = bytes([untold[21] & 0xF0, 0, 0, 0, 0])
    webm = b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webm" + bytes(
        5000
    )
    found: dict[str, tuple[bytes, type[ServeError], str]] = {
        "hundred hours": (hundred, TooLarge, "longer than 100 s"),
        "hundred hours of ogg": (
            encoded(np.zeros(120 * 8000), "OGG", rate=8000),
            TooLarge,
            "longer than 100 s",
        ),
        "says hundred hours": (flac(100 * 3600 * RATE), TooLarge, "longer than 100 s"),
        "does not say": (bytes(untold), TooLarge, "longer than 100 s"),
        "many bytes": (bytes(25 * 2**20 + 1), TooLarge, "25.0 MiB, at most 25"),
        "odd rate": (wave_of(999_999_937, 1), BadAudio, "of memory to decode"),
        "webm": (webm, BadAudio, "not a known audio format"),
        "zip": (zipped(), BadAudio, "not a known audio format"),
        "one sample": (encoded(np.zeros(1)), BadAudio, "too short"),
        "a name": (b"/etc/passwd", BadAudio, "not a known audio format"),
        "a command": (b"touch /tmp/osum-was-here |", BadAudio, "not a known audio format"),
    }
    for name, (data, cause) in corrupt_files().items():
        found[name] = (data, BadAudio, cause.replace("_", " "))
    return found
