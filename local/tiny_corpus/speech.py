"""One utterance: from a sentence, a voice and a delivery to samples and word times."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import soxr

from .delivery import Delivery
from .effects import Signal, breathe, rms, tilt, warp
from .espeak import Espeak, Event
from .sentences import spoken, words_of
from .sounds import EVENTS, RATE
from .voices import Voice

_TEMPO = {"en": 215, "zh": 235}  # espeak-ng's words a minute; its Mandarin is slower at the same number
_ESPEAK_VOICE = {"en": "en-us", "zh": "cmn"}
LONGEST = 4.5  # seconds


class Word(NamedTuple):
    """A word with its start and end in seconds from the beginning of the utterance."""

    start: float
    end: float
    word: str


class Utterance(NamedTuple):
    """samples: float32 (n,) at 16 kHz, within -1..1."""

    samples: Signal
    words: list[Word]


def word_samples(events: list[Event], total: int, words: list[str]) -> np.ndarray:
    """Start and end of each word in samples (words, 2), from the synthesiser's events. A word ends where a
    silence or the next word begins. Raises RuntimeError when espeak-ng reports other words than were asked
    for."""
    starts = [index for index, event in enumerate(events) if event.kind == "word"]
    if len(starts) != len(words):
        raise RuntimeError(f"espeak-ng reports {len(starts)} words for {' '.join(words)}")
    times = []
    for index, after in zip(starts, [*starts[1:], len(events)], strict=True):
        end = events[after].sample if after < len(events) else total
        for event in events[index + 2 : after]:  # the word's own first phoneme is never its end
            if event.name.startswith("_"):
                end = event.sample
                break
        times.append((events[index].sample, end))
    return np.array(times, np.float64)


def _shape(count: int, rate: int, voice: Voice, delivery: Delivery, rng: np.random.Generator) -> np.ndarray:
    """The speed of playing for each sample: the delivery's melody and the shake of an old voice."""
    seconds = np.arange(count) / rate
    speed = delivery.melody(seconds, np.linspace(0, 1, count), float(rng.uniform()))
    shake = np.sin(2 * np.pi * (rng.uniform(4.5, 6.0) * seconds + rng.uniform()))
    return speed * (1 + voice.tremor * shake)


def speak(
    engine: Espeak,
    text: str,
    language: str,
    voice: Voice,
    delivery: Delivery,
    event: str | None,
    seed: list[int],
) -> Utterance:
    """Say `text`; event: the name of a sound to put at one edge of the speech, or None. The result is a
    function of the arguments alone."""
    rng = np.random.default_rng(seed)
    words = words_of(text, language)
    tempo = _TEMPO[language] * delivery.tempo * voice.tempo * rng.uniform(0.95, 1.05) / voice.scale
    pitch = delivery.pitch * rng.uniform(0.97, 1.03)
    x, events = engine.say(
        spoken(text, language),
        f"{_ESPEAK_VOICE[language]}+{voice.name}",
        rate=max(80, round(tempo)),
        pitch=int(np.clip(50 + 50 * math.log2(pitch), 0, 99)),
        pitch_range=delivery.pitch_range,
        word_gap=round(100 * delivery.gap * voice.scale),
        seed=int(rng.integers(1 << 30)),
    )
    times = word_samples(events, len(x), words)
    x, times = warp(x, times, _shape(len(x), engine.sample_rate, voice, delivery, rng))
    x = soxr.resample(x, engine.sample_rate * voice.scale, RATE)
    times = times / (engine.sample_rate * voice.scale)
    x = breathe(tilt(x, RATE, voice.tilt), RATE, voice.breath, rng)
    x = delivery.treat(x, RATE, rng)
    if event is not None:
        x, shift = _add_event(x, event, rng)
        times = times + shift
    before, after = (int(RATE * rng.uniform(0.05, 0.1)) for _ in range(2))
    x = np.concatenate([np.zeros(before, np.float32), x, np.zeros(after, np.float32)])
    x = x * (rng.uniform(0.35, 0.9) / np.abs(x).max())
    x = x + rng.standard_normal(len(x)).astype(np.float32) * (rms(x) * 10 ** rng.uniform(-2.6, -2.1))
    times = times + before / RATE
    return Utterance(
        np.clip(x, -1, 1).astype(np.float32),
        [Word(float(start), float(end), word) for (start, end), word in zip(times, words, strict=True)],
    )


def _add_event(x: Signal, event: str, rng: np.random.Generator) -> tuple[Signal, float]:
    """Put the sound before or after the speech, touching it, apart from it or over its edge by up to 60 ms.
    Returns the samples and by how many seconds the speech moved."""
    sound = EVENTS[event](rng)
    sound = sound * (rng.uniform(0.9, 1.3) * rms(x) / rms(sound))
    gap = int(RATE * rng.uniform(-0.06, 0.08))
    first = bool(rng.integers(2))
    speech_at, sound_at = (len(sound) + gap, 0) if first else (0, len(x) + gap)
    out = np.zeros(max(speech_at + len(x), sound_at + len(sound)), np.float32)
    out[speech_at : speech_at + len(x)] += x
    out[sound_at : sound_at + len(sound)] += sound
    return out, speech_at / RATE
