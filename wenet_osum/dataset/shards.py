"""Write shards: tars of a thousand utterances or so, in WeNet's and OSUM's forms.

The members of an utterance stand together, ``KEY.txt`` first; WeNet's reader takes the name up to
the last dot as the key, so any key will do. ``shard`` is WeNet's form (``KEY.txt``, ``KEY.wav``); the
fields it has no place for go into a ``KEY.json``, which WeNet's and OSUM's readers pass over.
``shard_full_data`` is OSUM's: one member a field.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from wenet_osum.dataset.audio import load_audio
from wenet_osum.dataset.kaldi import Sample
from wenet_osum.dataset.lists import dump_json, to_record
from wenet_osum.dataset.parallel import ordered_map
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.fileio import atomic_write

MAX_SAMPLE_RATE = 768_000
SHARD_TYPES = ("shard", "shard_full_data")
AUDIO_SUFFIXES = frozenset({"flac", "mp3", "m4a", "ogg", "opus", "wav", "wma"})
JSON_SUFFIXES = frozenset(("align", "extra"))
# OSUM's reader knows these; they stand in its writer's order.
_FIELD_ORDER = (
    *("task", "lang", "speaker", "duration", "event", "emotion", "style", "gender", "age"),
    *("reply", "question", "align", "extra"),
)
_OWN_MEMBER = re.compile("[A-Za-z0-9_]+")
_RESERVED = AUDIO_SUFFIXES | {"txt", "json", "key"}


class _NothingToWriteError(Exception):
    """Leaves a tar unwritten."""


@dataclass
class ShardReport:
    """What was written.

    Attributes:
        utterances: how many are in the shards.
        seconds: how long they are together.
        tars: the tars, as the list names them.
        skipped: the utterances set aside: ``key``, ``cause``, ``detail`` each.
    """

    utterances: int = 0
    seconds: float = 0.0
    tars: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)


def write_shards(
    samples: Iterable[Mapping[str, Any]],
    shards_dir: str | Path,
    list_path: str | Path,
    shard_type: str = "shard",
    num_utts_per_shard: int = 1000,
    num_workers: int = 1,
    sample_rate: int = 16000,
    prefix: str = "shards",
    progress: Callable[[int], None] = lambda utterances: None,
) -> ShardReport:
    """Write ``shards_dir/PREFIX_000000000.tar`` ... and a list of them.

    The same samples give the same bytes, whatever ``num_workers``. Audio becomes 16-bit wav, one
    channel. Each tar, and last of all the list, gets its name only when it is whole. Utterances whose
    audio cannot be used are set aside and listed in ``skipped_path(list_path)``.

    Args:
        samples: sample dicts; taken a few shards at a time.
        shards_dir: made if it is not there.
        list_path: one tar a line.
        shard_type: ``"shard"`` or ``"shard_full_data"``.
        num_utts_per_shard: samples a tar (fewer where some were set aside).
        num_workers: threads.
        sample_rate: of the audio written.
        prefix: of the tars' names.
        progress: called now and then with the number of utterances done since the last call.

    Raises:
        OsumError: bad arguments, a key that comes twice, a sample that cannot be written, or no
            utterance that can be used.
    """
    if shard_type not in SHARD_TYPES:
        raise OsumError("shard_type", f"unknown: {shard_type!r}", f"use one of {', '.join(SHARD_TYPES)}")
    for name, value in (("num_utts_per_shard", num_utts_per_shard), ("sample_rate", sample_rate)):
        if value < 1:
            raise OsumError(name, f"is {value}", "give a number above 0")
    if sample_rate > MAX_SAMPLE_RATE:
        raise OsumError("sample_rate", f"is {sample_rate}", f"give {MAX_SAMPLE_RATE} or less")
    one_at_a_time = threading.Lock()

    def done() -> None:
        with one_at_a_time:
            progress(1)

    def write(job: tuple[int, list[Mapping[str, Any]]]) -> ShardReport:
        path = os.path.join(shards_dir, f"{prefix}_{job[0]:09d}.tar")  # listed as the dir was given
        return _write_tar(job[1], path, shard_type, sample_rate, done)

    report = ShardReport()
    for part in ordered_map(write, _chunks(samples, num_utts_per_shard), num_workers):
        report.utterances += part.utterances
        report.seconds += part.seconds
        report.tars += part.tars
        report.skipped += part.skipped
    skipped = skipped_path(list_path)
    if report.skipped:
        with atomic_write(skipped) as f:
            f.writelines(dump_json(row, row["key"]) + "\n" for row in report.skipped)
    else:
        skipped.unlink(missing_ok=True)  # of an earlier run
    if not report.tars:
        why = f"; the first: {BadUtterance(**report.skipped[0])}" if report.skipped else ""
        raise OsumError(
            str(list_path), f"no utterance can be used{why}", "run `osum validate` on the data dir"
        )
    with atomic_write(list_path) as f:
        f.writelines(f"{tar}\n" for tar in report.tars)
    return report


def skipped_path(list_path: str | Path) -> Path:
    """Where the utterances that were set aside are listed: ``data.list`` -> ``data.skipped.jsonl``."""
    return Path(list_path).with_suffix(".skipped.jsonl")


def _chunks(samples: Iterable[Mapping[str, Any]], size: int) -> Iterator[tuple[int, list[Mapping[str, Any]]]]:
    """Number and samples of each shard; checks that no key comes twice (readers would join the two)."""
    keys: set[str] = set()
    stream = iter(samples)
    for number in itertools.count():
        chunk = list(itertools.islice(stream, size))
        if not chunk:
            return
        for sample in chunk:
            if sample["key"] in keys:
                raise OsumError(
                    sample["key"], "this key comes twice", "give every utterance a key of its own"
                )
            keys.add(sample["key"])
        yield number, chunk


def _write_tar(
    samples: list[Mapping[str, Any]], path: str, shard_type: str, sample_rate: int, done: Callable[[], None]
) -> ShardReport:
    members = _full_members if shard_type == "shard_full_data" else _plain_members
    report = ShardReport()
    with (
        contextlib.suppress(_NothingToWriteError),
        atomic_write(path, "wb") as f,
        tarfile.open(fileobj=f, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as tar,
    ):
        for sample in samples:
            key = sample["key"]
            try:
                audio = load_audio(sample["wav"], sample.get("start"), sample.get("end"), sample_rate, key)
            except BadUtterance as e:
                report.skipped.append({"key": e.key, "cause": e.cause, "detail": e.detail})
                done()
                continue
            seconds = len(audio) / sample_rate
            # A segment is cut out and whole from here on.
            rest = {k: v for k, v in sample.items() if k not in ("start", "end", "duration")}
            if shard_type == "shard_full_data":
                rest["duration"] = round(seconds, 6)
            for suffix, content in members(rest):
                _add(tar, f"{key}.{suffix}", content)
            _add(tar, f"{key}.wav", _wav_bytes(audio, sample_rate))
            report.utterances += 1
            report.seconds += seconds
            done()
        if not report.utterances:
            raise _NothingToWriteError
    if report.utterances:
        report.tars.append(path)
    return report


def _plain_members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    yield from _members(sample, own=lambda name, value: isinstance(value, bytes))


def _full_members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    yield from _members(
        sample, own=lambda name, value: name in _FIELD_ORDER or isinstance(value, (str, bytes))
    )


def _members(sample: Sample, own: Callable[[str, Any], bool]) -> Iterator[tuple[str, bytes]]:
    """Suffix and content of each member but the audio; what is not ``own`` goes into the json."""
    record = to_record(sample)
    yield "txt", record["txt"].encode("utf-8")
    left = {}
    for name in (
        *_FIELD_ORDER,
        *(n for n in record if n not in _FIELD_ORDER and n not in ("key", "wav", "txt")),
    ):
        value = record.get(name)
        if value is None:
            continue
        if name in _RESERVED or not _OWN_MEMBER.fullmatch(name) or not own(name, value):
            left[name] = value
        elif isinstance(value, bytes):
            yield name, value
        elif isinstance(value, str) and name not in JSON_SUFFIXES:
            yield name, value.encode("utf-8")
        else:
            yield name, dump_json(value, sample["key"]).encode("utf-8")
    if left:
        yield "json", dump_json(left, sample["key"]).encode("utf-8")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # its time, owner and mode are fixed
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _wav_bytes(audio: np.ndarray, sample_rate: int) -> bytes:
    """16-bit wav; what was 16-bit at this rate comes out bit for bit."""
    samples = np.clip(np.rint(audio * 32768), -32768, 32767).astype(np.int16)
    wav = io.BytesIO()
    sf.write(wav, samples, sample_rate, format="WAV", subtype="PCM_16")
    return wav.getvalue()
