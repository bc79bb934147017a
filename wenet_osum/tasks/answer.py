"""What a task is answered with, apart from how the answer is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Word(NamedTuple):
    """A word (or one Chinese character) and when it is said, in seconds from the utterance's start."""

    start: float
    end: float
    word: str


@dataclass
class Answer:
    """The parts of an answer; a part the task does not have is None (labels: an empty dict).

    Attributes:
        text: the transcript, as ``process_text`` leaves it; ``""`` when nothing is said.
        labels: label field name -> value, e.g. ``{"emotion": "happy"}``.
        words: the timed words of an aligned transcript.
        reply: the answer to a spoken question.
        problems: what a parser found wrong, one short string each; empty when all is well.
    """

    text: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    words: list[Word] | None = None
    reply: str | None = None
    problems: list[str] = field(default_factory=list)
