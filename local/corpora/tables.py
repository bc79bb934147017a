"""Reading the files of a corpus: whatever is wrong with one is told by file and line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wenet_osum.errors import OsumError
from wenet_osum.fileio import read_lines

_MEND = "get the corpus again, or check that the folder is the right one"


def read_pairs(path: Path, sep: str | None = None) -> Iterator[tuple[str, str, str]]:
    """Yield ``(file:line, first field, rest)`` of every line that is not blank.

    Args:
        sep: between the two; None: any run of white space. The rest comes without white space around it.

    Raises:
        OsumError: no such file, a line that is not UTF-8, or one without a second field.
    """
    for n, line in read_lines(path):
        if not line.strip():
            continue
        key, *rest = line.strip().split(sep, 1)
        if not key or not rest or not rest[0].strip():
            raise OsumError(f"{path}:{n}", f"cannot read {line!r:.80}", _MEND)
        yield f"{path}:{n}", key, rest[0].strip()


def read_columns(
    path: Path, columns: Iterable[str], sep: str = ",", quotes: bool = True
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ``(file:line, column -> value)`` of a table whose first line names the columns.

    Args:
        columns: those that must be there; the others come too.
        sep: ``","`` or tab.
        quotes: whether a value in ``"..."`` may hold separators and line ends; else a quote is a character.

    Raises:
        OsumError: no such file, not UTF-8, a column that is not there, or a line with too few or too many.
    """

    def lines() -> Iterator[str]:
        for n, line in read_lines(path):
            yield (line.removeprefix("\ufeff") if n == 1 else line) + "\n"

    style = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    reader = csv.reader(lines(), delimiter=sep, quoting=style, strict=quotes)
    names: list[str] | None = None
    try:
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if names is None:
                names = row
                if lacking := [c for c in columns if c not in names]:
                    raise OsumError(where, f"no column {', '.join(lacking)}", _MEND)
            elif row and len(row) != len(names):
                raise OsumError(where, f"{len(row)} fields, and the first line has {len(names)}", _MEND)
            elif row:
                yield where, dict(zip(names, row))
    except csv.Error as e:
        raise OsumError(f"{path}:{reader.line_num}", f"cannot read it ({e})", _MEND) from None
    if names is None:
        raise OsumError(str(path), "empty file", _MEND)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OsumError: no such file, or no JSON.
    """
    if not path.is_file():
        raise OsumError(str(path), "no such file", "check the path")
    try:
        return json.loads(path.read_bytes())
    except ValueError as e:
        raise OsumError(str(path), f"no JSON ({e})", _MEND) from None
