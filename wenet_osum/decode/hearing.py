"""A recording as sounds that a model takes, and the answers to them as the answer to the recording: the two ends
of ``osum transcribe`` and of a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wenet_osum.dataset.batch import Batch
from wenet_osum.dataset.features import log_mel_spectrogram
from wenet_osum.dataset.resample import resample
from wenet_osum.decode.answer import Answered
from wenet_osum.decode.cut import pieces
from wenet_osum.decode.formats import Heard, Transcript
from wenet_osum.decode.join import Part, join
from wenet_osum.decode.vad import RATE
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.tasks import Answer, Task
from wenet_osum.tasks.prompts import language_of
from wenet_osum.tasks.task import REPLY_MARK
from wenet_osum.tasks.timed import format_words

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


class Sound(NamedTuple):
    """A piece of a recording: seconds in it, and its features (T, F)."""

    start: float
    end: float
    feats: Tensor


def sounds(
    source: str | bytes, file: str, conf: dict[str, Any], max_seconds: float, vad: str
) -> Iterator[Sound]:
    """The pieces of a recording, see ``cut.pieces``.

    Args:
        source: a path, or encoded audio. file: its name, for errors. conf: ``dataset_conf``.

    Raises:
        BadUtterance: it cannot be read, or not to its end; where reading comes to it.
    """
    channel, first = conf["singal_channel_conf"]["channel"], True
    for piece in pieces(source, file, max_seconds, vad=vad, channel=channel):
        try:
            feats = features(piece.samples, conf, file)
        except BadUtterance:
            if first:
                raise
            continue  # the last hundredth of a second, where vad is "none"
        first = False
        yield Sound(piece.start, piece.end, feats)


def trouble(e: BadUtterance, file: str) -> OsumError:
    """What is wrong with a recording, and what to do, for its user."""
    what = f"{e.cause.replace('_', ' ')}: {e.detail}".removeprefix("missing: ")
    return OsumError(file, what, MENDS.get(e.cause, ""))


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


def piece_key(name: str, number: int) -> str:
    """What is drawn for a piece goes by its key, so that other recordings beside it change nothing."""
    return f"{name} {number}"


def make_batch(keys: Sequence[str], feats: Sequence[Tensor]) -> Batch:
    """What ``Answerer.answer`` reads, as ``dataset.batch.collate`` has it."""
    return {
        "keys": list(keys),
        "feats": pad_sequence(list(feats), batch_first=True),
        "feats_lengths": torch.tensor([len(f) for f in feats]),
        "langs": [language_of(None)] * len(feats),
    }


def transcript(
    file: str,
    name: str,
    duration: float,
    spans: Sequence[tuple[float, float]],
    answers: Sequence[dict[str, Answered]],
    tasks: Sequence[Task],
) -> Transcript:
    """The answers to a recording's pieces as the recording's.

    Args:
        file, name, duration: as ``Transcript`` has them. spans: seconds of the pieces. answers: of each, by task.
    """
    heard = {task.name: _heard(task, spans, [found[task.name] for found in answers]) for task in tasks}
    return Transcript(file, name, duration, heard)


def _heard(task: Task, spans: Sequence[tuple[float, float]], found: list[Answered]) -> Heard:
    parts = [Part(*span, a.answer, a.probabilities) for span, a in zip(spans, found)]
    joined = join(parts, task)
    # What the model wrote, where that is the whole answer; else the same form, made of the parts.
    raw = found[0].text if len(found) == 1 else _written(task, joined.answer)
    return Heard(raw, joined.answer, joined.probabilities, joined.segments)


def _written(task: Task, answer: Answer) -> str:
    """An answer as ``Task.compose`` writes it, without what it lacks."""
    body = format_words(answer.words) if answer.words else answer.text or ""
    labels = "".join(f"<{answer.labels[f.name]}>" for f in task.fields if f.name in answer.labels)
    return body + labels + (f"{REPLY_MARK}{answer.reply}" if answer.reply else "")
