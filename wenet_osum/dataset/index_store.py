"""An index in one file: the records as JSON, columns to be mapped, a table of its parts.

A part is what is indexed, and found unchanged, as one: a shard, or a run of list lines. The file ends with
the place and checksum of its table, which has the checksums of the columns; one that was cut off or changed
is found out when it is opened.
"""

from __future__ import annotations

import base64
import json
import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from wenet_osum.dataset.index import TaskSets
from wenet_osum.errors import OsumError

_MAGIC = b"osumidx1"
_END = struct.Struct("<QQI8s")  # place, length and crc32 of the table; magic
_BYTES = "\u0000bytes"

# Column -> its type. One row an utterance, but for answers (one an utterance and task) and keys (one an utterance
# that was read, used or not). Records are at offsets, of so many bytes as sizes.
_COLUMNS = {
    "frames": np.int32,
    "task_set": np.int32,
    "offsets": np.int64,
    "sizes": np.int32,
    "starts": np.int64,
    "answers": np.int32,
    "keys": np.uint64,
}


@dataclass
class Part:
    """What one part gives.

    Attributes:
        id: of its content and all that the rest depends on.
        sets: the distinct task sets. task_set: (n,) which one each utterance has.
        frames: (n,) 10 ms frames. answers: tokens of each utterance's answers, one after the other.
        records: each utterance's sample as JSON. sizes: (n,) their bytes.
        keys: hashes of the ids of all utterances that were read, in order.
        skipped: what was set aside. files: path -> what ``stamp`` said of it before it was opened.
    """

    id: str
    sets: list[tuple[str, ...]]
    task_set: np.ndarray
    frames: np.ndarray
    answers: np.ndarray
    records: bytes
    sizes: np.ndarray
    keys: np.ndarray
    skipped: list[dict[str, str]] = field(default_factory=list)
    files: dict[str, list[int] | None] = field(default_factory=dict)


