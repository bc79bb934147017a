"""The life of a process that decodes what strangers send: bytes in, features of pieces out. What it may use up is
bounded, it opens no file, and whatever breaks it breaks nothing else.

Its answers are JSON and plain numbers, never pickles: its parent need not trust it.
"""

from __future__ import annotations

import json
import math
import os
import resource
from multiprocessing.connection import Connection
from typing import Any

import torch

from wenet_osum.dataset.audio import audio_duration
from wenet_osum.decode.hearing import sounds, trouble
from wenet_osum.decode.transcribe import give_back
from wenet_osum.errors import BadUtterance
from wenet_osum.serve.settings import MIB, Limits

_FILES = 64  # open at a time


def decode(pipe: Connection, conf: dict[str, Any], max_seconds: float, limits: Limits) -> None:
    """Serve uploads one after the other.

    Reads a file's name (UTF-8) and its content, and writes, each as JSON: ``{"duration": seconds}``, then for every
    piece ``{"start", "end", "shape"}`` and its features as float32, then ``{}``; or, in place of whatever would
    follow, ``{"error": slug, "what", "mend"}``. Waits with each piece until the one before has been read.

    Args:
        conf: ``dataset_conf``. max_seconds: of a piece.
    """
    torch.set_num_threads(1)
    confine(limits.decode_memory)
    while True:
        name, data = pipe.recv_bytes().decode(), pipe.recv_bytes()
        allow(limits.decode_seconds)
        try:
            _decode(pipe, name, data, conf, max_seconds, limits)
        except BadUtterance as e:
            error = trouble(e, name)
            _tell(pipe, error="bad_audio", what=error.what, mend=error.mend)
        except (
            MemoryError,
            RuntimeError,
        ):  # torch's and libsndfile's own kinds of a failed malloc among them
            what = f"takes more than {limits.decode_memory / MIB:g} MiB of memory to decode"
            _tell(pipe, error="bad_audio", what=what, mend="send it as a 16 kHz mono wave file")
        del data
        give_back()


def _decode(
    pipe: Connection, name: str, data: bytes, conf: dict[str, Any], max_seconds: float, limits: Limits
) -> None:
    duration = audio_duration(data, name, limits.max_seconds)
    if duration > limits.max_seconds:
        what = f"longer than {limits.max_seconds:g} s"
        return _tell(pipe, error="too_large", what=what, mend="cut it into parts")
    _tell(pipe, duration=duration)
    for sound in sounds(data, name, conf, max_seconds, limits.vad):
        _tell(pipe, start=sound.start, end=sound.end, shape=list(sound.feats.shape))
        pipe.send_bytes(sound.feats.contiguous().numpy().data.cast("B"))
    _tell(pipe)


def _tell(pipe: Connection, **facts: Any) -> None:
    pipe.send_bytes(json.dumps(facts).encode())


def confine(memory: int) -> None:
    """From now on this process gets ``memory`` bytes more at most, writes no file and has few open."""
    try:
        with open("/proc/self/statm") as f:
            used = int(f.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    except FileNotFoundError:
        pass  # macOS tells its size otherwise, and does not keep the limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))


def allow(seconds: float) -> None:
    """This process may work for ``seconds`` more; then the system ends it (SIGXCPU)."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(spent.ru_utime + spent.ru_stime + seconds), hard))
