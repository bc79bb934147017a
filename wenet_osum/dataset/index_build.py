"""Make an index from lists, part by part in several processes; parts that a store has already are not made again."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import logging
import multiprocessing
import os
import re
import signal
import sys
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from wenet_osum import __version__
from wenet_osum.dataset.filter import check_length
from wenet_osum.dataset.index import (
    Index,
    allowed_tasks,
    duration_of,
    fitting,
    target_text,
    task_weights,
)
from wenet_osum.dataset.index_store import Part, Store, StoreWriter, pack_record, stamp
from wenet_osum.dataset.lists import read_raw_list
from wenet_osum.dataset.parallel import ordered_map
from wenet_osum.dataset.shard_reader import index_shard, read_tar_list
from wenet_osum.dataset.sources import is_pipe, split_ark
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.fileio import atomic_write
from wenet_osum.hub import TOKENIZER_FILES
from wenet_osum.tasks import TaskTable

_LINES = 512  # of a raw list in a part, on average; at most four times as many
_FILE_CHECKS = 16  # threads that ask for files' sizes and times


class Corpus(NamedTuple):
    """A list and how often an epoch takes what is in it; ``data_type``: raw, shard or shard_full_data."""

    path: str
    data_type: str
    weight: float = 1.0


class Span(NamedTuple):
    """Where a part is: lines of a raw list from byte ``start`` on, or a shard that line ``first`` names.

    Attributes:
        id: of its content, and of ``Job.fingerprint``.
        path: the list. tar: the shard, or "" for lines. corpus: number of its corpus.
    """

    id: str
    path: str
    tar: str
    corpus: int
    first: int
    start: int = 0
    lines: int = 0

    def __str__(self) -> str:
        return self.tar or f"{self.path}:{self.first}-{self.first + self.lines - 1}"


@dataclass(frozen=True)
class Job:
    """What the result depends on beside the lists; see ``build_index``."""

    table: TaskTable
    encode: Callable[[str], list[int]]
    conf: dict[str, Any]
    asked: list[str] | None
    need_answer: bool

    def fingerprint(self) -> str:
        """The same for jobs that give the same."""
        facts = [__version__, repr(list(self.table.values())), self.conf["filter_conf"]]
        facts += [self.conf["time_step"], self.asked, self.need_answer, _tokenizer_facts(self.encode)]
        return _digest(json.dumps(facts, sort_keys=True, default=str).encode())


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
    fingerprint = job.fingerprint() if store else ""
    spans = [s for n, c in enumerate(corpora) for s in cut_corpus(c, n, fingerprint)]
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


def cut_corpus(corpus: Corpus, number: int, fingerprint: str) -> Iterator[Span]:
    """The parts of a list: each shard, or runs of lines of a raw list. A run ends at a line whose checksum says
    so, so that a line put in changes its own run alone."""
    path = corpus.path
    if corpus.data_type in ("shard", "shard_full_data"):
        for where, tar in read_tar_list(path):
            id = _digest(f"{fingerprint} {tar} {stamp(tar)}".encode())
            yield Span(id, path, tar, number, int(where.rpartition(":")[2]))
        return
    if corpus.data_type != "raw":
        what = f"is {corpus.data_type!r}"
        raise OsumError("--data_type", what, "choose one of raw, shard, shard_full_data")
    if not Path(path).is_file():
        raise OsumError(path, "no such file", "check the path")
    with open(path, "rb") as f:
        first, start, lines = 1, 0, list[bytes]()
        for n, line in enumerate(f, 1):
            lines.append(line)
            if zlib.crc32(line) % _LINES == 0 or len(lines) == 4 * _LINES:
                content = b"".join(lines)
                yield Span(_digest(fingerprint.encode(), content), path, "", number, first, start, len(lines))
                first, start, lines = n + 1, start + len(content), []
        if lines:
            id = _digest(fingerprint.encode(), b"".join(lines))
            yield Span(id, path, "", number, first, start, len(lines))


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
    """Ids and numbers of the parts of ``old`` that are wanted and whose audio files are as they were."""

    def check(n: int) -> bool:
        return all(stamp(path) == was for path, was in old.parts[n]["files"].items())

    numbers = [n for n, part in enumerate(old.parts) if part["id"] in wanted]
    for n, good in zip(numbers, ordered_map(check, numbers, _FILE_CHECKS)):
        if good:
            yield old.parts[n]["id"], n


@contextlib.contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Wait until no other process of this machine makes the same store."""
    with open(store.with_name(f".{store.name}.lock"), "w") as lock:
        with contextlib.suppress(OSError):  # a file system without locks: the last one's store stays
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


_job: Job | None = None  # of a worker process


def _begin(job: Job) -> None:
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    # Otherwise Hugging Face's tokenizers warn in every process that was forked.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _run(span: Span) -> Part:
    assert _job is not None
    return index_part(span, _job)


