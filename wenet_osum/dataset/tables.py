"""The text files of a Kaldi data dir, one fault at a time.

Reading and validating are the same code: who calls says what happens at a fault (stop, or collect
it and go on), so that the validator can never be of another opinion than the reader.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from wenet_osum.errors import OsumError

MAX_SECONDS = 1e8  # three years; a number beyond it is no time in a recording


class Fault(NamedTuple):
    """Something the user has to mend.

    Attributes:
        where: ``file:line``, or the file or dir.
        what: what is wrong there.
        mend: what to do about it.
    """

    where: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.mend}"


OnFault = Callable[[Fault], None]


def stop(fault: Fault) -> NoReturn:
    """An ``OnFault`` that stops at the first fault.

    Raises:
        OsumError: always.
    """
    raise OsumError(*fault)


class Entry(NamedTuple):
    """A line of a table: its number from 1, and what stands after the id."""

    line: int
    value: str


class TimedWord(NamedTuple):
    """A line of a ctm: its number from 1; start and end in seconds from the utterance's start."""

    line: int
    start: float
    end: float
    word: str


class Table(dict[str, Entry]):
    """A file of ``id value`` lines: id -> Entry, in the order of the file."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def where(self, key: str) -> str:
        """``file:line`` of an id."""
        return f"{self.path}:{self[key].line}"


def read_rows(path: Path, on_fault: OnFault) -> Iterator[tuple[int, str]]:
    """Yield ``(line number from 1, line)`` of a UTF-8 file; lines that are blank or not UTF-8 are faults."""
    n = 0
    with open(path, "rb") as f:
        for n, raw in enumerate(f, 1):
            where = f"{path}:{n}"
            if n == 1 and raw.startswith(b"\xef\xbb\xbf"):
                on_fault(Fault(where, "begins with a byte-order mark", "save the file as UTF-8 without BOM"))
                raw = raw[3:]
            try:
                line = raw.decode("utf-8").strip(" \t\r\n")
            except UnicodeDecodeError as e:
                on_fault(Fault(where, f"not UTF-8 (byte {e.start + 1})", "convert with iconv -t utf-8"))
                continue
            if line:
                yield n, line
            else:
                on_fault(Fault(where, "blank line", "remove it"))
    if not n:
        on_fault(Fault(str(path), "empty file", "fill it, or remove it if nothing is known"))


def split_row(line: str) -> tuple[str, str]:
    """Split ``id value`` at the first run of blanks and tabs; the value may be empty.

    Only these two part the fields: an id or transcript may hold other white space, such as U+3000.
    """
    key, *value = re.split("[ \t]+", line, maxsplit=1)
    return key, value[0] if value else ""


def read_table(path: Path, on_fault: OnFault, need_value: bool = True) -> Table:
    """Read ``id value`` lines; an id that comes twice and (``need_value``) one without value are faults."""
    table = Table(path)
    for n, line in read_rows(path, on_fault):
        key, value = split_row(line)
        if key in table:
            on_fault(Fault(f"{path}:{n}", f"id {key} again (first in line {table[key].line})", "remove one"))
        elif need_value and not value:
            on_fault(Fault(f"{path}:{n}", f"no value after id {key}", "add it, or remove the line"))
        else:
            table[key] = Entry(n, value)
    return table


def read_ctm(path: Path, on_fault: OnFault) -> dict[str, list[TimedWord]]:
    """Read ``utterance channel start duration word [confidence]`` lines, seconds; ``;;`` begins a comment.

    Silences (``<eps>``) are left out.

    Returns:
        utterance id -> its words in the order of the file.
    """
    words: dict[str, list[TimedWord]] = {}
    for n, line in read_rows(path, on_fault):
        if line.startswith(";;"):
            continue
        parts = line.split()
        if len(parts) not in (5, 6):
            on_fault(
                Fault(
                    f"{path}:{n}",
                    f"{len(parts)} fields",
                    "write `utterance channel start duration word`",
                )
            )
            continue
        key, _, start, duration, word = parts[:5]
        begin, length = parse_seconds(start), parse_seconds(duration)
        if begin is None or length is None or begin < 0 or length < 0:
            on_fault(
                Fault(f"{path}:{n}", f"start {start}, duration {duration}", "give both as seconds from 0 up")
            )
            continue
        # Sums such as 0.1 + 0.2 would put their rounding error into every list.
        if word != "<eps>":
            words.setdefault(key, []).append(TimedWord(n, begin, round(begin + length, 6), word))
    return words


def parse_seconds(text: str) -> float | None:
    """A number of seconds that can be a time in a recording, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) <= MAX_SECONDS else None
