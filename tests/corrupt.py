"""A corpus of wave files, flac, ogg, pipes, segments of a long recording and shards, some of it corrupt in many ways."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from helpers import EMOTIONS, RATE, TEXTS, write_list


class Corpus(NamedTuple):
    """Lists by data type (``raw``, ``shard``); of each the good keys, and the bad ones with their causes."""

    lists: dict[str, Path]
    good: dict[str, list[str]]
    bad: dict[str, dict[str, str]]


def sound(seconds: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    return 0.05 * rng.standard_normal(len(t)) + 0.3 * np.sin(2 * np.pi * (200 + 7 * (seed % 90)) * t)


def encoded(wave: np.ndarray, form: str = "WAV", subtype: str | None = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format=form, subtype=subtype)
    return file.getvalue()


def corrupt_files() -> dict[str, tuple[bytes, str]]:
    """Name -> content that cannot be used, and the cause it is set aside by."""
    wave = sound(0.8, 5)
    wav = encoded(wave)
    flac, ogg = encoded(sound(3, 6), "FLAC", None), encoded(sound(3, 7), "OGG", "VORBIS")
    spoilt = wave.copy()
    spoilt[4000:4010] = np.nan
    longer = bytearray(wav)
    struct.pack_into("<I", longer, 40, len(wav) + 20_000)  # of the data chunk
    mute = bytearray(wav)
    struct.pack_into("<H", mute, 22, 0)  # channels
    hole = bytearray(flac)
    hole[len(flac) // 2 : len(flac) // 2 + 9000] = bytes(9000)
    return {
        "zero_bytes": (b"", "empty"),
        "cut_wav": (wav[:-9000], "truncated"),
        "cut_header": (wav[:30], "unreadable"),
        "cut_flac": (flac[: len(flac) * 2 // 3], "truncated"),
        "cut_ogg": (ogg[: len(ogg) * 2 // 3], "truncated"),
        "hole_in_flac": (bytes(hole), "truncated"),
        "header_says_more": (bytes(longer), "truncated"),
        "no_channel": (bytes(mute), "unreadable"),
        "text": (b"<html>404 not found</html>" * 40, "unreadable"),
        "noise": (np.random.default_rng(0).bytes(20_000), "unreadable"),
        "not_a_number": (encoded(spoilt, subtype="FLOAT"), "nan"),
        "loud": (encoded(wave * 20_000, subtype="FLOAT"), "too_loud"),  # 16-bit numbers kept as floats
    }


def labels(i: int) -> dict[str, Any]:
    return {"txt": TEXTS[i % len(TEXTS)], "emotion": EMOTIONS[i % 3], "duration": 0.8}


def write_raw(folder: Path, count: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """``count`` good samples of every kind, and the corrupt ones."""
    long = folder / "recording.wav"
    long.write_bytes(encoded(sound(30, 1)))
    good: list[dict[str, Any]] = []
    for i in range(count):
        sample: dict[str, Any] = {"key": f"g{i:04}", **labels(i)}
        if i % 4 == 0:
            start = round(0.3 * (i % 90), 2)
            sample.update(wav=str(long), start=start, end=round(start + 0.6, 2))
        else:
            form, suffix = {1: ("FLAC", "flac"), 2: ("OGG", "ogg")}.get(i % 16, ("WAV", "wav"))
            path = folder / f"g{i:04}.{suffix}"
            path.write_bytes(
                encoded(sound(0.5 + 0.03 * (i % 11), i), form, "PCM_16" if form == "WAV" else None)
            )
            sample["wav"] = f"cat '{path}' |" if i % 32 == 3 else str(path)
        good.append(sample)
    causes = {}
    bad: list[dict[str, Any]] = []

    def add(name: str, cause: str, wav: str, **span: float) -> None:
        causes[name] = cause
        bad.append({"key": name, "wav": wav, **labels(len(bad)), **span})

    for name, (content, cause) in corrupt_files().items():
        (folder / f"{name}.wav").write_bytes(content)
        add(name, cause, str(folder / f"{name}.wav"))
    add("missing", "missing", str(folder / "no/such.wav"))
    add("folder", "unreadable", str(folder))
    add("behind_the_end", "segment_out_of_range", str(long), start=40, end=41)
    add("failing_pipe", "pipe_failed", "echo no such host >&2; exit 7 |")
    add("silent_pipe", "pipe_failed", "true |")
    add("pipe_of_text", "unreadable", "echo hello |")
    every = max(1, len(good) // len(bad))
    for i, sample in enumerate(bad):
        good.insert(i * (every + 1), sample)
    return good, causes


def write_tars(folder: Path, count: int, per_shard: int = 50) -> tuple[list[Path], list[str], dict[str, str]]:
    """Shards of ``count`` good utterances and the corrupt files: the tars, the good keys, the bad ones' causes."""
    entries = [(f"s{i:04}", encoded(sound(0.5 + 0.03 * (i % 11), i))) for i in range(count)]
    corrupt = corrupt_files()
    every = max(1, count // len(corrupt))
    for i, (name, (content, _)) in enumerate(corrupt.items()):
        entries.insert(i * (every + 1), (f"tar_{name}", content))
    tars = []
    for first in range(0, len(entries), per_shard):
        tars.append(folder / f"shard_{first:05}.tar")
        with tarfile.open(tars[-1], "w") as tar:
            for i, (key, wav) in enumerate(entries[first : first + per_shard]):
                about = {**labels(i), "txt": TEXTS[i % len(TEXTS)]}
                members = {"wav": wav, "txt": about.pop("txt").encode(), "json": json.dumps(about).encode()}
                for suffix, content in members.items():
                    member = tarfile.TarInfo(f"{key}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    bad = {f"tar_{name}": cause for name, (_, cause) in corrupt.items()}
    return tars, [key for key, _ in entries if key not in bad], bad


def write_corrupt_corpus(folder: Path, raw: int = 300, shard: int = 150) -> Corpus:
    """A raw list of ``raw`` good utterances and a shard list of ``shard``, the bad ones spread among them."""
    folder.mkdir(parents=True, exist_ok=True)
    samples, causes = write_raw(folder, raw)
    tars, keys, tar_causes = write_tars(folder, shard)
    shards = folder / "shards.list"
    shards.write_text("".join(f"{tar}\n" for tar in tars), encoding="utf-8")
    return Corpus(
        {"raw": write_list(folder / "data.list", samples), "shard": shards},
        {"raw": [s["key"] for s in samples if s["key"] not in causes], "shard": keys},
        {"raw": causes, "shard": tar_causes},
    )
