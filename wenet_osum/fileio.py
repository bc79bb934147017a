"""Files that are whole or not there: written under a temporary name, renamed when complete."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from wenet_osum.errors import OsumError


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open ``path`` for writing; it gets its final name only when the block ends well.

    On any exception (a full disk, Ctrl-C) the temporary file is removed and an older ``path``
    stays as it was. Text is UTF-8 with ``\\n`` line ends on every system.

    Args:
        path: the final name; missing parent folders are made.
        mode: ``"w"`` or ``"wb"``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with open(tmp, mode, **text) as f:  # type: ignore[call-overload]
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(tmp, path)
    except (OSError, RuntimeError) as e:
        # torch.save turns a full disk into a RuntimeError of its own.
        cause = e if isinstance(e, OSError) else e.__context__
        if isinstance(cause, OSError) and cause.filename in (None, str(tmp)):
            raise OSError(cause.errno, cause.strerror, str(path)) from None
        raise
    finally:
        tmp.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill; it gets the name ``path`` only when the block ends well.

    Raises:
        OsumError: ``path`` is there already and is no empty folder.
    """
    path = Path(path).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OsumError(str(path), "is there already", "give a new folder")
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    tmp.mkdir(parents=True)
    try:
        yield tmp
        os.replace(tmp, path)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield ``(line number from 1, line without its end)`` of a UTF-8 text file.

    Raises:
        OsumError: the file is missing, or a line is not UTF-8 (named by number).
    """
    path = Path(path)
    if not path.is_file():
        raise OsumError(str(path), "no such file", "check the path")
    with open(path, "rb") as f:
        for n, raw in enumerate(f, 1):
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as e:
                raise OsumError(
                    f"{path}:{n}", f"not UTF-8 (byte {e.start + 1})", "convert with iconv -t utf-8"
                ) from None
            yield n, line.rstrip("\r\n")
