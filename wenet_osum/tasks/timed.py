"""Timed words as text: ``<start>word<end>`` for every word or Chinese character, in seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from wenet_osum.errors import OsumError
from wenet_osum.tasks.answer import Word
from wenet_osum.text.normalize import process_text

_TIME = "[0-9]{1,6}(?:\\.[0-9]+)?"  # OSUM's ends have no trailing zeros: <0.2>
_IS_TIME = re.compile(_TIME)
_TIMED_WORD = re.compile(f"<({_TIME})>([^<>]+)<({_TIME})>")


def is_time(mark: str) -> bool:
    """Whether the inside of a ``<mark>`` is a time."""
    return _IS_TIME.fullmatch(mark) is not None


def snap(words: Iterable[Word], time_step: float, where: str) -> list[Word]:
    """Bring words and times to the form they have in an answer.

    Args:
        words: in order of their starts; neighbours may overlap.
        time_step: times are rounded to multiples of it; a multiple of 0.01 s.
        where: the utterance or task, for errors.

    Raises:
        OsumError: a time or a word that cannot be written, or starts that go back.
    """
    step = round(time_step * 100) if math.isfinite(time_step) else 0
    if step < 1 or not math.isclose(step, time_step * 100):
        raise OsumError(where, f"time step {time_step} s", "use a multiple of 0.01 s")

    def rounded(seconds: float) -> float:
        if not (math.isfinite(seconds) and 0 <= seconds < 999_999):
            raise OsumError(where, f"{seconds} s is no time in an utterance", "use seconds from its start")
        return round(seconds * 100 / step) * step / 100

    snapped: list[Word] = []
    for start, end, raw in words:
        word = process_text(raw)
        if not word or len(raw.split()) > 1 or "<" in word or ">" in word:
            raise OsumError(where, f"{raw!r} is not one word", "no blanks, '<' or '>' in a timed word")
        if end < start or (snapped and rounded(start) < snapped[-1].start):
            raise OsumError(where, f"the times of {raw!r} go back ({start} to {end})", "order them by start")
        snapped.append(Word(rounded(start), rounded(end), word))
    return snapped


def format_words(words: Iterable[Word]) -> str:
    """Write snapped words, e.g. ``<0.00>hello<0.42>``."""
    return "".join(f"<{start:.2f}>{word}<{end:.2f}>" for start, end, word in words)


def parse_words(text: str) -> tuple[list[Word], list[str]]:
    """Read timed words out of normalised text.

    Returns:
        the words that are well formed, and what is wrong with the rest.
    """
    words: list[Word] = []
    problems: list[str] = []
    at = 0
    for match in _TIMED_WORD.finditer(text):
        if match.start() > at:
            problems.append(f"not a timed word: {text[at : match.start()]!r}")
        at = match.end()
        start, word, end = float(match[1]), match[2], float(match[3])
        if " " in word:
            problems.append(f"more than one word between times: {match[0]!r}")
        elif end < start or (words and start < words[-1].start):
            problems.append(f"times go back: {match[0]!r}")
        else:
            words.append(Word(start, end, word))
    if at < len(text):
        problems.append(f"not a timed word: {text[at:]!r}")
    return words, problems
