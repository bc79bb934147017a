"""The loop of ``osum transcribe``: recordings to pieces, pieces to batches across recordings, answers back to
their recordings, which come out in the order they went in."""

from __future__ import annotations

import contextlib
import ctypes
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wenet_osum.dataset.audio import audio_duration
from wenet_osum.dataset.batch import Batch
from wenet_osum.dataset.features import log_mel_spectrogram
from wenet_osum.dataset.resample import resample
from wenet_osum.decode.answer import Answered, Answerer
from wenet_osum.decode.cut import pieces
from wenet_osum.decode.formats import Heard, Transcript
from wenet_osum.decode.join import Part, join
from wenet_osum.decode.recordings import Recording, on_disk
from wenet_osum.decode.vad import RATE
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.tasks import Answer, Task
from wenet_osum.tasks.prompts import language_of
from wenet_osum.tasks.task import REPLY_MARK
from wenet_osum.tasks.timed import format_words

LOOK_AHEAD = 2  # batches of pieces among which those of like length are looked for

MENDS = {
    "missing": "check the path",
    "unreadable": "check the file, or convert it: ffmpeg -i FILE FILE.wav",
    "truncated": "copy or download it again",
    "empty": "leave it out",
    "nan": "make the file again",
    "too_loud": "scale its samples to -1 .. 1",
    "too_short": "leave it out",
    "no_channel": "set singal_channel_conf.channel in the config",
}


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
        answers = answerer.answer(_batch(batch), names)
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
    file, channel = source.recording.file, conf["singal_channel_conf"]["channel"]
    try:
        with on_disk(source.recording) as path:
            source.duration = audio_duration(path, file)
            for piece in pieces(path, file, max_seconds, vad=vad, channel=channel):
                try:
                    feats = features(piece.samples, conf, file)
                except BadUtterance:
                    if source.spans:  # the last hundredth of a second, where vad is "none"
                        continue
                    raise
                source.spans.append((piece.start, piece.end))
                source.answers.append({})
                source.waiting += 1
                yield _Piece(source, len(source.spans) - 1, piece.end - piece.start, feats)
    except BadUtterance as e:
        what = f"{e.cause.replace('_', ' ')}: {e.detail}".removeprefix("missing: ")
        source.error = OsumError(file, what, MENDS.get(e.cause, ""))
    source.read = True


def features(samples: np.ndarray, conf: dict[str, Any], key: str = "") -> Tensor:
    """(n,) float32 samples of 16 kHz -> (T, F), by ``dataset_conf``.

    Raises:
        BadUtterance: ``too_short``: less than the Fourier transform reaches.
    """
    mel, rate = conf["log_mel_spectrogram_conf"], conf["resample_conf"]["resample_rate"]
    wave = samples if rate == RATE else resample(samples, RATE, rate)
    least = max(mel["n_fft"] // 2 + 1, mel["hop_length"])
    if len(wave) < least:
        what = f"{len(wave) / rate:.4f} s of audio, at least {least / rate:.4f} s"
        raise BadUtterance(key, "too_short", what)
    return log_mel_spectrogram(wave, rate, **mel)


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


def _batch(waiting: list[_Piece]) -> Batch:
    """What ``Answerer.answer`` reads, as ``dataset.batch.collate`` has it."""
    feats = [p.feats for p in waiting]
    return {
        # What is drawn for a piece goes by its key, so that other recordings beside it change nothing.
        "keys": [f"{p.source.recording.name} {p.number}" for p in waiting],
        "feats": pad_sequence(feats, batch_first=True),
        "feats_lengths": torch.tensor([len(f) for f in feats]),
        "langs": [language_of(None)] * len(feats),
    }


def _finished(unfinished: deque[_Open], tasks: Sequence[Task]) -> Iterator[Transcript]:
    """Take the first recordings out as far as they are read and answered."""
    while unfinished and unfinished[0].read and (unfinished[0].error or not unfinished[0].waiting):
        done = unfinished.popleft()
        file, name = done.recording.file, done.recording.name
        if done.error:
            yield Transcript(file, name, error=done.error)
            continue
        heard = {task.name: _heard(task, done) for task in tasks}
        yield Transcript(file, name, done.duration, heard)


def _heard(task: Task, done: _Open) -> Heard:
    found = [answers[task.name] for answers in done.answers]
    parts = [Part(*span, a.answer, a.probabilities) for span, a in zip(done.spans, found)]
    joined = join(parts, task)
    # What the model wrote, where that is the whole answer; else the same form, made of the parts.
    raw = found[0].text if len(found) == 1 else _written(task, joined.answer)
    return Heard(raw, joined.answer, joined.probabilities, joined.segments)


def _written(task: Task, answer: Answer) -> str:
    """An answer as ``Task.compose`` writes it, without what it lacks."""
    body = format_words(answer.words) if answer.words else answer.text or ""
    labels = "".join(f"<{answer.labels[f.name]}>" for f in task.fields if f.name in answer.labels)
    return body + labels + (f"{REPLY_MARK}{answer.reply}" if answer.reply else "")
