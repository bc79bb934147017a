"""What a command line names: files, folders and standard input as one list of recordings."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from wenet_osum.dataset.shards import AUDIO_SUFFIXES
from wenet_osum.dataset.sources import is_pipe
from wenet_osum.errors import BadUtterance, OsumError

STDIN = "-"
# What counts as audio in a folder; a file that is named itself is tried whatever it is called.
SUFFIXES = AUDIO_SUFFIXES | {"aac", "aif", "aiff", "au", "caf", "oga", "sph", "w64"}


@dataclass(frozen=True)
class Recording:
    """One recording.

    Attributes:
        file: its path as it is shown; bytes that are no UTF-8 are replaced.
        path: its path, or ``-``.
        name: folder-free and suffix-free, the stem of its output files; below a folder that was given, the path
            from there.
    """

    file: str
    path: str
    name: str


def find_recordings(paths: Sequence[str]) -> tuple[list[Recording], list[str]]:
    """Recordings in the order of ``paths``; those of a folder, and of all folders in it, by name.

    Links to folders are not followed. Whether a file that is named itself is there, and is audio, shows when it
    is read.

    Returns:
        the recordings, and a line for each folder that also has other files: how many of which suffix.

    Raises:
        OsumError: standard input is named twice, or there is no recording.
        OSError: a folder that cannot be read.
    """
    if paths.count(STDIN) > 1:
        raise OsumError(STDIN, "standard input is named twice", "name it once")
    found: list[Recording] = []
    lines = []
    for path in paths:
        if path == STDIN:
            found.append(Recording(STDIN, STDIN, "stdin"))
        elif os.path.isdir(path):
            inside, others = _folder(path)
            found += inside
            if not inside and not others:
                lines.append(f"{_shown(path)}: nothing in it")
            if others:
                kinds = ", ".join(f"{kind} ({n})" for kind, n in others.most_common())
                lines.append(f"{_shown(path)}: left out, no audio by their names: {kinds}")
        else:
            found.append(Recording(_shown(path), path, Path(path).stem))
    # talk.wav and talk.flac: the outputs of both keep the whole name.
    names, whole = (Counter(r.name + Path(r.path).suffix * n for r in found) for n in (0, 1))
    for number, r in enumerate(found):
        name = r.name + Path(r.path).suffix
        if names[r.name] > 1 and whole[name] == 1:
            found[number] = replace(r, name=name)
    if not found:
        what = f"no audio file in {'it' if len(paths) == 1 else 'them'}"
        raise OsumError(", ".join(map(_shown, paths)), what, f"known: {' '.join(sorted(SUFFIXES))}")
    return found, lines


def _folder(folder: str) -> tuple[list[Recording], Counter[str]]:
    """The recordings below a folder by name, and what else there is, counted by suffix."""
    found, others = [], Counter[str]()

    def give_up(e: OSError) -> None:
        raise e

    for here, folders, files in os.walk(folder, onerror=give_up):
        others["links to folders"] += sum(os.path.islink(os.path.join(here, f)) for f in folders)
        for file in files:
            path = Path(here, file)
            if path.suffix[1:].lower() in SUFFIXES:
                name = path.relative_to(folder).with_suffix("").as_posix()
                found.append(Recording(_shown(str(path)), str(path), name))
            else:
                others[path.suffix.lower() or file] += 1
    return sorted(found, key=lambda r: r.path), +others


def _shown(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


@contextlib.contextmanager
def on_disk(recording: Recording) -> Iterator[str]:
    """The path of a file that holds the recording. What is no file (standard input, a pipe's end) is copied
    to a temporary one, so that it takes no memory however long it is.

    Raises:
        BadUtterance: ``missing``; ``unreadable``: a folder, or a name that the reader of lists would run.
    """
    if recording.path == STDIN:
        with _copied(sys.stdin.buffer) as path:
            yield path
        return
    if is_pipe(recording.path):
        raise BadUtterance(recording.file, "unreadable", "its name ends like a command, in '|'")
    try:
        if stat.S_ISREG(os.stat(recording.path).st_mode):
            stream: BinaryIO | None = None
        else:
            stream = open(recording.path, "rb")
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL byte in the path
        raise BadUtterance(recording.file, "missing", "no such file") from None
    except OSError as e:
        raise BadUtterance(recording.file, "unreadable", str(e.strerror)) from None
    if stream is None:
        yield recording.path
        return
    with stream, _copied(stream) as path:
        yield path


@contextlib.contextmanager
def _copied(stream: BinaryIO) -> Iterator[str]:
    with tempfile.NamedTemporaryFile(prefix="osum-") as f:
        shutil.copyfileobj(stream, f, 1 << 20)
        f.flush()
        yield f.name