def stamp(path: str) -> list[int] | None:
    """Size and time of change of a file; None if it cannot be seen."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return None
    return [facts.st_size, facts.st_mtime_ns]


def pack_record(sample: dict[str, Any]) -> bytes:
    """A sample as JSON; bytes in it (OSUM's speech tokens, say) as base64."""

    def default(value: bytes) -> dict[str, str]:
        return {_BYTES: base64.b64encode(value).decode("ascii")}

    return json.dumps(sample, ensure_ascii=False, default=default).encode("utf-8")


def unpack_record(record: bytes) -> dict[str, Any]:
    """The inverse of ``pack_record``."""

    def hook(value: dict[str, Any]) -> Any:
        return base64.b64decode(value[_BYTES]) if value.keys() == {_BYTES} else value

    return json.loads(record, object_hook=hook if b"\\u0000bytes" in record else None)


class StoreWriter:
    """Writes parts to an open binary file, one after the other."""

    def __init__(self, f: BinaryIO):
        self._f = f
        self._sets: dict[tuple[str, ...], int] = {}
        self._columns: dict[str, list[np.ndarray]] = {name: [] for name in _COLUMNS}
        self._parts: list[dict[str, Any]] = []
        self._answers = 0

    def add(self, part: Part) -> None:
        numbers = [self._sets.setdefault(s, len(self._sets)) for s in part.sets]
        asked = np.array([len(s) for s in part.sets], np.int64)[part.task_set]
        table = {"frames": part.frames, "sizes": part.sizes, "answers": part.answers, "keys": part.keys}
        table["task_set"] = np.array(numbers, np.int32)[part.task_set]
        table["starts"] = self._answers + np.cumsum(asked) - asked
        table["offsets"] = self._f.tell() + np.cumsum(part.sizes) - part.sizes
        for name, column in table.items():
            self._columns[name].append(column)
        self._answers += len(part.answers)
        self._f.write(part.records)
        # Files can be as many as utterances, and are looked at once: they stay out of the table.
        files = json.dumps(part.files).encode("ascii")
        facts = {"id": part.id, "skipped": part.skipped, "files": [self._f.tell(), len(files)]}
        self._f.write(files)
        self._parts.append(facts | {name: len(table[name]) for name in ("frames", "answers", "keys")})

    def close(self) -> None:
        columns = {}
        for name, dtype in _COLUMNS.items():
            whole = np.concatenate([np.zeros(0, dtype), *self._columns.pop(name)])
            content = np.ascontiguousarray(whole, dtype).tobytes()
            self._f.write(bytes(-self._f.tell() % 8))
            columns[name] = [self._f.tell(), len(whole), zlib.crc32(content)]
            self._f.write(content)
        table = {"columns": columns, "sets": list(self._sets), "parts": self._parts}
        content = json.dumps(table).encode("ascii")
        at = self._f.tell()
        self._f.write(content + _END.pack(at, len(content), zlib.crc32(content), _MAGIC))


class Records(Sequence[dict[str, Any]]):
    """The samples of a store, decoded one by one; a file is read by ``pread``, so that its pages are not this
    process's, and opened anew in another process."""

    def __init__(self, source: bytes | Path, offsets: np.ndarray, sizes: np.ndarray):
        self._source, self._offsets, self._sizes = source, offsets, sizes
        self._file = -1
        self._stamp: list[int] | None = None
        if isinstance(source, Path):
            self._open()
            self._stamp = stamp(str(source))

    def _open(self) -> None:
        self._file = os.open(self._source, os.O_RDONLY)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        row = range(len(self))[row]
        try:
            return unpack_record(self.raw(int(self._offsets[row]), int(self._sizes[row])))
        except ValueError:
            mend = "remove it; it is made anew by the next run"
            raise OsumError(str(self._source), f"record {row} of the index is damaged", mend) from None

    def raw(self, at: int, size: int) -> bytes:
        """So many bytes of the source."""
        if isinstance(self._source, bytes):
            return self._source[at : at + size]
        return os.pread(self._file, size, at)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": -1}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self._source, Path):
            self._open()
            if stamp(str(self._source)) != self._stamp:
                raise OsumError(str(self._source), "was made anew by another run", "start this one again")

    def __del__(self) -> None:
        if self._file != -1:
            os.close(self._file)


class Store:
    """An opened index file, or the content of one.

    Attributes:
        columns: name -> array, mapped from the file. parts: the table of parts.

    Raises:
        ValueError: damaged, or not of this version.
        OSError: cannot be read.
    """

    def __init__(self, source: bytes | Path):
        content: Any = source
        if isinstance(source, Path):
            with open(source, "rb") as f:
                content = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        if len(content) < _END.size:
            raise ValueError("no index")
        at, length, checksum, magic = _END.unpack(content[-_END.size :])
        table = content[at : at + length]
        if magic != _MAGIC or zlib.crc32(table) != checksum:
            raise ValueError("no index, or a damaged one")
        facts = json.loads(table)
        self.columns: dict[str, np.ndarray] = {}
        for name, (start, count, checksum) in facts["columns"].items():
            self.columns[name] = np.frombuffer(content, _COLUMNS[name], count, start)
            if zlib.crc32(self.columns[name].data) != checksum:
                raise ValueError(f"a damaged index: {name}")
        self.sets = [tuple(s) for s in facts["sets"]]
        self.parts: list[dict[str, Any]] = facts["parts"]
        self.records = Records(source, self.columns["offsets"], self.columns["sizes"])
        counts = {name: [p[name] for p in self.parts] for name in ("frames", "answers", "keys")}
        self.bounds = {
            name: np.concatenate([[0], np.cumsum(c, dtype=np.int64)]) for name, c in counts.items()
        }

    @property
    def tasks(self) -> TaskSets:
        return TaskSets(self.sets, self.columns["task_set"])

    def files(self, n: int) -> dict[str, list[int] | None]:
        """The files whose headers were read for part ``n``; see ``Part``."""
        return json.loads(self.records.raw(*self.parts[n]["files"]))

    def part(self, n: int) -> Part:
        """Part ``n`` as it was added."""
        span = {name: slice(b[n], b[n + 1]) for name, b in self.bounds.items()}
        rows, columns, facts = span["frames"], self.columns, self.parts[n]
        sizes = columns["sizes"][rows]
        start = int(columns["offsets"][rows.start]) if len(sizes) else 0
        used, task_set = np.unique(columns["task_set"][rows], return_inverse=True)
        return Part(
            facts["id"],
            [self.sets[i] for i in used],
            task_set,
            columns["frames"][rows],
            columns["answers"][span["answers"]],
            self.records.raw(start, int(sizes.sum())),
            sizes,
            columns["keys"][span["keys"]],
            facts["skipped"],
            self.files(n),
        )
