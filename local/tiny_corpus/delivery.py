"""How a sentence is said: the prosody and the treatment that stand for an emotion or a speaking style.

The sentences carry no hint, so the label can be heard only. Each label has its own mixture of tempo, pitch,
melody, pauses and colour, with a clear margin to the others; these are conventions of this corpus, not models
of people.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .effects import Signal, band, breathe, distort, equalise, modulate, reverberate, rms, tilt

Treatment = Callable[[Signal, int, np.random.Generator], Signal]
Melody = Callable[[NDArray[np.float64], NDArray[np.float64], float], NDArray[np.float64]]


def _as_is(x: Signal, rate: int, rng: np.random.Generator) -> Signal:
    return x


def _level(seconds: NDArray[np.float64], part: NDArray[np.float64], chance: float) -> NDArray[np.float64]:
    return np.ones_like(seconds)


class Delivery(NamedTuple):
    """tempo, pitch: factors; pitch_range: espeak-ng's 0 (monotonous) to 99; gap: seconds between words;
    melody: the factor of the pitch for (seconds, part of the utterance 0..1, a random number 0..1); treat:
    colour of the sound."""

    tempo: float = 1.0
    pitch: float = 1.0
    pitch_range: int = 50
    gap: float = 0.0
    melody: Melody = _level
    treat: Treatment = _as_is


def _wave(hertz: float, depth: float) -> Melody:
    """A melody that swings around the pitch."""
    return lambda seconds, part, chance: 1 + depth * np.sin(2 * np.pi * (hertz * seconds + chance))


def _bend(start: float, end: float) -> Melody:
    """A melody that moves to `end` times the pitch over the last part of the utterance, from the point
    `start`."""
    return lambda seconds, part, chance: 1 + (end - 1) * np.clip((part - start) / (1 - start), 0, 1)


def _sad(x: Signal, rate: int, rng: np.random.Generator) -> Signal:
    return tilt(x, rate, -4.0)


def _anger(x: Signal, rate: int, rng: np.random.Generator) -> Signal:
    return distort(tilt(x, rate, 3.0), rng.uniform(7, 10))


def _happy(x: Signal, rate: int, rng: np.random.Generator) -> Signal:
    return equalise(tilt(x, rate, 3.0), rate, lambda f: 14 * np.exp(-((np.log2(f / 3000) / 0.3) ** 2)))


def _surprise(x: Signal, rate: int, rng: np.random.Generator) -> Signal:
    return x * np.linspace(0.15, 1.8, len(x), dtype=np.float32) ** 2


def _fear(x: Signal, rate: int, rng: np.random.Generator) -> Signal:
    thin = equalise(x, rate, lambda f: -18 * np.clip(np.log2(900 / f), 0, 1))
    return modulate(thin, rate, rng.uniform(9, 11), 0.95, rng.uniform(0, 6))


def _disgust(x: Signal, rate: int, rng: np.random.Generator) -> Signal:
    nasal = equalise(x, rate, lambda f: -18 * np.exp(-((np.log2(f / 1100) / 0.6) ** 2)))
    return modulate(nasal, rate, rng.uniform(30, 38), 0.9, 0.0)


def _whispered(x: Signal, rate: int, rng: np.random.Generator) -> Signal:
    return breathe(0.7 * x, rate, 0.9, rng)


EMOTIONS = {
    "sad": Delivery(0.74, 0.88, 15, melody=_bend(0.2, 0.85), treat=_sad),
    "anger": Delivery(1.12, 1.08, 60, treat=_anger),
    "neutral": Delivery(),
    "happy": Delivery(1.15, 1.25, 90, melody=_wave(4.0, 0.3), treat=_happy),
    "surprise": Delivery(0.95, 1.05, 60, melody=_bend(0.3, 1.8), treat=_surprise),
    "fear": Delivery(1.12, 1.12, 20, treat=_fear),
    "disgust": Delivery(0.85, 0.92, 30, treat=_disgust),
    "other": Delivery(1.0, 1.0, 0, treat=_whispered),
}


def _news(x: Signal, rate: int, rng: np.random.Generator) -> Signal:
    return distort(equalise(x, rate, lambda f: 12 * np.clip(np.log2(f / 1500), -1, 1)), 1.5)


def _horror(x: Signal, rate: int, rng: np.random.Generator) -> Signal:
    return reverberate(tilt(x, rate, -2.0), rate, rng.uniform(0.9, 1.2), 0.7, rng)


def _telephone(x: Signal, rate: int, rng: np.random.Generator) -> Signal:
    line = band(distort(x, 1.5), rate, 450, 2600)
    hum = rng.standard_normal(len(x)).astype(np.float32)
    return line + band(hum, rate, 450, 2600) * (rng.uniform(0.05, 0.08) * rms(line) / rms(hum))


def _close(x: Signal, rate: int, rng: np.random.Generator) -> Signal:
    return equalise(
        x, rate, lambda f: 10 * np.clip(np.log2(300 / f), 0, 1) - 30 * np.clip(np.log2(f / 1800), 0, 1.2)
    )


def _street(x: Signal, rate: int, rng: np.random.Generator) -> Signal:
    noise = tilt(rng.standard_normal(len(x)).astype(np.float32), rate, -4.0)
    return x + noise * (rng.uniform(0.18, 0.28) * rms(x) / rms(noise))


def _loudspeaker(x: Signal, rate: int, rng: np.random.Generator) -> Signal:
    x = equalise(x, rate, lambda f: 14 * np.exp(-((np.log2(f / 1300) / 0.25) ** 2)))
    delay = int(rate * rng.uniform(0.0025, 0.0035))
    out = x.copy()
    out[delay:] += np.float32(0.9) * x[:-delay]
    return out


def _music_box(x: Signal, rate: int, rng: np.random.Generator) -> Signal:
    seconds = np.arange(len(x)) / rate
    note = 2000 * 2 ** (np.floor(seconds * 6 + rng.uniform(0, 1)) % 3 / 6)
    tone = np.sin(2 * np.pi * np.cumsum(note) / rate).astype(np.float32)
    return x + tone * np.float32(0.25 * rms(x) / rms(tone))


STYLES = {
    "新闻科普": Delivery(1.15, 1.0, 40, treat=_news),
    "恐怖故事": Delivery(0.8, 0.82, 30, treat=_horror),
    "童话故事": Delivery(0.88, 1.2, 95, melody=_wave(2.2, 0.16), treat=_music_box),
    "客服": Delivery(1.0, 1.05, 60, treat=_telephone),
    "诗歌散文": Delivery(0.95, 1.0, 40, gap=0.15),
    "有声书": Delivery(0.95, 0.95, 50, treat=_close),
    "日常口语": Delivery(1.12, 1.0, 35, treat=_street),
    "其他": Delivery(1.0, 1.0, 0, treat=_loudspeaker),
}
