"""A line between two processes on which a message arrives whole or not at all, its arrays in shared memory.

A message is written to a file in memory, whose descriptor crosses in one datagram. So receiving what has arrived
never waits for the sender (whom torch's way of sharing tensors would ask, and wait for if it stands still), nothing
is left behind when either dies, and ``/dev/shm``, small in containers, is not needed.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
from multiprocessing import Pipe
from typing import Any

import numpy as np

_ALIGN = 64  # bytes
_MOST = 1 << 16  # bytes of a datagram: 8 for each array


class Channel:
    """One end, with the methods of ``multiprocessing.connection.Connection`` that we use."""

    def __init__(self, end: socket.socket):
        self._end = end

    def fileno(self) -> int:
        return self._end.fileno()

    def close(self) -> None:
        self._end.close()

    def send(self, message: Any) -> None:
        """Send what can be pickled.

        Raises:
            OSError: the other end is closed.
        """
        parts: list[Any] = [b""]
        parts[0] = pickle.dumps(message, protocol=5, buffer_callback=lambda b: parts.append(b.raw()))
        file = os.memfd_create("osum")
        try:
            at = 0
            for part in parts:
                done = 0
                while done < len(part):
                    done += os.pwrite(file, part[done:], at + done)
                at += -(-len(part) // _ALIGN) * _ALIGN
            os.ftruncate(file, at)
            socket.send_fds(self._end, [np.array([len(p) for p in parts], np.int64).tobytes()], [file])
        finally:
            os.close(file)

    def recv(self) -> Any:
        """Wait for a message; its arrays lie in the shared memory, which goes with them.

        Raises:
            EOFError, OSError: the other end is closed.
        """
        head, files, _, _ = socket.recv_fds(self._end, _MOST, 1)
        if not files:
            raise EOFError
        try:
            view = memoryview(mmap.mmap(files[0], 0))
        finally:
            os.close(files[0])
        parts, at = [], 0
        for length in np.frombuffer(head, np.int64).tolist():
            parts.append(view[at : at + length])
            at += -(-length // _ALIGN) * _ALIGN
        return pickle.loads(parts[0], buffers=parts[1:])


def channel() -> tuple[Any, Any]:
    """Both ends of one; where there are no files in memory (macOS), of an ordinary pipe."""
    if not hasattr(os, "memfd_create"):
        return Pipe()
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one), Channel(other)
