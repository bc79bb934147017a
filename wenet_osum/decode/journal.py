"""What a decode has done so far, kept so that a kill costs no more than the batches it fell into.

Each rank appends to a file of its own, ``rankN.jsonl`` in a folder that all ranks see: first the facts that
decide the answers, then a line for each finished utterance. A line that a kill cut short does not count. Nobody
waits for another rank: whoever finds that all is done puts it together and takes the folder away, unless a rank of
this run has not come yet, which may have nothing left to do: that one does it then.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from wenet_osum.errors import OsumError

_ROW = b'{"row": '  # how the line of an utterance begins


class Journal:
    """The journals of all ranks, of which one is written here; to be used in a ``with`` block.

    Args:
        folder: theirs alone. rank, world_size: this process among those that share the list.

    Attributes:
        store: where the index of the list can be kept meanwhile.

    Raises:
        OsumError: another process writes this rank's.
    """

    def __init__(self, folder: Path, rank: int = 0, world_size: int = 1):
        self.folder, self.rank, self.world_size = folder, rank, world_size
        self.path, self.store = folder / f"rank{rank}.jsonl", folder / "list.idx"
        # Which launch of torchrun this is; without it, all are one.
        run = zlib.crc32(os.environ.get("TORCHELASTIC_RUN_ID", "").encode())
        self._marks = [folder / f"rank{n}.{run:08x}.here" for n in range(world_size)]
        self.facts: dict[str, Any] = {}
        self.count, self._begun = 0, False

    def __enter__(self) -> Journal:
        # Early, with nothing to say yet: that the file is gone later tells that all has been put together.
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = open(
            self.path, "ab", buffering=0
        )  # on a full disk nothing waits to be written
        self._lock = open(self.folder / "lock", "a")
        try:
            # Of this process alone: data workers, which may live a moment longer, do not inherit it.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1 + self.rank)
        except BlockingIOError:
            self._close()
            mend = "wait for it, stop it, or give another --result_dir"
            raise OsumError(str(self.path), "another process decodes here", mend) from None
        except OSError:  # a file system without locks
            pass
        if self.world_size > 1:
            self._marks[self.rank].touch()
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        """Close it; leaves nothing where nothing was done, but that this rank has come, if others will come."""
        taken = self.taken
        nothing = taken or not os.path.getsize(self.path)
        if nothing and not taken:
            self.path.unlink()
        self._close()
        came = self._begun and self.world_size > 1 and not (failed or taken)
        if nothing and not came and not self.paths():
            store = (self.store, self.store.with_name(f".{self.store.name}.lock"))
            for path in (*store, *self.folder.glob("rank*.here"), self.folder / "lock"):
                path.unlink(missing_ok=True)
            for folder in (self.folder, self.folder.parent):
                with contextlib.suppress(OSError):  # something is in it
                    folder.rmdir()

    def _close(self) -> None:
        self._file.close()
        self._lock.close()

    @property
    def taken(self) -> bool:
        """Whether another rank has put all together and taken the journals away."""
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return True

    @property
    def all_here(self) -> bool:
        """Whether every rank of this run has come."""
        return self.world_size == 1 or all(mark.exists() for mark in self._marks)

    def paths(self) -> dict[int, Path]:
        """The journals that there are, by rank."""
        numbers = {path.stem.removeprefix("rank"): path for path in self.folder.glob("rank*.jsonl")}
        return {int(n): path for n, path in sorted(numbers.items()) if n.isdigit()}

    def begin(self, facts: dict[str, Any], count: int, restart: bool = False) -> np.ndarray:
        """Read what is there, of this world size or another.

        Args:
            facts: all that decides the answers, by name; may be nested.
            count: of utterances: rows 0 to ``count`` - 1.
            restart: throw this rank's journal away, and those of ranks that there are no more.

        Returns:
            (count,) which rows are done; with ``restart`` none; all, where all has been put together already.

        Raises:
            OsumError: a journal is of a decode with other facts (says which), or damaged.
        """
        self.facts, self.count = json.loads(json.dumps(facts, default=str)), count
        self._begun = True
        done = np.full(count, self.taken)
        if restart:
            self._file.truncate(0)
            for rank, path in self.paths().items():
                if rank >= self.world_size:
                    path.unlink(missing_ok=True)
            return done
        for rank, path in self.paths().items():
            lines = read_lines(path)
            if rank == self.rank:
                self._file.truncate(lines.end)  # a line that was cut short is written anew
            if lines.facts is None:
                continue
            if other := list(differences(lines.facts, self.facts)):
                what = f"has a part of another decode ({'; '.join(other[:3])})"
                mend = "finish that one, or give --restart to throw the part away"
                raise OsumError(str(self.folder), what, mend)
            done[lines.rows] = True
        return done

    def append(self, entries: dict[int, dict[str, Any]]) -> None:
        """Keep what was found of some rows; when this returns, a kill does not undo it."""
        lines = [] if os.path.getsize(self._file.fileno()) else [json.dumps({"facts": self.facts})]
        lines += [json.dumps({"row": row, **entry}, ensure_ascii=False) for row, entry in entries.items()]
        content = "".join(line + "\n" for line in lines).encode()
        try:
            while content:
                content = content[self._file.write(content) :]
            os.fsync(self._file.fileno())
        except OSError as e:
            raise OSError(e.errno, e.strerror, str(self.path)) from None

    @contextlib.contextmanager
    def merging(self) -> Iterator[None]:
        """While another rank puts together, wait."""
        with contextlib.suppress(OSError):  # a file system without locks: both write the same
            fcntl.lockf(self._lock, fcntl.LOCK_EX, 1, 0)
        yield
        with contextlib.suppress(OSError):
            fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, 0)

    def entries(self) -> tuple[int, Iterator[dict[str, Any]]]:
        """What all ranks have kept.

        Returns:
            how many rows lack, and the entries of the others in the order of the rows, read one by one.
        """
        at, of = np.zeros(self.count, np.int64), np.full(self.count, -1, np.int32)
        paths = list(self.paths().values())
        for n, path in enumerate(paths):
            with contextlib.suppress(FileNotFoundError):
                lines = read_lines(path)
                if lines.facts == self.facts:
                    at[lines.rows], of[lines.rows] = lines.offsets, n

        def read() -> Iterator[dict[str, Any]]:
            with contextlib.ExitStack() as stack:
                files = [stack.enter_context(open(path, "rb")) for path in paths]
                for row in np.flatnonzero(of >= 0):
                    f = files[of[row]]
                    f.seek(at[row])
                    yield json.loads(f.readline())

        return int((of < 0).sum()), read()

    def remove(self) -> None:
        """Take the journals away: all of them at once, so that a kill does not leave a part."""
        for left in self.folder.parent.glob(f".{self.folder.name}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        gone = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.tmp")
        os.rename(self.folder, gone)
        shutil.rmtree(gone, ignore_errors=True)


class Lines(NamedTuple):
    """The whole lines of a journal: its facts (None: it has none yet), the rows that it has, the bytes at which
    each begins, and where the last ends."""

    facts: dict[str, Any] | None
    rows: np.ndarray
    offsets: np.ndarray
    end: int


def read_lines(path: Path) -> Lines:
    """Find the lines of a journal.

    Raises:
        OsumError: a whole line is not one of ours.
    """
    rows, offsets, facts, end = array("q"), array("q"), None, 0
    with open(path, "rb") as f:
        try:
            for line in f:
                if not line.endswith(b"\n"):
                    break
                if facts is None:
                    facts = json.loads(line)["facts"]
                else:
                    if not line.startswith(_ROW):
                        raise ValueError
                    rows.append(int(line[len(_ROW) : line.index(b",")]))
                    offsets.append(end)
                end += len(line)
        except (ValueError, KeyError, TypeError):
            mend = "give --restart to throw the partial results away"
            raise OsumError(str(path), f"is damaged at byte {end}", mend) from None
    return Lines(facts, np.array(rows, np.int64), np.array(offsets, np.int64), end)


def differences(then: Any, now: Any, where: str = "") -> Iterator[str]:
    """``dtype fp32 then, bf16 now`` for each fact that differs, a nested one by its path."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in {**then, **now}:
            yield from differences(then.get(key), now.get(key), f"{where}.{key}" if where else key)
    elif then != now:
        yield f"{where} {then!s:.40} then, {now!s:.40} now"
