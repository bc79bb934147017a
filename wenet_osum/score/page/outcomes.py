"""Each utterance of a task: its answer, and what that adds to the task's figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wenet_osum.score.edits import count_edits
from wenet_osum.score.figure import Figure
from wenet_osum.score.score import language_of
from wenet_osum.tasks import Answer, Task
from wenet_osum.text.normalize import split_words

Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """An utterance and what one task's answer to it was worth.

    Attributes:
        number: its place among the task's utterances. raw: the answer as decoded; None where there is none.
        adds: its row of the task's `figure.Figure`: for transcripts errors and reference tokens, for timed words
            the sum of shifts (seconds) and twice the words aligned, else 1 or 0 for right or wrong, and 1.
    """

    task: Task
    number: int
    sample: Sample
    raw: str | None
    adds: tuple[float, float]

    @property
    def key(self) -> str:
        return self.sample["key"]

    @property
    def language(self) -> str:
        return language_of(self.sample)

    @property
    def seconds(self) -> float | None:
        return seconds_of(self.sample)

    @cached_property
    def ref(self) -> Answer:
        return self.task.answer_of(self.sample)

    @cached_property
    def hyp(self) -> Answer | None:
        """The parsed answer."""
        return None if self.raw is None else self.task.parse(self.raw)

    @cached_property
    def badness(self) -> tuple[float, ...]:
        """Compares utterances: the worst one has the largest. The first number is 0 where nothing is wrong."""
        over, under = self.adds
        if self.task.align:
            return (over / under,) if under else (float("inf"),)
        if self.task.reply:
            # Asked of every utterance, so `ref` and `hyp`, which are large, are not kept.
            wanted = self.task.answer_of(self.sample).reply or ""
            given = self.task.parse(self.raw or "").reply or ""
            return (0 if over else max(1, sum(count_edits(split_words(wanted), split_words(given)))),)
        if self.task.fields:
            return (1 - over,)
        return over, over / max(1, under)

    @property
    def tokens(self) -> float:
        """Of the reference's transcript."""
        plain = not (self.task.align or self.task.reply or self.task.fields)
        # asked of every utterance, so `ref` is not kept
        return self.adds[1] if plain else float(len(split_words(self.task.answer_of(self.sample).text or "")))


def outcomes(
    task: Task, samples: Iterable[Sample], decoded: Mapping[str, str], figure: Figure
) -> Sequence[Outcome]:
    """One outcome for every sample that supports the task, in their order; ``figure`` is the task's (``value`` of
    `score.score_tree`)."""
    rows = [tuple(row) for row in figure.rows.tolist()]
    asked = (sample for sample in samples if task.supported_by(sample))
    return [
        Outcome(task, n, sample, decoded.get(sample["key"]), rows[kind])
        for n, (sample, kind) in enumerate(zip(asked, figure.kinds.tolist(), strict=True))
    ]


def seconds_of(sample: Sample) -> float | None:
    """How long an utterance is, where its data tell without a look at the audio."""
    if sample.get("duration"):
        return float(sample["duration"])
    end = sample.get("end")
    return None if end in (None, -1) else float(end) - float(sample.get("start") or 0)  # type: ignore[arg-type]
