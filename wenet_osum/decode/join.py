"""One answer out of those to the pieces of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from wenet_osum.tasks.answer import Answer, Word
from wenet_osum.tasks.label_field import LabelField
from wenet_osum.tasks.task import Task
from wenet_osum.text.normalize import join_words

Probabilities = dict[str, dict[str, float]]  # label field -> value -> probability


@dataclass
class Part:
    """The answer to a piece: its place in the recording in seconds, what was parsed (times from the piece's
    start), and the probabilities of its labels if there are any."""

    start: float
    end: float
    answer: Answer
    probabilities: Probabilities = field(default_factory=dict)


@dataclass
class Segment:
    """A row of subtitles: what a piece holds, times in the recording."""

    start: float
    end: float
    text: str
    labels: dict[str, str]


@dataclass
class Joined:
    """The answer to a recording, its times from the recording's start; the mean probabilities of its labels;
    and what it was joined from."""

    answer: Answer
    probabilities: Probabilities
    segments: list[Segment]


def join(parts: Sequence[Part], task: Task) -> Joined:
    """Join the answers to a recording's pieces.

    Texts and replies are joined by ``join_words``: a blank, but none beside a Chinese character. A timed word is
    moved to the recording's time (2 decimals), at most to the start of the next piece, so that starts never go
    back. The answer to a single piece is otherwise left as it is. A label is the one with the highest mean probability, pieces weighed by their seconds; a label without
    probabilities counts as certain, so that without any the majority of seconds wins; on a tie the one that comes
    first in the task's table. Problems are kept with the piece's time in front.

    Args:
        parts: in order, without overlap; none for a recording that is silent, which is then the answer's problem.
    """
    rows = [
        Segment(round(p.start, 2), round(p.end, 2), p.answer.text or "", dict(p.answer.labels)) for p in parts
    ]
    if len(parts) == 1:
        answer = replace(parts[0].answer, words=_words(parts) if task.align else None)
        return Joined(answer, parts[0].probabilities, rows)
    answer = Answer(
        problems=[f"{p.start:.2f}-{p.end:.2f} s: {what}" for p in parts for what in p.answer.problems]
    )
    if not parts:
        answer.problems = ["nothing but silence"]
    if task.transcript:
        answer.text = join_words([p.answer.text or "" for p in parts])
    if task.align:
        answer.words = _words(parts)
    replies = [p.answer.reply for p in parts if p.answer.reply]
    if task.reply and replies:
        answer.reply = join_words(replies)
    means: Probabilities = {}
    for f in task.fields:
        if mean := _mean(parts, f):
            answer.labels[f.name] = max(f.values, key=lambda value: mean.get(value, 0.0))
            if any(p.probabilities.get(f.name) for p in parts):
                means[f.name] = mean
    return Joined(answer, means, rows)


def _words(parts: Sequence[Part]) -> list[Word]:
    nexts = [p.start for p in parts[1:]] + [float("inf")]
    return [
        Word(
            round(min(part.start + word.start, limit), 2),
            round(min(part.start + word.end, limit), 2),
            word.word,
        )
        for part, limit in zip(parts, nexts)
        for word in part.answer.words or []
    ]


def _mean(parts: Sequence[Part], label: LabelField) -> dict[str, float]:
    """Value -> mean probability over the pieces that have the label, weighed by seconds; empty if none has."""
    total = 0.0
    sums: dict[str, float] = {}
    for part in parts:
        value = part.answer.labels.get(label.name)
        shares = part.probabilities.get(label.name) or ({} if value is None else {value: 1.0})
        if shares:
            seconds = part.end - part.start
            total += seconds
            for name, share in shares.items():
                sums[name] = sums.get(name, 0.0) + seconds * share
    return {name: share / total for name, share in sums.items()}
