"""Recordings small enough to stand in a page: mono MP3 as data URIs, within a budget."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile as sf

from wenet_osum.dataset.audio import audio_blocks
from wenet_osum.errors import BadUtterance

RATE = 16000
MAX_SECONDS = 30.0  # heard of an utterance


@dataclass(frozen=True)
class Clip:
    """A recording in the page: ``src`` for an audio element; ``cut``: only its first `MAX_SECONDS`."""

    src: str
    seconds: float
    cut: bool


class Clips:
    """Reads and encodes recordings until the budget is spent.

    MP3, because every browser plays it and the same samples give the same bytes (an Ogg stream has a random
    serial number); about 5 kB a second.

    Args:
        budget: characters of base64, over all clips; 0: no recording is looked at.

    Attributes:
        off: whether the budget was 0 from the beginning. heard, no_room: how many were taken in, and how many not. bad: cause -> how many could not be read.
    """

    def __init__(self, budget: int):
        self.budget, self.off = budget, not budget
        self.heard = self.no_room = 0
        self.bad: Counter[str] = Counter()

    def take(self, sample: Mapping[str, Any]) -> Clip | str:
        """The clip of a sample, or why there is none (nothing to say if none is wanted)."""
        if self.off:
            return ""
        if self.budget <= 0:
            self.no_room += 1
            return "no room for its audio"
        try:
            wave, cut = _first(sample)
        except BadUtterance as e:
            self.bad[e.cause] += 1
            return f"audio: {e.cause} ({e.detail})" if e.detail else f"audio: {e.cause}"
        text = base64.b64encode(_mp3(wave)).decode("ascii")
        if len(text) > self.budget:
            self.no_room += 1
            return "no room for its audio"
        self.budget -= len(text)
        self.heard += 1
        return Clip(f"data:audio/mpeg;base64,{text}", len(wave) / RATE, cut)


def _first(sample: Mapping[str, Any]) -> tuple[np.ndarray, bool]:
    """The first `MAX_SECONDS` of an utterance, and whether it goes on."""
    wanted, got, parts = int(MAX_SECONDS * RATE), 0, []
    where = (sample["wav"], MAX_SECONDS, sample.get("start"), sample.get("end"), RATE, sample["key"])
    for block in audio_blocks(*where):
        parts.append(block)
        got += len(block)
        if got > wanted:
            break
    return np.concatenate(parts)[:wanted], got > wanted


def _mp3(wave: np.ndarray) -> bytes:
    with io.BytesIO() as file:
        sf.write(file, np.clip(wave, -1, 1), RATE, format="MP3", subtype="MPEG_LAYER_III")
        return file.getvalue()
