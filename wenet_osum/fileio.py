"""Files that are whole or not there: written under a temporary name, renamed when complete. Lines and YAML read."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import yaml

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


def sweep(path: Path) -> None:
    """Remove what ``atomic_write`` of ``path`` has left where it was killed. Nobody may be writing it now."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        left.unlink(missing_ok=True)


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


def read_lines(
    path: str | Path, start: int = 0, count: int | None = None, first: int = 1
) -> Iterator[tuple[int, str]]:
    """Yield ``(line number, line without its end)`` of a UTF-8 text file.

    Args:
        start: the byte to begin at. count: so many lines; None: all. first: the number of the first of them.

    Raises:
        OsumError: the file is missing, or a line is not UTF-8 (named by number).
    """
    path = Path(path)
    if not path.is_file():
        raise OsumError(str(path), "no such file", "check the path")
    with open(path, "rb") as f:
        f.seek(start)
        for n, raw in enumerate(islice(f, count), first):
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as e:
                raise OsumError(
                    f"{path}:{n}", f"not UTF-8 (byte {e.start + 1})", "convert with iconv -t utf-8"
                ) from None
            yield n, line.rstrip("\r\n")


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key given twice, which YAML would silently let the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key that is no single word", key_node.start_mark
                )
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds; a key that comes twice is an error.

    Raises:
        OsumError: file, and line where there is one, of whatever keeps it from being read.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except FileNotFoundError:
        raise OsumError(str(path), "no such file", "check the path") from None
    except UnicodeDecodeError:
        raise OsumError(str(path), "not UTF-8", "convert with iconv -t utf-8") from None
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise OsumError(where, getattr(e, "problem", None) or "malformed YAML", "mend the YAML") from None
    except ValueError as e:  # a date that is none
        raise OsumError(str(path), f"malformed YAML ({e})", "mend the YAML") from None