def index_parts(spans: list[Span], job: Job) -> Generator[Part, None, None]:
    """Index parts, several at a time where there are several and cores for them; in their order."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, len(spans))
    bar = tqdm(total=len(spans), desc="index", unit="part", disable=None)
    try:
        if workers < 2 or multiprocessing.current_process().daemon:
            for span in spans:
                yield index_part(span, job)
                bar.update()
            return
        # A forked worker has the tokenizer already; elsewhere it is built from its pickle.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        pool = ProcessPoolExecutor(workers, context, _begin, (job,))
        pending: deque[Future[Part]] = deque()
        try:
            for span in spans:
                pending.append(pool.submit(_run, span))
                if len(pending) >= 4 * workers:  # not more than memory holds
                    yield pending.popleft().result()
                    bar.update()
            while pending:
                yield pending.popleft().result()
                bar.update()
        except BrokenProcessPool:
            what = "an indexing process was ended from outside"
            raise OsumError("index", what, "see whether memory ran out, then run it again") from None
        finally:
            pool.shutdown(cancel_futures=True)
    finally:
        bar.close()


def read_span(span: Span) -> Iterator[tuple[str, dict[str, Any]]]:
    """``(where, sample)`` of every utterance of a part."""
    if not span.tar:
        yield from read_raw_list(span.path, span.start, span.lines, span.first)
        return
    for sample in index_shard(span.tar):
        yield f"{span.path}:{span.first} {sample['key']}", sample


def index_part(span: Span, job: Job) -> Part:
    """Index the utterances of a part; set aside what cannot be used.

    Raises:
        OsumError: see ``index_corpora``.
    """
    sets: dict[tuple[str, ...], int] = {}
    task_set, frames, sizes, keys, answers = [], [], [], [], list[int]()
    records, skipped, files = [], [], dict[str, list[int] | None]()
    for where, sample in read_span(span):
        key = sample["key"]
        keys.append(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little"))
        if not job.need_answer and re.search("[ \t\r\n]", key):
            what = f"key {key!r:.80} has a blank, tab or line end, which would part it in decoded text"
            raise OsumError(where, what, "rename it")
        _watch(sample, files)
        try:
            length, tokens = measure(sample, where, job)
        except BadUtterance as e:
            skipped.append({"key": key, "cause": e.cause, "detail": e.detail})
            continue
        record = pack_record(sample)
        records.append(record)
        sizes.append(len(record))
        frames.append(round(length))
        answers += tokens.values()
        task_set.append(sets.setdefault(tuple(tokens), len(sets)))
    return Part(
        span.id,
        list(sets),
        np.array(task_set, np.int32),
        np.array(frames, np.int32),
        np.array(answers, np.int32),
        b"".join(records),
        np.array(sizes, np.int64),
        np.array(keys, np.uint64),
        skipped,
        files,
    )


def measure(sample: dict[str, Any], where: str, job: Job) -> tuple[float, dict[str, int]]:
    """The length of an utterance in 10 ms frames, and task -> tokens of its answer (0 where none is needed).

    Raises:
        BadUtterance: it cannot be used.
        OsumError: the list is wrong; says where.
    """
    key, conf = sample["key"], job.conf
    try:
        length = check_length(key, duration_of(sample), conf["filter_conf"])
        names = allowed_tasks(sample, job.table, job.asked, where)
        texts = {name: target_text(sample, job.table[name], conf["time_step"]) for name in names}
        if not job.need_answer:  # what is there must be right all the same
            return length, dict.fromkeys(job.asked or (), 0)
        if not names:
            raise BadUtterance(key, "no_task", "its labels allow none of the tasks asked for")
        lengths = {name: len(job.encode(text)) for name, text in texts.items()}
        return length, {t: lengths[t] for t in fitting(key, lengths, length, conf["filter_conf"])}
    except OsumError as e:
        if e.where != key:
            raise
        raise OsumError(where if where.endswith(f" {key}") else f"{where} {key}", e.what, e.mend) from None


def _watch(sample: dict[str, Any], files: dict[str, list[int] | None]) -> None:
    """Note the file whose header has to be read; a change of it changes the index."""
    if "wav" not in sample or "end" in sample or "duration" in sample or is_pipe(sample["wav"]):
        return
    ark = split_ark(sample["wav"])
    path = ark[0] if ark and not os.path.exists(sample["wav"]) else sample["wav"]
    if path not in files:
        files[path] = stamp(path)


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


def _digest(*contents: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for content in contents:
        digest.update(content)
    return digest.hexdigest()


def _tokenizer_facts(encode: Callable[[str], list[int]]) -> list[Any]:
    """What tells one tokenizer from another: its settings and the content of its files, wherever they lie."""
    owner = getattr(encode, "__self__", encode)
    facts: list[Any] = [type(owner).__name__, encode("Good morning 今天天气好<happy><0.42>")]
    for name, value in sorted(getattr(owner, "__dict__", {}).items()):
        if name == "backend":
            continue
        path = Path(value) if isinstance(value, (str, Path)) else None
        if path and path.is_file():
            facts.append([name, _digest(path.read_bytes())])
        elif path and path.is_dir():
            files = sorted({f for pattern in TOKENIZER_FILES for f in path.glob(pattern)})
            facts.append([name, [[f.name, _digest(f.read_bytes())] for f in files]])
        else:
            facts.append([name, repr(value)])
    return facts
