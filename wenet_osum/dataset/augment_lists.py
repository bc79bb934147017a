"""Lists of noises and of room impulse responses: read and checked once, cut at random access."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wenet_osum.dataset.audio import audio_duration, load_audio
from wenet_osum.dataset.index import audio_source
from wenet_osum.dataset.shard_reader import index_shard
from wenet_osum.dataset.sources import is_pipe
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.fileio import read_lines

_TAIL = 0.01  # seconds at the end of each file that are read to see that it is whole


class AudioList:
    """Audio files that a list names, one a line: WeNet's raw list (``wav``, optionally ``start`` and ``end``;
    ``txt`` is not needed), ``wav.scp`` (key and path, or key and ``file.ark:123``), or a tar as in a shard
    list. Several recordings of one key are no fault here.

    Every file is looked at once: its header, and whether its end is there.

    Args:
        path: the list. name: the config key that names it, for errors.

    Raises:
        OsumError: file and line of the first that cannot be used.
    """

    def __init__(self, path: str, name: str):
        self.name = name
        self.entries: list[tuple[str, dict[str, Any], float]] = []  # where, sample, seconds
        for where, sample in read_entries(path):
            try:
                self.entries.append((where, sample, check_audio(sample)))
            except BadUtterance as e:
                raise OsumError(where, f"{e.cause}: {e.detail}", f"mend or drop the line ({name})") from None
        if not self.entries:
            raise OsumError(path, "no audio in it", f"check {name}")

    def draw(self, rng: np.random.Generator, key: str, rate: int, seconds: float | None = None) -> np.ndarray:
        """(n,) samples at ``rate`` of an entry drawn evenly: a span of ``seconds`` drawn in it where it is that
        long, else all of it, begun at a drawn sample when ``seconds`` is given.

        Raises:
            BadUtterance: ``bad_noise``, for the utterance ``key`` that was to have it: the file changed
                after the list was checked.
        """
        where, sample, length = self.entries[rng.integers(len(self.entries))]
        share = rng.random()
        start, end = float(sample.get("start", 0)), sample.get("end")
        cut = seconds is not None and length > seconds
        if cut:
            assert seconds is not None
            start += share * (length - seconds)
            end = start + seconds
        try:
            wave = load_audio(audio_source(sample), start or None, end, rate, sample["key"])
        except BadUtterance as e:
            raise BadUtterance(key, "bad_noise", f"{where}: {e.cause}: {e.detail}") from None
        return wave if cut or seconds is None else np.roll(wave, -int(share * len(wave)))


def read_entries(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """``(where, sample)`` of each recording of a list.

    Raises:
        OsumError: a line of no known form, a pipe.
    """
    for n, line in read_lines(path):
        where, words = f"{path}:{n}", line.split(maxsplit=1)
        if not words:
            continue
        if line.lstrip().startswith("{"):
            sample = json_entry(line, where)
        elif len(words) == 1 and words[0].endswith(".tar"):
            try:
                yield from ((f"{where} {sample['key']}", sample) for sample in index_shard(words[0]))
            except OsumError as e:
                raise OsumError(where, f"{e.where}: {e.what}", e.mend) from None
            continue
        elif len(words) == 2:
            sample = {"key": words[0], "wav": words[1].strip()}
        else:
            what = "is neither KEY PATH, nor a JSON object, nor a tar"
            raise OsumError(where, what, "write wav.scp lines, a raw list or a shard list")
        if is_pipe(sample["wav"]):  # it would run anew for every utterance that draws it
            raise OsumError(where, "is a command", "run it once, and list the file it makes")
        yield where, sample


def json_entry(line: str, where: str) -> dict[str, Any]:
    """A raw list's line with a ``wav``, seconds from ``start`` to ``end`` in it.

    Raises:
        OsumError: it is not that.
    """
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("wav"), str):
        raise OsumError(where, "is no JSON object with a wav", 'write {"key": ..., "wav": ...}')
    sample = {"key": str(record.get("key") or Path(record["wav"]).name), "wav": record["wav"]}
    for name in ("start", "end"):
        if record.get(name) is not None:
            if isinstance(record[name], bool) or not isinstance(record[name], (int, float)):
                raise OsumError(where, f"{name} is {record[name]!r}", "give seconds")
            sample[name] = float(record[name])
    return sample


def check_audio(sample: dict[str, Any]) -> float:
    """Seconds of an entry, from its header, once its end was read.

    Raises:
        BadUtterance: it cannot be read, or ends early.
    """
    source, key = audio_source(sample), sample["key"]
    start = sample.get("start", 0.0)
    end = sample["end"] if sample.get("end", -1) != -1 else audio_duration(source, key)
    load_audio(source, max(start, end - _TAIL), end, key=key)
    return float(end - start)
