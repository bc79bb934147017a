"""The table of a list's utterances: where each is, how long, and which tasks it can be asked.

Built once at the start of a run from the list alone (headers, not audio). What cannot be used is set
aside here, before training starts, with its cause.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wenet_osum.dataset.audio import audio_duration
from wenet_osum.dataset.lists import read_raw_list
from wenet_osum.dataset.shard_reader import index_shard, read_tar_list
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.tasks import Task, TaskTable
from wenet_osum.text.normalize import process_text


class Index:
    """Attributes:
    samples: sample dicts (``wav`` a path or pipe, or ``tar``/``offset``/``size`` in its place).
    frames: (N,) int32, 10 ms frames.
    tokens: (N,) int32, of the longest answer among the tasks the utterance may be asked.
    tasks: one tuple of task names an utterance.
    skipped: what was set aside, as ``{"key", "cause", "detail"}``.
    """

    def __init__(self) -> None:
        self.samples: list[dict[str, Any]] = []
        self.tasks: list[tuple[str, ...]] = []
        self.skipped: list[dict[str, str]] = []
        self.frames = np.zeros(0, np.int32)
        self.tokens = np.zeros(0, np.int32)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def hours(self) -> float:
        return float(self.frames.sum()) / 360000


def join_indexes(parts: list[Index]) -> Index:
    """One index over several lists."""
    whole = Index()
    for part in parts:
        whole.samples += part.samples
        whole.tasks += part.tasks
        whole.skipped += part.skipped
    whole.frames = np.concatenate([whole.frames, *(p.frames for p in parts)])
    whole.tokens = np.concatenate([whole.tokens, *(p.tokens for p in parts)])
    return whole


def target_text(sample: dict[str, Any], task: Task, time_step: float) -> str:
    """The text the model is to answer: composed from the labels, or the line's own when it is ready-made.

    Raises:
        BadUtterance: a ready-made ``txt`` is not what the task asks for.
        OsumError: a label that is none.
    """
    if sample.get("task"):
        if problems := task.parse(sample["txt"]).problems:
            what = f"{'; '.join(problems)} in a txt for {task.tag}"
            raise BadUtterance(sample["key"], "bad_answer", what)
        return process_text(sample["txt"])
    return task.compose(task.answer_of(sample), time_step)


def read_samples(data_list: str | Path, data_type: str) -> list[tuple[str, dict[str, Any]]]:
    """``(where, sample)`` of every utterance of a list; ``data_type``: raw, shard or shard_full_data."""
    if data_type == "raw":
        return list(read_raw_list(data_list))
    if data_type not in ("shard", "shard_full_data"):
        raise OsumError("--data_type", f"is {data_type!r}", "choose one of raw, shard, shard_full_data")
    return [(f"{where} {s['key']}", s) for where, tar in read_tar_list(data_list) for s in index_shard(tar)]


def task_weights(conf: dict[str, Any], table: TaskTable) -> dict[str, float]:
    """``conf["task_weights"]`` by task name.

    Raises:
        OsumError: an unknown task, or a weight that is no number from 0 up.
    """
    weights = {}
    for name, weight in conf["task_weights"].items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
            raise OsumError(f"dataset_conf.task_weights.{name}", f"is {weight!r}", "give a number from 0 up")
        weights[table.find(name).name] = float(weight)
    return weights


def audio_source(sample: dict[str, Any]) -> str | bytes:
    """What ``load_audio`` reads: the path or pipe of a list's line, or the bytes at their place in a tar.

    Raises:
        BadUtterance: the tar is gone or ends early.
    """
    if "wav" in sample:
        return sample["wav"]
    try:
        with open(sample["tar"], "rb") as f:
            f.seek(sample["offset"])
            content = f.read(sample["size"])
    except OSError as e:
        raise BadUtterance(sample["key"], "missing", f"{sample['tar']}: {e.strerror}") from None
    if len(content) < sample["size"]:
        raise BadUtterance(sample["key"], "truncated", f"{sample['tar']} ends inside it")
    return content


def duration_of(sample: dict[str, Any]) -> float:
    """Seconds, from the list where it tells, else from the audio's header.

    Raises:
        BadUtterance: the header cannot be read.
    """
    if "end" in sample:
        return float(sample["end"]) - float(sample.get("start", 0))
    if "duration" in sample:
        return float(sample["duration"])
    return audio_duration(audio_source(sample), key=sample["key"]) - float(sample.get("start", 0))


def allowed_tasks(
    sample: dict[str, Any], table: TaskTable, asked: list[str] | None, where: str
) -> tuple[str, ...]:
    """Names of the tasks a sample can be trained on: its own ``task`` tag, or what its labels offer."""
    if sample.get("task"):
        try:
            names = [table.find(sample["task"]).name]
        except OsumError as e:
            raise OsumError(where, f"unknown task {e.where!r:.80}", e.mend) from None
    else:
        names = [t.name for t in table.offered(sample)]
    return tuple(n for n in names if asked is None or n in asked)


def build_index(
    data_list: str | Path,
    data_type: str,
    table: TaskTable,
    encode: Callable[[str], list[int]],
    conf: dict[str, Any],
    asked: list[str] | None = None,
    need_answer: bool = True,
) -> Index:
    """Index a list.

    Args:
        encode: text -> token ids, for the answers' lengths.
        conf: ``dataset_conf``.
        asked: only these tasks; None: the ones with a weight in ``conf["task_weights"]``, or all.
        need_answer: for decoding it is False: an utterance needs no labels, every asked task is put
            to it, and the length filter is left to the caller's ``conf``.
    """
    if asked is None and conf["task_weights"]:
        asked = [name for name, w in task_weights(conf, table).items() if w > 0]
    limits = conf["filter_conf"]
    index, frames, tokens = Index(), [], []
    seen: dict[str, str] = {}
    for where, sample in read_samples(data_list, data_type):
        key = sample["key"]
        if key in seen:
            raise OsumError(
                where, f"utterance {key} is here twice (before at {seen[key]})", "keep one of the two"
            )
        seen[key] = where
        if not need_answer and re.search("[ \t\r\n]", key):
            what = f"key {key!r:.80} has a blank, tab or line end, which would part it in decoded text"
            raise OsumError(where, what, "rename it")
        try:
            n = round(duration_of(sample) * 100)
            if n > limits["max_length"]:
                raise BadUtterance(
                    key, "too_long", f"{n / 100} s, filter_conf.max_length is {limits['max_length'] / 100} s"
                )
            if n < limits["min_length"]:
                raise BadUtterance(
                    key, "too_short", f"{n / 100} s, filter_conf.min_length is {limits['min_length'] / 100} s"
                )
            names, longest = tuple(asked or ()), 0
            if not need_answer:  # what is there must be right all the same
                for t in allowed_tasks(sample, table, asked, where):
                    target_text(sample, table[t], conf["time_step"])
            if need_answer:
                names = allowed_tasks(sample, table, asked, where)
                if not names:
                    raise BadUtterance(key, "no_task", "its labels allow none of the tasks asked for")
                lengths = {t: len(encode(target_text(sample, table[t], conf["time_step"]))) for t in names}
                names = tuple(t for t in names if lengths[t] <= limits["token_max_length"])
                if not names:
                    raise BadUtterance(
                        key,
                        "answer_too_long",
                        f"{min(lengths.values())} tokens, filter_conf.token_max_length "
                        f"is {limits['token_max_length']}",
                    )
                longest = max(lengths[t] for t in names)
        except BadUtterance as e:
            index.skipped.append({"key": key, "cause": e.cause, "detail": e.detail})
            continue
        except OsumError as e:
            if e.where != key:
                raise
            raise OsumError(
                where if where.endswith(f" {key}") else f"{where} {key}", e.what, e.mend
            ) from None
        index.samples.append(sample)
        index.tasks.append(names)
        frames.append(n)
        tokens.append(longest)
    index.frames, index.tokens = np.array(frames, np.int32), np.array(tokens, np.int32)
    return index
