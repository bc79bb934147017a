"""Read shards, WeNet's, OSUM's or our own: one after the other, or an index for random access."""

from __future__ import annotations

import contextlib
import json
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast, final

from wenet_osum.dataset.audio import audio_duration
from wenet_osum.dataset.kaldi import Sample
from wenet_osum.dataset.lists import check_surrogates, find_problem, from_record
from wenet_osum.dataset.shards import AUDIO_SUFFIXES, JSON_SUFFIXES
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.fileio import read_lines

Group = tuple[str, dict[str, tarfile.TarInfo]]


def read_shard(tar_path: str | Path) -> Iterator[Sample]:
    """Yield the samples of a tar in its order; ``wav`` holds the encoded audio as bytes.

    An utterance without audio has ``wav`` ``b""``, which ``load_audio`` tells as ``empty``; one without a
    ``txt`` member has the text ``""``, as OSUM's reader has it. Members that are not UTF-8 stay bytes.

    Raises:
        OsumError: no such file, no tar or a cut-off one, or a malformed member (naming tar and member).
    """
    with _Shard(tar_path) as shard:
        for key, members in shard.groups():
            audio = _audio_member(members)
            wav = shard.read(audio) if audio else b""
            yield {"key": key, "wav": wav, **shard.fields(key, members)}


def index_shard(tar_path: str | Path) -> list[Sample]:
    """The samples of a tar without their audio, but with the place of it.

    Returns:
        sample dicts with, in place of ``wav``: ``tar`` (the path), ``offset`` and ``size`` (bytes of the
        encoded audio in the tar; 0 and 0 if there is none) and ``duration`` (seconds; left out if the
        audio's header does not tell).

    Raises:
        OsumError: as ``read_shard``.
    """
    index = []
    with _Shard(tar_path) as shard:
        for key, members in shard.groups():
            audio = _audio_member(members)
            sample = {"key": key, **shard.fields(key, members), "tar": str(tar_path), "offset": 0, "size": 0}
            if audio:
                sample["offset"], sample["size"] = audio.offset_data, audio.size
                if "duration" not in sample:
                    # Bad audio is told, counted and listed by whoever loads it.
                    with contextlib.suppress(BadUtterance):
                        sample["duration"] = audio_duration(shard.open(audio), key)
            index.append(sample)
    return index


def read_tar_list(path: str | Path) -> Iterator[tuple[str, str]]:
    """Yield ``(file:line, tar)`` of a shard list.

    Raises:
        OsumError: no such file, or not such a list.
    """
    for n, line in read_lines(path):
        if line.lstrip("\ufeff").startswith("{"):
            raise OsumError(f"{path}:{n}", "a line of a raw list", "give --data_type raw, or a list of tars")
        if line.startswith("\ufeff"):
            raise OsumError(f"{path}:{n}", "begins with a byte-order mark", "save it as UTF-8 without BOM")
        if line.strip():
            yield f"{path}:{n}", line.strip()


@final
class _Shard:
    """An open tar, its members grouped by utterance."""

    def __init__(self, path: str | Path):
        self.path = str(path)

    def __enter__(self) -> _Shard:
        try:
            self._file = open(self.path, "rb")
        except FileNotFoundError:
            raise OsumError(self.path, "no such file", "check the path in the shard list") from None
        except (OSError, ValueError) as e:  # ValueError: a NUL byte in the path
            why = getattr(e, "strerror", None) or str(e)
            raise OsumError(f"{self.path:.200}", why, "check the path in the shard list") from None
        try:
            # Uncompressed only: audio does not shrink, and its place in the file must be known.
            self._tar = tarfile.open(fileobj=self._file, mode="r:", encoding="utf-8")
        except tarfile.TarError as e:
            self._file.close()
            raise OsumError(self.path, f"not a tar ({e})", "make the shard again (gunzip a tar.gz)") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()
        self._file.close()

    def groups(self) -> Iterator[Group]:
        """Yield each key with its members by suffix."""
        # A key that comes again later is found by who sees more than one shard.
        key: str | None = None
        members: dict[str, tarfile.TarInfo] = {}
        for member in self._members():
            name, dot, suffix = member.name.rpartition(".")
            if not dot or not name:
                raise OsumError(f"{self.path}: {member.name}", "not named KEY.suffix", "make the shard again")
            if name != key:
                if key is not None:
                    yield key, members
                key, members = name, {}
            if suffix in members:
                raise OsumError(f"{self.path}: {member.name}", "comes twice", "make the shard again")
            members[suffix] = member
        if key is not None:
            yield key, members

    def _members(self) -> Iterator[tarfile.TarInfo]:
        try:
            for member in self._tar:
                if member.isfile():
                    yield member
        except tarfile.TarError as e:
            raise self._cut(str(e)) from None
        # tarfile takes a file that breaks off between two members for a whole one.
        self._file.seek(self._tar.offset)
        if self._file.read(512) != bytes(512):
            raise self._cut("no end mark")

    def _cut(self, why: str) -> OsumError:
        return OsumError(self.path, f"cut-off tar ({why})", "make or copy this shard again")

    def read(self, member: tarfile.TarInfo) -> bytes:
        """The content of a member."""
        self._file.seek(member.offset_data)
        content = self._file.read(member.size)
        if len(content) < member.size:
            raise self._cut(f"{member.name} ends early")
        return content

    def open(self, member: tarfile.TarInfo) -> BinaryIO:
        """The content of a member as a stream, for who needs only its beginning."""
        return cast(BinaryIO, self._tar.extractfile(member))

    def fields(self, key: str, members: dict[str, tarfile.TarInfo]) -> dict[str, Any]:
        """Everything of an utterance but its audio, ``txt`` first."""
        record: dict[str, Any] = {"txt": ""}
        for suffix, member in members.items():
            if suffix in AUDIO_SUFFIXES:
                continue
            content = self.read(member)
            try:
                text = content.decode("utf-8")
            except UnicodeDecodeError:
                if suffix in ("txt", "json") or suffix in JSON_SUFFIXES:
                    raise OsumError(
                        f"{self.path}: {member.name}", "not UTF-8", "make the shard again"
                    ) from None
                record[suffix] = content  # OSUM's speech tokens, say
                continue
            if suffix == "json":
                record.update(self._json(member, text, dict))
            elif suffix in JSON_SUFFIXES:
                record[suffix] = self._json(member, text, object)
            elif suffix == "duration":
                record[suffix] = _seconds(text)
            else:
                record[suffix] = text.strip()
        # The tar has the key and the audio; a segment was cut out and is whole.
        for name in ("key", "wav", "start", "end"):
            record.pop(name, None)
        where = f"{self.path}: {key!a:.80}"
        check_surrogates(key, where)
        problem = find_problem({"key": "-", "wav": "-", **record})
        if problem:
            raise OsumError(where, " ".join(problem), "make the shard again")
        return from_record(record)

    def _json(self, member: tarfile.TarInfo, text: str, kind: type) -> Any:
        try:
            value = json.loads(text)
            check_surrogates(value, f"{self.path}: {member.name}")
        except ValueError:
            value = None
        if not isinstance(value, kind) or value is None:
            raise OsumError(f"{self.path}: {member.name}", "malformed JSON", "make the shard again")
        return value


def _seconds(text: str) -> float | None:
    """A duration, or None: OSUM writes 0 where it is not known."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _audio_member(members: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    return next((m for suffix, m in members.items() if suffix in AUDIO_SUFFIXES), None)
