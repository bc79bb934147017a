"""The loop of ``osum transcribe``: recordings to pieces, pieces to batches across recordings, answers back to
their recordings, which come out in the order they went in."""

from __future__ import annotations

import contextlib
import ctypes
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from wenet_osum.dataset.audio import audio_duration
from wenet_osum.decode.answer import Answered, Answerer
from wenet_osum.decode.formats import Transcript
from wenet_osum.decode.hearing import make_batch, piece_key, sounds, transcript, trouble
from wenet_osum.decode.recordings import Recording, on_disk
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.tasks import Task

LOOK_AHEAD = 2  # batches of pieces among which those of like length are looked for


@dataclass
class _Open:
    """A recording that is being read or answered."""

    recording: Recording
    duration: float = 0.0
    spans: list[tuple[float, float]] = field(default_factory=list)  # of its pieces
    answers: list[dict[str, Answered]] = field(default_factory=list)  # of its pieces; {}: not yet
    waiting: int = 0  # pieces without an answer
    read: bool = False
    error: OsumError | None = None


@dataclass
class _Piece:
    """A piece that waits for its batch."""

    source: _Open
    number: int
    seconds: float
    feats: Tensor  # (T, F)


def transcribe(
    recordings: Iterable[Recording],
    answerer: Answerer,
    tasks: Sequence[Task],
    conf: dict[str, Any],
    batch_size: int = 16,
    max_seconds: float = 30.0,
    vad: str = "energy",
    told: Callable[[float], object] = lambda seconds: None,
) -> Iterator[Transcript]:
    """Answer ``tasks`` about every recording.

    At most ``LOOK_AHEAD`` batches of pieces are in memory, whatever the length and the number of recordings. A
    batch holds the piece that has waited longest and those nearest to it in length.

    Args:
        conf: ``dataset_conf``, for the features.
        max_seconds, vad: how recordings are cut, see ``cut.pieces``.
        told: gets the seconds of audio in each batch, once it is answered.

    Yields:
        one ``Transcript`` a recording, in the order of ``recordings``, each as soon as it and all before it are
        done. A recording that cannot be read, or not to its end, has an ``error`` and no answers.
    """
    unfinished: deque[_Open] = deque()
    pool: list[_Piece] = []
    names = [task.name for task in tasks]

    def answer_some() -> Iterator[Transcript]:
        nonlocal pool
        batch, pool = _take(pool, batch_size)
        keys = [piece_key(p.source.recording.name, p.number) for p in batch]
        answers = answerer.answer(make_batch(keys, [p.feats for p in batch]), names)
        for row, piece in enumerate(batch):
            piece.source.answers[piece.number] = {name: found[row] for name, found in answers.items()}
            piece.source.waiting -= 1
        told(sum(piece.seconds for piece in batch))
        give_back()
        return _finished(unfinished, tasks)

    for recording in recordings:
        source = _Open(recording)
        unfinished.append(source)
        for piece in _listen(source, conf, max_seconds, vad):
            pool.append(piece)
            if len(pool) >= LOOK_AHEAD * batch_size:
                yield from answer_some()
        if source.error:
            pool = [p for p in pool if p.source is not source]
        yield from _finished(unfinished, tasks)
    while pool:
        yield from answer_some()


def _listen(source: _Open, conf: dict[str, Any], max_seconds: float, vad: str) -> Iterator[_Piece]:
    """The pieces of a recording; at its end ``source.read`` is set, and ``source.error`` if it ended badly."""
    file = source.recording.file
    try:
        with on_disk(source.recording) as path:
            source.duration = audio_duration(path, file)
            for sound in sounds(path, file, conf, max_seconds, vad):
                source.spans.append((sound.start, sound.end))
                source.answers.append({})
                source.waiting += 1
                yield _Piece(source, len(source.spans) - 1, sound.end - sound.start, sound.feats)
    except BadUtterance as e:
        source.error = trouble(e, file)
    source.read = True


def give_back() -> None:
    """Give free memory back to the system: between batches of many shapes glibc keeps some hundred MB of gaps. Other
    C libraries have no such call."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _take(pool: list[_Piece], count: int) -> tuple[list[_Piece], list[_Piece]]:
    """The first of the pool and those nearest to it in length, ``count`` in all; what is left, in order."""
    length = len(pool[0].feats)
    nearest = sorted(range(1, len(pool)), key=lambda i: abs(len(pool[i].feats) - length))
    taken = {0, *nearest[: count - 1]}
    return [pool[i] for i in sorted(taken)], [p for i, p in enumerate(pool) if i not in taken]


def _finished(unfinished: deque[_Open], tasks: Sequence[Task]) -> Iterator[Transcript]:
    """Take the first recordings out as far as they are read and answered."""
    while unfinished and unfinished[0].read and (unfinished[0].error or not unfinished[0].waiting):
        done = unfinished.popleft()
        file, name = done.recording.file, done.recording.name
        if done.error:
            yield Transcript(file, name, error=done.error)
            continue
        yield transcript(file, name, done.duration, done.spans, done.answers, tasks)
