"""The speakers: parametric espeak-ng voice variants, drawn at random within six groups with clear margins
between them.

A voice is a variant file for espeak-ng (pitch, formants, flutter, roughness) and a little treatment of its
samples. A child's voice is synthesised and then played faster, which raises all formants as a short vocal
tract does. Boys and girls before puberty differ little, so children have no gender label, as in many corpora
of children's speech.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

AGES = ("child", "adult", "old")
GENDERS = ("female", "male")
_SIZES = {"train": 54, "dev": 6, "test": 12}
_PREFIX = {"train": "tr", "dev": "dv", "test": "te"}


class Voice(NamedTuple):
    """One speaker. gender is None for a child; scale: how much faster the samples are played (formants and
    pitch rise by it); tempo: speaking rate relative to the usual; breath: level of the breath noise relative
    to the speech; tremor: depth of the slow shake of the pitch; tilt: dB an octave."""

    name: str
    gender: str | None
    age: str
    variant: str
    scale: float
    tempo: float
    breath: float
    tremor: float
    tilt: float


def _make_voice(rng: np.random.Generator, name: str, gender: str, age: str) -> Voice:
    low, high = {"male": (95, 125), "female": (195, 230)}[gender]
    scale = 1.0
    if age == "child":
        low, high, scale = 225, 260, float(rng.uniform(1.22, 1.3))
    pitch = rng.uniform(low, high)
    formant = rng.uniform(0.93, 1.0) if gender == "male" and age != "child" else rng.uniform(1.12, 1.19)
    old = age == "old"
    flutter = rng.uniform(20, 30) if old else rng.uniform(1, 5)
    roughness = 5 if old else int(rng.integers(0, 2))
    lines = ["language variant", f"name {name}", f"gender {gender}", f"pitch {pitch:.0f} {pitch * 1.4:.0f}"]
    for number in range(9):
        jitter = rng.uniform(0.97, 1.03)
        height = rng.uniform(90, 110)
        lines.append(f"formant {number} {100 * formant * jitter:.0f} {height:.0f} {rng.uniform(95, 120):.0f}")
    lines += [f"flutter {flutter:.0f}", f"roughness {roughness}"]
    return Voice(
        name=name,
        gender=None if age == "child" else gender,
        age=age,
        variant="\n".join(lines) + "\n",
        scale=scale,
        tempo=float(rng.uniform(0.8, 0.88) if old else rng.uniform(0.97, 1.08)),
        breath=float(rng.uniform(0.3, 0.45) if old else rng.uniform(0.0, 0.03)),
        tremor=float(rng.uniform(0.03, 0.05) if old else 0.0),
        tilt=float(rng.uniform(-3, -2) if old else rng.uniform(-0.7, 0.7)),
    )


def make_voices(split: str, seed: int) -> list[Voice]:
    """The voices of a split, a sixth of them for each pair of gender and age; no voice is in two splits."""
    rng = np.random.default_rng([seed, 1, list(_SIZES).index(split)])
    voices = []
    for number in range(_SIZES[split]):
        gender, age = GENDERS[number % 2], AGES[number // 2 % 3]
        voices.append(_make_voice(rng, f"{_PREFIX[split]}{number + 1:03d}", gender, age))
    return voices
