"""What was heard in a recording, written as text, JSON, subtitles (SubRip, WebVTT) or a Kaldi CTM.

Every writer takes a ``Transcript`` and gives whole lines; nothing here opens a file.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from wenet_osum.decode.join import Segment
from wenet_osum.errors import OsumError
from wenet_osum.tasks.answer import Answer, Word
from wenet_osum.tasks.task import Task
from wenet_osum.text.normalize import join_words, split_words

# A subtitle row: what one line of a screen holds (a Chinese character is two wide), for as long as one reads it.
ROW_WIDTH = 42
ROW_SECONDS = 7.0
PAUSE = 0.3  # seconds without a word that end a row


@dataclass
class Heard:
    """The answer to one task for a whole recording.

    Attributes:
        raw: the composed answer, e.g. ``"what a day<happy>"``.
        answer: its parts; times are the recording's.
        probabilities: label field -> value -> probability.
        segments: the pieces it was cut into, in order; times are the recording's.
    """

    raw: str
    answer: Answer
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)


@dataclass
class Transcript:
    """What became of one recording.

    Attributes:
        file: its path as it was given. name: the same without folder and suffix; an id, and the stem of its output.
        duration: seconds.
        tasks: task name -> what was heard, in the order asked; empty when there is an error.
        error: why there is no answer, else None.
    """

    file: str
    name: str
    duration: float = 0.0
    tasks: dict[str, Heard] = field(default_factory=dict)
    error: OsumError | None = None


Writer = Callable[[Transcript], str]


def one_line(text: str) -> str:
    """Tabs, line ends and runs of blanks as one blank."""
    return " ".join(text.split())


def text(done: Transcript, with_file: bool = False, with_task: bool = False) -> str:
    """A line for each task: ``file<TAB>task<TAB>answer``; a column that says nothing new is left out by the caller."""
    lines = []
    for name, heard in done.tasks.items():
        columns = [done.file] * with_file + [name] * with_task + [heard.raw]
        lines.append("\t".join(map(one_line, columns)) + "\n")
    return "".join(lines)


def as_json(done: Transcript) -> str:
    """One object on one line: ``file``, ``duration``, and ``tasks`` or ``error``."""
    if done.error is not None:
        error = {"what": done.error.what, "mend": done.error.mend}
        return _dump({"file": done.file, "error": error})
    tasks = {name: _task_object(heard) for name, heard in done.tasks.items()}
    return _dump({"file": done.file, "duration": round(done.duration, 3), "tasks": tasks})


def _task_object(heard: Heard) -> dict[str, Any]:
    answer = heard.answer
    words = None if answer.words is None else [w._asdict() for w in answer.words]
    segments = [
        {"start": s.start, "end": s.end, "text": s.text} | ({"labels": s.labels} if s.labels else {})
        for s in heard.segments
    ]
    return {
        "text": answer.text,
        "labels": answer.labels,
        "probabilities": {
            f: {v: round(p, 6) for v, p in of.items()} for f, of in heard.probabilities.items()
        },
        "words": words,
        "reply": answer.reply,
        "problems": answer.problems,
        "segments": segments,
    }


def _dump(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def ctm(done: Transcript) -> str:
    """Kaldi's ``name channel start duration word`` for every word of the first task that has times; seconds."""
    words = next((h.answer.words for h in done.tasks.values() if h.answer.words is not None), [])
    name = re.sub(r"\s+", "_", done.name).encode(errors="replace").decode()  # a file's name may be no UTF-8
    lines = []
    for start, end, word in words:
        if word := "_".join(word.split()):  # blanks part the columns
            lines.append(f"{name} 1 {start:.2f} {end - start:.2f} {word}\n")
    return "".join(lines)


def srt(done: Transcript) -> str:
    """SubRip. It has no escapes: the arrow that separates its times becomes ``->`` in a text."""
    cues = []
    for n, (start, end, line) in enumerate(subtitles(done), 1):
        line = line.replace("-->", "->")
        cues.append(f"{n}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{line}\n")
    return "\n".join(cues)


