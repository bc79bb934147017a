"""Index the parts of lists, several at a time in processes of their own."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from wenet_osum.dataset.filter import check_length
from wenet_osum.dataset.index import allowed_tasks, duration_of, fitting, target_text
from wenet_osum.dataset.index_store import Part, pack_record, stamp
from wenet_osum.dataset.lists import read_raw_list
from wenet_osum.dataset.shard_reader import index_shard
from wenet_osum.dataset.sources import is_pipe, split_ark
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.tasks import TaskTable


class Span(NamedTuple):
    """Where a part is: lines of a raw list from byte ``start`` on, or a shard that line ``first`` names.

    Attributes:
        id: of its content, and of all else that its index depends on.
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


_job: Job | None = None  # of a worker process


def _end_with(parent: int) -> None:
    """A process of a pool waits for ever for a parent that was killed; this one ends with it."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _begin(job: Job) -> None:
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
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
        np.array(sizes, np.int32),
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
