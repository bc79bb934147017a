"""Noises and rooms for ``add_noise`` and ``add_reverb``, made by rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from wenet_osum.fileio import atomic_write

RATE = 16000
COLOURS = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # power of 1 / frequency in the amplitude


def noise(colour: str, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """(n,) stationary noise with a slow swell, and a hum under some of it."""
    count = int(RATE * seconds)
    shape = np.fft.rfft(rng.standard_normal(count))
    shape /= np.maximum(np.fft.rfftfreq(count, 1 / RATE), 30) ** COLOURS[colour]
    x = np.fft.irfft(shape, count)
    t = np.arange(count) / RATE
    x *= 1 + 0.4 * np.sin(2 * np.pi * (rng.uniform(0.1, 1.0) * t + rng.random()))
    if rng.random() < 0.3:
        hum = sum(np.sin(2 * np.pi * rng.choice([50, 60]) * k * t) / k for k in (1, 2, 3, 5))
        x += hum * x.std() * rng.uniform(0.5, 1.5)
    return 0.3 * x / np.abs(x).max()


def babble(voices: list[np.ndarray], seconds: float, rng: np.random.Generator) -> np.ndarray:
    """(n,) several people at once."""
    x = np.zeros(int(RATE * seconds))
    for voice in voices:
        level = rng.uniform(0.3, 1.0) / (voice.std() + 1e-9)
        x += level * np.resize(np.roll(voice, int(rng.integers(len(voice)))), len(x))
    return 0.3 * x / np.abs(x).max()


def room(rng: np.random.Generator) -> np.ndarray:
    """(n,) an impulse response: the direct sound, then decaying noise; 60 dB in 0.15 to 0.6 s."""
    seconds = rng.uniform(0.15, 0.6)
    t = np.arange(int(RATE * seconds)) / RATE
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / seconds)
    tail[: int(RATE * rng.uniform(0.002, 0.01))] = 0
    tail *= rng.uniform(0.2, 0.7) / np.sqrt(np.square(tail).sum())
    tail[0] = 1.0
    return 0.5 * tail / np.abs(tail).max()


def write_sounds(folder: Path, speech: list[Path], seed: int, count: int = 24) -> None:
    """``noise/``, ``room/`` and their lists ``noise.scp`` and ``room.scp`` in an empty folder.

    Args:
        speech: recordings of which babble is made.
    """
    rng = np.random.default_rng([seed, 9])
    rows: dict[str, list[tuple[str, np.ndarray]]] = {"noise": [], "room": []}
    for n in range(count):
        colour = list(COLOURS)[n % len(COLOURS)]
        rows["noise"].append((f"{colour}{n:02}", noise(colour, 8.0, rng)))
        some = [load(speech[i]) for i in rng.integers(len(speech), size=5)]
        rows["noise"].append((f"babble{n:02}", babble(some, 8.0, rng)))
        rows["room"].append((f"room{n:02}", room(rng)))
    for name, sounds in rows.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for key, samples in sounds:
            soundfile.write(folder / name / f"{key}.wav", samples, RATE, subtype="PCM_16")
        with atomic_write(folder / f"{name}.scp") as f:
            f.writelines(f"{key} {(folder / name / key).absolute()}.wav\n" for key, _ in sounds)


def load(path: Path) -> np.ndarray:
    """A recording of the corpus at ``RATE``, the narrow ones too."""
    samples, rate = soundfile.read(path, dtype="float32")
    return np.repeat(samples, RATE // rate)
