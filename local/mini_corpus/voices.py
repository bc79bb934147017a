"""The speakers: voices of five synthesisers, most of them in several sizes.

A size is a factor by which the samples are played faster while the synthesiser speaks slower: pitch and formants
move together, as they do with the length of a vocal tract. Voices of dev and test are in no other split.
"""

from __future__ import annotations

from typing import NamedTuple

from tiny_corpus.voices import make_voices  # beside this folder

SPLITS = ("train", "dev", "test")
SIZES = (1.0, 0.95, 1.05, 0.9, 1.1, 1.15)


class Voice(NamedTuple):
    """name: of the speaker; engine: a key of ``engines.ENGINES``; base: the engine's own voice; gender; size;
    variant: an espeak-ng voice file."""

    name: str
    engine: str
    base: str
    gender: str
    size: float = 1.0
    variant: str = ""


# Engine, its voice, gender, split, number of sizes.
_BASES = (
    ("hibari", "heart", "female", "train", 6),
    ("piper", "joe", "male", "train", 6),
    ("flite", "slt", "female", "train", 6),
    ("flite", "rms", "male", "train", 6),
    ("flite", "kal16", "male", "dev", 2),
    ("flite", "awb", "male", "test", 4),
    ("festival", "cmu_us_slt_arctic_hts", "female", "train", 4),
    ("festival", "kal_diphone", "male", "train", 4),
    ("festival", "ked_diphone", "male", "test", 3),
)
# What share of a split's sentences each engine says, as far as it has a voice there.
SHARES = {"hibari": 32, "piper": 16, "flite": 32, "festival": 5, "espeak": 15}


def all_voices(split: str, engines: list[str], seed: int) -> list[Voice]:
    """The voices of a split that ``engines`` have, in a fixed order. espeak-ng's are the demo corpus's grown-ups."""
    voices = [
        Voice(f"{engine}-{base.split('_')[0]}{n}", engine, base, gender, SIZES[n])
        for engine, base, gender, where, sizes in _BASES
        for n in range(sizes)
        if where == split and engine in engines
    ]
    if "espeak" in engines:
        for v in make_voices(split, seed):
            if v.gender:
                voices.append(Voice(f"espeak-{v.name}", "espeak", v.name, v.gender, v.scale, v.variant))
    return voices