def vtt(done: Transcript) -> str:
    """WebVTT (W3C): ``&``, ``<`` and ``>`` of a text are escaped."""
    cues = [
        f"\n{_clock(start, '.')} --> {_clock(end, '.')}\n{html.escape(line, quote=False)}\n"
        for start, end, line in subtitles(done)
    ]
    return "WEBVTT\n" + "".join(cues)


def _clock(ms: int, point: str) -> str:
    seconds, ms = divmod(ms, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{ms:03d}"


def subtitles(done: Transcript) -> list[tuple[int, int, str]]:
    """Rows to show: from the words of the first task that has times, else from the segments of the first one
    with a transcript, whose words are spread over their segment by their length.

    Returns:
        (start, end, text), times in whole ms: each row ends after it starts and not after the next one starts.
    """
    timed = next((h.answer.words for h in done.tasks.values() if h.answer.words), None)
    if timed:
        found = rows(timed)
    else:
        spoken = (h.segments for h in done.tasks.values() if h.answer.text is not None)
        found = [row for s in next(spoken, []) for row in rows(_spread(s))]
    shown: list[tuple[int, int, str]] = []
    for start, end, line in found:
        first = max(round(start * 1000), 0)
        if shown and shown[-1][1] > first:  # neighbours overlap: the earlier row makes way, if it can
            before, _, earlier = shown[-1]
            shown[-1] = (before, max(first, before + 1), earlier)
            first = max(first, before + 1)
        shown.append((first, max(round(end * 1000), first + 1), line))
    return shown


def rows(words: Iterable[Word]) -> list[tuple[float, float, str]]:
    """Words gathered to rows of at most ``ROW_WIDTH`` and ``ROW_SECONDS``, ended by a ``PAUSE``; a word that is
    longer has a row to itself."""
    found: list[list[Word]] = []
    for word in words:
        word = word._replace(word=one_line(word.word))
        if not word.word:
            continue
        row = found[-1] if found else []
        if (
            not row
            or word.start - max(w.end for w in row) >= PAUSE
            or max(w.end for w in [*row, word]) - row[0].start > ROW_SECONDS
            or width(join_words([w.word for w in [*row, word]])) > ROW_WIDTH
        ):
            found.append([word])
        else:
            row.append(word)
    return [(row[0].start, max(w.end for w in row), join_words([w.word for w in row])) for row in found]


def width(line: str) -> int:
    """Columns on a screen: a Chinese character takes two."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in line)


def _spread(segment: Segment) -> list[Word]:
    """The words of a segment, one behind the other, each with a share of its time that goes by its width."""
    words = split_words(segment.text)
    whole, at, timed = sum(map(width, words)), 0, []
    span = max(0.0, segment.end - segment.start)
    for word in words:
        start, at = segment.start + span * at / whole, at + width(word)
        timed.append(Word(start, segment.start + span * at / whole, word))
    return timed


# Format -> the writer, and the suffix of its files.
FORMATS: dict[str, tuple[Writer, str]] = {
    "text": (text, "txt"),
    "json": (as_json, "json"),
    "srt": (srt, "srt"),
    "vtt": (vtt, "vtt"),
    "ctm": (ctm, "ctm"),
}


def check_formats(formats: Iterable[str], tasks: Collection[Task]) -> None:
    """Whether the answers to ``tasks`` can be written so.

    Raises:
        OsumError: an unknown format, or one that needs a task which is not asked.
    """
    for name in formats:
        if name not in FORMATS:
            raise OsumError(f"--format {name}", "unknown format", f"choose among {', '.join(FORMATS)}")
        if name == "ctm" and not any(task.align for task in tasks):
            raise OsumError("--format ctm", "needs the times of words", "ask for them: --task srwt")
        if name in ("srt", "vtt") and not any(task.transcript for task in tasks):
            raise OsumError(
                f"--format {name}", "no task with a transcript is asked", "add --task asr or srwt"
            )
