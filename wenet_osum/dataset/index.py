"""The table of a run's utterances: how long each is, which tasks it can be asked, and where its record lies.

Made by ``index_build`` from lists (headers, not audio); numbers are flat columns, records are decoded on
demand, so that a million utterances take some tens of megabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from wenet_osum.dataset.audio import audio_duration
from wenet_osum.dataset.filter import check_answer
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.tasks import Task, TaskTable
from wenet_osum.text.normalize import process_text


class TaskSets(Sequence[tuple[str, ...]]):
    """The tasks of each utterance, kept as the number of one of a few sets.

    Attributes:
        sets: the distinct ones. number: (N,) which of them an utterance has.
    """

    def __init__(self, sets: Sequence[tuple[str, ...]], number: np.ndarray):
        self.sets, self.number = list(sets), number

    def __len__(self) -> int:
        return len(self.number)

    def __getitem__(self, row: Any) -> Any:
        return self.sets[self.number[row]]

    def groups(self, rows: np.ndarray) -> Iterable[tuple[tuple[str, ...], np.ndarray]]:
        """The sets that ``rows`` have, each with the places in ``rows`` where it is."""
        number = self.number[rows]
        for n in np.unique(number):
            yield self.sets[n], np.flatnonzero(number == n)


class Index:
    """Columns over N utterances.

    Attributes:
        samples: sample dicts (``wav`` a path or pipe, or ``tar``/``offset``/``size`` in its place).
        frames: (N,) int32, 10 ms frames.
        tasks: the tasks each utterance may be asked.
        starts, answers: the tokens of an answer to task ``tasks[row][slot]`` are ``answers[starts[row] + slot]``.
        tokens: (N,) int32, of the longest answer.
        corpus: (N,) number of the corpus it belongs to. weights: how often an epoch takes each corpus.
        block: (N,) its shard or run of list lines: what lies near together.
        skipped: what was set aside, as ``{"key", "cause", "detail"}``.
    """

    def __init__(
        self,
        samples: Sequence[dict[str, Any]],
        frames: np.ndarray,
        tasks: TaskSets,
        starts: np.ndarray,
        answers: np.ndarray,
        corpus: np.ndarray,
        block: np.ndarray,
        weights: Sequence[float] = (1.0,),
        skipped: Sequence[dict[str, str]] = (),
    ):
        self.samples, self.frames, self.tasks = samples, frames, tasks
        self.starts, self.answers = starts, answers
        self.corpus, self.block, self.weights = corpus, block, tuple(weights)
        self.skipped = list(skipped)
        self.tokens = np.zeros(len(frames), np.int32)
        for names, at in tasks.groups(np.arange(len(frames))):
            for slot in range(len(names)):
                self.tokens[at] = np.maximum(self.tokens[at], answers[starts[at] + slot])

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def hours(self) -> float:
        return float(self.frames.sum(dtype=np.int64)) / 360000

    def tokens_for(self, rows: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """(n,) answer tokens of ``rows``, each asked the task at its place in ``tasks[row]``."""
        return self.answers[self.starts[rows] + slots]

    def asking(self, tasks: TaskSets) -> Index:
        """The utterances that ``tasks`` has any for, each asked all of its own, whose answers need not be known:
        for decoding. ``tasks`` has a set, which may be empty, for each utterance."""
        sizes = np.array([len(names) for names in tasks.sets], np.int64)[tasks.number]
        keep = np.flatnonzero(sizes)
        sizes = sizes[keep]
        return Index(
            Chosen(self.samples, keep),
            self.frames[keep],
            TaskSets(tasks.sets, tasks.number[keep]),
            np.cumsum(sizes) - sizes,
            np.zeros(int(sizes.sum()), np.int32),
            self.corpus[keep],
            self.block[keep],
            self.weights,
            self.skipped,
        )


class Chosen(Sequence[Any]):
    """The ``rows`` of a sequence, taken when they are asked for."""

    def __init__(self, of: Sequence[Any], rows: np.ndarray):
        self._of, self._rows = of, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[n] for n in range(*i.indices(len(self)))]
        return self._of[int(self._rows[i])]


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


def fitting(key: str, lengths: dict[str, int], frames: float, limits: dict[str, Any]) -> tuple[str, ...]:
    """The tasks whose answers, of so many tokens, ``filter_conf`` lets through.

    Raises:
        BadUtterance: there is none; with the cause of the last.
    """
    names, last = [], None
    for name, tokens in lengths.items():
        try:
            check_answer(key, tokens, frames, limits)
            names.append(name)
        except BadUtterance as e:
            last = e
    if last and not names:
        raise last
    return tuple(names)
