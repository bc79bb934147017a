"""Raw lists: one JSON object a line, as WeNet and OSUM have them.

A sample that has no ``txt`` (nobody wrote down what is said) is not one whose ``txt`` is ``""``
(nothing is said). WeNet wants a ``txt`` in every line, so the former is written as ``""`` with
``"untranscribed": true`` beside it, and read back without ``txt``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wenet_osum.dataset.kaldi import Sample
from wenet_osum.dataset.tables import MAX_SECONDS
from wenet_osum.errors import OsumError
from wenet_osum.fileio import atomic_write, read_lines

UNTRANSCRIBED = "untranscribed"

# WeNet's keys first, in its order; what is not here follows in the order of its name.
_STRINGS = ("speaker", "lang", "task", "event", "emotion", "style", "gender", "age", "reply", "question")
_RANK = {
    name: i for i, name in enumerate(("key", "wav", "txt", "start", "end", "duration", *_STRINGS, "align"))
}
_NUMBERS = ("start", "end", "duration")


def to_record(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample as written: its keys in the order of lists, and always a ``txt``."""
    record = {name: sample[name] for name in sorted(sample, key=lambda n: (_RANK.get(n, len(_RANK)), n))}
    if "txt" in record:
        return record
    head = {"key": record.pop("key"), "wav": record.pop("wav"), "txt": ""}
    return {**head, **record, UNTRANSCRIBED: True}


def from_record(record: Mapping[str, Any]) -> Sample:
    """The inverse of ``to_record``; what is null is left out."""
    sample = {name: value for name, value in record.items() if value is not None}
    if sample.pop(UNTRANSCRIBED, False):
        sample.pop("txt", None)
    return sample


def write_raw_list(samples: Iterable[Mapping[str, Any]], path: str | Path) -> int:
    """Write a raw list; the file is whole or not there.

    Returns:
        how many lines it has.

    Raises:
        OsumError: a sample that cannot be written (naming its key), or a key that comes twice.
    """
    keys: set[str] = set()
    with atomic_write(path) as f:
        for sample in samples:
            record = to_record(sample)
            problem = find_problem(record)
            key = record.get("key")
            if not problem and key in keys:
                problem = "key", "comes twice"
            if problem:
                raise OsumError(f"{path}: {key}", " ".join(problem), "mend the data the list is made of")
            keys.add(record["key"])
            f.write(dump_json(record, f"{path}: {key}") + "\n")
    return len(keys)


def read_raw_list(
    path: str | Path, start: int = 0, count: int | None = None, first: int = 1
) -> Iterator[tuple[str, Sample]]:
    """Yield ``(file:line, sample)`` of a raw list, WeNet's, OSUM's or our own; of a part of it as
    ``read_lines`` takes it.

    Keys that are not known are kept as they are; optional ones that are null are left out; blank
    lines are passed over.

    Raises:
        OsumError: file and line of anything malformed.
    """
    for n, line in read_lines(path, start, count, first):
        if not line.strip():
            continue
        where = f"{path}:{n}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as e:  # ValueError: also a number of thousands of digits
            at = f" at column {e.colno}" if isinstance(e, json.JSONDecodeError) else ""
            if line.startswith("\ufeff"):
                at = ": a byte-order mark before it"
            raise OsumError(where, f"malformed JSON{at}", "write one JSON object a line") from None
        if not isinstance(record, dict):
            raise OsumError(where, "not a JSON object", 'write {"key": ..., "wav": ..., "txt": ...}')
        problem = find_problem(record)
        if problem:
            raise OsumError(where, " ".join(problem), "mend or remove the line")
        if "\\u" in line:  # only an escape can write one
            check_surrogates(record, where)
        yield where, from_record(record)


def check_surrogates(value: Any, where: str) -> None:
    """Refuse half a surrogate pair, which JSON can write and no text file can hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as e:
        what = f"half a surrogate pair, \\u{ord(e.object[e.start]):04x}"
        raise OsumError(where, what, "write the whole character") from None


def dump_json(value: Any, where: str) -> str:
    """JSON in one line, Chinese as it is.

    Raises:
        OsumError: what JSON or UTF-8 does not have (NaN, lone surrogates).
    """
    try:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False)
        line.encode("utf-8")
    except (ValueError, TypeError) as e:  # UnicodeEncodeError is a ValueError
        raise OsumError(where, f"cannot be written: {e}", "mend the data it is made of") from None
    return line


def find_problem(record: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first key that is amiss, and how; None if all is well."""
    for name in ("key", "wav", "txt"):
        if name not in record:
            return name, "is missing"
        if not isinstance(record[name], str):
            return name, f"is {record[name]!r:.80} and should be a string"
        if not record[name].strip() and name != "txt":
            return name, "is empty"
    for name in _STRINGS:
        if not isinstance(record.get(name) or "", str):
            return name, f"is {record[name]!r:.80} and should be a string"
    for name in _NUMBERS:
        value = record.get(name)
        if value is not None and not (_is_number(value) and value >= 0):
            return name, f"is {value!r:.80} and should be seconds from 0 up"
    start, end = record.get("start") or 0, record.get("end")
    if end is not None and end <= start:
        return "end", f"is {end} and should be after the start, {start}"
    align = record.get("align")
    if align is not None and not (isinstance(align, list) and all(map(_is_timed_word, align))):
        return "align", "should be a list of [start, end, word]"
    return None


def _is_number(value: Any) -> bool:
    # False for NaN, and for what is beyond any time.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_SECONDS


def _is_timed_word(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and _is_number(value[0])
        and _is_number(value[1])
        and isinstance(value[2], str)
    )
