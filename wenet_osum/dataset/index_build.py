"""Make an index from lists, part by part; parts that a store has already are not made again."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wenet_osum.dataset.fingerprint import digest, fingerprint
from wenet_osum.dataset.index import Index, task_weights
from wenet_osum.dataset.index_parts import Job, Span, index_parts, read_span
from wenet_osum.dataset.index_store import Store, StoreWriter, stamp
from wenet_osum.dataset.parallel import ordered_map
from wenet_osum.dataset.shard_reader import read_tar_list
from wenet_osum.errors import OsumError
from wenet_osum.fileio import atomic_write, sweep
from wenet_osum.tasks import TaskTable

_LINES = 512  # of a raw list in a part, on average; at most four times as many
_FILE_CHECKS = 16  # threads that ask for files' sizes and times


class Corpus(NamedTuple):
    """A list and how often an epoch takes what is in it; ``data_type``: raw, shard or shard_full_data."""

    path: str
    data_type: str
    weight: float = 1.0


def build_index(
    data_list: str | Path,
    data_type: str,
    table: TaskTable,
    encode: Callable[[str], list[int]],
    conf: dict[str, Any],
    asked: list[str] | None = None,
    need_answer: bool = True,
    store: str | Path | None = None,
) -> Index:
    """``index_corpora`` of one list."""
    return index_corpora([Corpus(str(data_list), data_type)], table, encode, conf, asked, need_answer, store)


def index_corpora(
    corpora: Sequence[Corpus],
    table: TaskTable,
    encode: Callable[[str], list[int]],
    conf: dict[str, Any],
    asked: list[str] | None = None,
    need_answer: bool = True,
    store: str | Path | None = None,
) -> Index:
    """One index over several lists.

    Args:
        encode: text -> token ids, for the answers' lengths.
        conf: ``dataset_conf``.
        asked: only these tasks; None: the ones with a weight in ``conf["task_weights"]``, or all.
        need_answer: for decoding it is False: an utterance needs no labels, every asked task is put
            to it, and the length filter is left to the caller's ``conf``.
        store: file to keep the index in and to take from it what is unchanged; None: memory. Ranks on one
            machine may give the same: one makes it, the others wait.

    Raises:
        OsumError: file and line of anything malformed; an utterance that comes twice in a list.
    """
    if asked is None and conf["task_weights"]:
        asked = [name for name, w in task_weights(conf, table).items() if w > 0]
    job = Job(table, encode, conf, asked, need_answer)
    depends = fingerprint(table, encode, conf, asked, need_answer) if store else ""
    spans = [s for n, c in enumerate(corpora) for s in cut_corpus(c, n, depends)]
    if store is None:
        content = io.BytesIO()
        writer = StoreWriter(content)
        for part in index_parts(spans, job):
            writer.add(part)
        writer.close()
        opened = Store(content.getvalue())
    else:
        store = Path(store)
        store.parent.mkdir(parents=True, exist_ok=True)
        with _locked(store):
            opened = _renew(store, spans, job)
    _check_keys(opened, spans, [c.path for c in corpora])
    rows = [p["frames"] for p in opened.parts]
    return Index(
        opened.records,
        opened.columns["frames"],
        opened.tasks,
        opened.columns["starts"],
        opened.columns["answers"],
        np.repeat(np.array([s.corpus for s in spans], np.int32), rows),
        np.repeat(np.arange(len(spans), dtype=np.int32), rows),
        [c.weight for c in corpora],
        [s for p in opened.parts for s in p["skipped"]],
    )


def cut_corpus(corpus: Corpus, number: int, depends: str) -> Iterator[Span]:
    """The parts of a list: each shard, or runs of lines of a raw list. A run ends at a line whose checksum says
    so, so that a line put in changes its own run alone."""
    path = corpus.path
    if corpus.data_type in ("shard", "shard_full_data"):
        lines = list(read_tar_list(path))
        stamps = ordered_map(stamp, (tar for _, tar in lines), _FILE_CHECKS)
        for (where, tar), was in zip(lines, stamps):
            id = digest(f"{depends} {tar} {was}".encode())
            yield Span(id, path, tar, number, int(where.rpartition(":")[2]))
        return
    if corpus.data_type != "raw":
        what = f"is {corpus.data_type!r}"
        raise OsumError("--data_type", what, "choose one of raw, shard, shard_full_data")
    if not Path(path).is_file():
        raise OsumError(path, "no such file", "check the path")
    with open(path, "rb") as f:
        first, start, run = 1, 0, list[bytes]()
        for n, line in enumerate(f, 1):
            run.append(line)
            if zlib.crc32(line) % _LINES == 0 or len(run) == 4 * _LINES:
                content = b"".join(run)
                yield Span(digest(depends.encode(), content), path, "", number, first, start, len(run))
                first, start, run = n + 1, start + len(content), []
        if run:
            id = digest(depends.encode(), b"".join(run))
            yield Span(id, path, "", number, first, start, len(run))


def _renew(path: Path, spans: list[Span], job: Job) -> Store:
    """The store at ``path``, once it has exactly the parts ``spans``; says what had to be made."""
    try:
        old: Store | None = Store(path)
    except FileNotFoundError:
        old = None
    except ValueError:
        logging.warning("%s is damaged: made anew", path)
        old = None
    usable = {} if old is None else dict(_unchanged(old, {s.id for s in spans}))
    anew = [span for span in spans if span.id not in usable]
    total = f"{len(spans)} part{'s' * (len(spans) > 1)}"
    if old is not None and [p["id"] for p in old.parts] == [s.id for s in spans] and not anew:
        logging.info("index: %s, all as before", total)
        return old
    names = ", ".join(map(str, anew[:3])) + (", ..." if len(anew) > 3 else "")
    if old is not None:
        as_before = len(spans) - len(anew)
        told = f"{len(anew)} anew ({names})" if anew else "others gone or moved"
        logging.info("index: %d of %s as before, %s", as_before, total, told)
    failure: BaseException | None = None
    with atomic_write(path, "wb") as f:
        writer = StoreWriter(f)  # type: ignore[arg-type]
        parts, left = index_parts(anew, job), list(spans)
        with contextlib.closing(parts):
            try:
                for span in spans:
                    writer.add(old.part(usable[span.id]) if old and span.id in usable else next(parts))
                    left.pop(0)
            except (OsumError, KeyboardInterrupt) as e:
                failure = e  # what is done need not be done again when the line is mended
        for span in left if failure else ():
            if old and span.id in usable:
                writer.add(old.part(usable[span.id]))
        writer.close()
    if failure:
        raise failure
    return Store(path)


def _unchanged(old: Store, wanted: set[str]) -> Iterator[tuple[str, int]]:
    """Ids and numbers of the parts of ``old`` that are wanted and whose audio files are as they were. A part in which
    something could not be read is looked at again: a program that was not installed, say, shows in no file."""

    def check(n: int) -> bool:
        if any(entry["cause"] in PASSING for entry in old.parts[n]["skipped"]):
            return False
        try:
            return all(stamp(path) == was for path, was in old.files(n).items())
        except ValueError:  # damaged
            return False

    numbers = [n for n, part in enumerate(old.parts) if part["id"] in wanted]
    for n, good in zip(numbers, ordered_map(check, numbers, _FILE_CHECKS)):
        if good:
            yield old.parts[n]["id"], n


PASSING = ("missing", "unreadable", "pipe_failed")  # causes that may be gone the next time


@contextlib.contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Wait until no other process of this machine makes the same store."""
    with open(store.with_name(f".{store.name}.lock"), "w") as lock:
        with contextlib.suppress(OSError):  # a file system without locks: the last one's store stays
            fcntl.flock(lock, fcntl.LOCK_EX)
        sweep(store)
        yield


def _check_keys(store: Store, spans: list[Span], paths: list[str]) -> None:
    """Raises:
    OsumError: an utterance that comes twice in one list.
    """
    keys, bounds = store.columns["keys"], store.bounds["keys"]
    corpus = np.repeat([s.corpus for s in spans], np.diff(bounds))
    for n in range(len(paths)):
        at = np.flatnonzero(corpus == n)
        order = at[np.argsort(keys[at], kind="stable")]
        same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
        if not len(same):
            continue
        # Equal hashes: the lines themselves tell whether the ids are equal, and where they are.
        doubtful = np.unique(np.concatenate([order[same], order[same + 1]]))
        seen: dict[str, str] = {}
        for p in np.unique(np.searchsorted(bounds, doubtful, side="right") - 1):
            for where, sample in read_span(spans[p]):
                key = sample["key"]
                if key in seen:
                    what = f"utterance {key} is here twice (before at {seen[key]})"
                    raise OsumError(where, what, "keep one of the two")
                seen[key] = where
