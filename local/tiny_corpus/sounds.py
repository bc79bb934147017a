"""Vocal events made by signal processing: sketches of a laugh, a cough and so on, not recordings of them.

Each function returns float32 samples at `RATE`, about 0.3 to 0.6 s; everything in it is drawn from `rng`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .effects import Signal, band, distort, equalise, modulate, rms

RATE = 16000
Floats = NDArray[np.float64]


def _axis(seconds: float) -> Floats:
    return np.arange(int(RATE * seconds)) / RATE


def _noise(rng: np.random.Generator, count: int, low: float, high: float) -> Signal:
    return band(rng.standard_normal(count).astype(np.float32), RATE, low, high)


def _voiced(pitch: Floats, formants: tuple[float, ...], slope: float = -6.0) -> Signal:
    """A harmonic tone with a pitch in Hz for each sample, the harmonics shaped by resonances."""
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tone = np.zeros(len(pitch))
    for number in range(1, 24):
        alive = number * pitch < 7000
        tone += alive * np.sin(number * phase) * 2.0 ** (slope / 6.02 * np.log2(number))

    def gain(f: Floats) -> Floats:
        peaks = sum(np.exp(-(((f - c) / (60 + 0.08 * c)) ** 2)) for c in formants)
        return 20 * np.log10(0.06 + peaks)

    return equalise(tone.astype(np.float32), RATE, gain)


def _swell(t: Floats, rise: float, fall: float) -> Floats:
    """An envelope over t: up within `rise` seconds, down within the last `fall`."""
    return np.clip(t / rise, 0, 1) * np.clip((t[-1] - t) / fall, 0, 1)


def laugh(rng: np.random.Generator) -> Signal:
    """Ha-ha-ha: four or five short vowels, each with a breath before it, at falling pitch."""
    pitch, step = rng.uniform(220, 330), rng.uniform(0.105, 0.125)
    parts = []
    for number in range(int(rng.integers(4, 6))):
        t = _axis(step)
        vowel = _voiced(pitch * (1 - 0.05 * number) * (1 - 1.2 * t), (850, 1350, 2700))
        breath = _noise(rng, len(t), 600, 4000)
        vowel *= np.clip((t - 0.04) / 0.01, 0, 1) * np.clip((step - t) / 0.03, 0, 1) / rms(vowel)
        parts.append(vowel + 0.25 * breath / rms(breath) * (t < 0.045))
    return np.concatenate(parts).astype(np.float32)


def cough(rng: np.random.Generator) -> Signal:
    """One or two bursts: a hard start over the whole band, then a short dull tail."""
    parts = []
    for _ in range(int(rng.integers(2, 4))):
        t = _axis(rng.uniform(0.16, 0.2))
        burst = _noise(rng, len(t), 400, 5000) * np.exp(-t / 0.02)
        tail = _noise(rng, len(t), 250, 900) * np.exp(-t / 0.05)
        parts.append(burst / np.abs(burst).max() + 0.5 * tail / np.abs(tail).max())
    return np.concatenate(parts).astype(np.float32)


def cry(rng: np.random.Generator) -> Signal:
    """A wail that falls and shakes, six times a second."""
    t = _axis(rng.uniform(0.5, 0.6))
    pitch = (
        rng.uniform(420, 520) * (1.15 - 0.5 * t) * (1 + 0.07 * np.sin(2 * np.pi * rng.uniform(5.5, 7) * t))
    )
    return (_voiced(pitch, (500, 1000), -9.0) * _swell(t, 0.08, 0.15)).astype(np.float32)


def screaming(rng: np.random.Generator) -> Signal:
    """A very high and rough voice at full level."""
    t = _axis(rng.uniform(0.45, 0.6))
    pitch = rng.uniform(1000, 1400) * (1 + 0.1 * np.sin(np.pi * t / t[-1]))
    voice = _voiced(pitch, (1300, 2600, 3900), -2.0)
    voice = distort(modulate(voice, RATE, rng.uniform(60, 90), 0.6, 0.0), 4.0)
    return (voice * _swell(t, 0.03, 0.06)).astype(np.float32)


def sigh(rng: np.random.Generator) -> Signal:
    """A long breath that swells, dies away and darkens."""
    t = _axis(rng.uniform(0.5, 0.6))
    bright, dark = _noise(rng, len(t), 900, 3000), _noise(rng, len(t), 300, 1100)
    fade = t / t[-1]
    return ((bright * (1 - fade) + dark * fade) * np.sin(np.pi * fade**0.7) ** 2).astype(np.float32)


def throat_clearing(rng: np.random.Generator) -> Signal:
    """A low rattle, twice."""
    parts = []
    for seconds in (rng.uniform(0.18, 0.24), rng.uniform(0.22, 0.3)):
        t = _axis(seconds)
        rasp = _voiced(np.full(len(t), rng.uniform(75, 95)), (350, 800), -3.0)
        rasp = rasp / rms(rasp) + 0.8 * _noise(rng, len(t), 200, 1200)
        parts.append(
            modulate(rasp.astype(np.float32), RATE, rng.uniform(24, 32), 0.95, 0.0) * _swell(t, 0.02, 0.05)
        )
    return np.concatenate(parts).astype(np.float32)


def sneeze(rng: np.random.Generator) -> Signal:
    """Ah, rising, then a burst of hiss."""
    t = _axis(rng.uniform(0.18, 0.24))
    intake = _voiced(rng.uniform(200, 300) * (1 + 2.5 * t), (700, 1200), -8.0)
    intake *= _swell(t, 0.1, 0.01).astype(np.float32)
    t = _axis(rng.uniform(0.22, 0.28))
    burst = _noise(rng, len(t), 3200, 7500)
    burst *= (np.exp(-t / 0.09) * np.clip(t / 0.01, 0, 1)).astype(np.float32)
    return np.concatenate([0.6 * intake / rms(intake), 2.2 * burst / rms(burst)]).astype(np.float32)


def other(rng: np.random.Generator) -> Signal:
    """A bell: what is none of the seven."""
    t = _axis(rng.uniform(0.45, 0.6))
    pitch = rng.uniform(1800, 2600)
    tones = sum(np.sin(2 * np.pi * pitch * k * t) * np.exp(-t * k / 0.15) for k in (1.0, 1.52, 2.3))
    return (tones * np.clip((t[-1] - t) / 0.02, 0, 1)).astype(np.float32)


EVENTS: dict[str, Callable[[np.random.Generator], Signal]] = {
    "laugh": laugh,
    "cough": cough,
    "cry": cry,
    "screaming": screaming,
    "sigh": sigh,
    "throat clearing": throat_clearing,
    "sneeze": sneeze,
    "other": other,
}
