"""Where an utterance's audio comes from: bytes, a file, an entry of a Kaldi ark, or a command's output."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import threading
from typing import BinaryIO

from wenet_osum.errors import BadUtterance

PIPE_SECONDS = 600.0  # a command that has not ended by then is stopped

_ARK = re.compile(r"(.+):(\d+)")
_last_pipe = threading.local()


def is_pipe(source: str) -> bool:
    """Whether ``source`` is a command whose output is the audio (``sph2pipe -f wav a.sph |``)."""
    return source.rstrip().endswith("|")


def split_ark(source: str) -> tuple[str, int] | None:
    """``"file.ark:123"`` as ``("file.ark", 123)``; None when ``source`` is not of that form."""
    match = _ARK.fullmatch(source)
    return (match[1], int(match[2])) if match and not is_pipe(source) else None


def open_source(source: str | bytes | BinaryIO, key: str, keep: bool = False) -> BinaryIO:
    """Open audio as a seekable binary stream.

    Commands are run by ``sh`` in the current directory, as Kaldi does: a data dir or list that holds
    them is to be trusted like a script.

    Args:
        source: the encoded audio itself, a seekable stream of it, or a path, ``command |`` or ``file.ark:offset``.
        key: utterance id, for the error.
        keep: remember a command's output until this thread runs another one (for the segments of
            one recording).

    Raises:
        BadUtterance: ``missing``, ``unreadable`` or ``pipe_failed``.
    """
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, str):
        return source
    if is_pipe(source):
        return io.BytesIO(_run_kept(source, key) if keep else _run(source, key))
    ark = split_ark(source)
    if ark is not None and not os.path.exists(source):
        return io.BytesIO(_ark_entry(*ark, key))
    return _open_file(source, key)


def _open_file(path: str, key: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
        raise BadUtterance(key, "missing", f"{path}: no such file") from None
    except (OSError, ValueError) as e:  # ValueError: a NUL byte in the path
        raise BadUtterance(key, "unreadable", f"{path}: {getattr(e, 'strerror', None) or e}") from None


def _run_kept(command: str, key: str) -> bytes:
    if getattr(_last_pipe, "command", None) != command:
        _last_pipe.output = _run(command, key)
        _last_pipe.command = command
    return _last_pipe.output


def _run(command: str, key: str) -> bytes:
    shown = command.strip()
    process = subprocess.Popen(
        shown[:-1],
        shell=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that the whole pipeline can be stopped, not just its shell
    )
    try:
        output, messages = process.communicate(timeout=PIPE_SECONDS)
    except BaseException as e:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(e, subprocess.TimeoutExpired):
            raise BadUtterance(key, "pipe_failed", f"{shown}: no end after {PIPE_SECONDS:g} s") from None
        raise
    if process.returncode:
        said = messages.decode("utf-8", "replace").strip().splitlines()
        why = f": {said[-1]}" if said else ""
        raise BadUtterance(key, "pipe_failed", f"{shown}: exit status {process.returncode}{why}")
    if not output:
        raise BadUtterance(key, "pipe_failed", f"{shown}: no output")
    return output


def _ark_entry(path: str, offset: int, key: str) -> bytes:
    """The encoded audio at ``offset`` of an ark: a wave file as Kaldi writes it, or what kaldiio's writer
    ``soundfile`` makes of any coding (ESPnet's ``flac.ark``): ``AUDIO``, one byte that says how many bytes
    the length has, the length (little-endian), the file."""
    with _open_file(path, key) as f:
        try:
            f.seek(offset)
        except (OSError, ValueError, OverflowError):  # an offset that no file can have
            raise BadUtterance(key, "unreadable", f"{path}:{offset}: no such offset") from None
        head = f.read(6)
        # Nothing else is looked at: kaldiio's entries may also be pickles, which can run code.
        if head[:5] == b"AUDIO" and len(head) == 6:
            length = int.from_bytes(f.read(head[5]), "little")
            content = f.read(length)
        elif head[:4] == b"RIFF" and len(head) == 6:
            head += f.read(2)
            length = 8 + int.from_bytes(head[4:], "little")
            content = head + f.read(length - 8)
        else:
            raise BadUtterance(key, "unreadable", f"{path}:{offset}: no audio at this offset")
    if len(content) < length:
        raise BadUtterance(key, "truncated", f"{path}:{offset}: the ark ends inside it")
    return content
