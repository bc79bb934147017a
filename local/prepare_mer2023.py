#!/usr/bin/env python3
"""Kaldi dirs of MER2023: clips of Chinese films and series with one emotion each (SER).

    python local/prepare_mer2023.py MER2023 data/mer2023 --subsets test1

Layout (the archives of huggingface.co/datasets/MERChallenge/MER2023 unpacked into one folder):

    mer2023train/train-label.csv            name,discrete,valence
    mer2023train/train/sample_00000001.avi
    mer2023train/test3/samplenew_00000001.mp4
    test1/*.avi, test2/*.mp4
    test-labels/test1-label.csv, test2-label.csv, test3-label.csv

or, as the makers' own code expects it, all of these in the root. A clip's audio is a wav or flac of its name beside
it, else what ffmpeg makes of the video whenever it is read.

Licence: an agreement to be signed: academic research alone, no sample may be edited or put on the net
(Lian et al., ACM Multimedia 2023).

Subsets: train, test1 (the track MER-MULTI), test2 (MER-NOISE, with noise mixed in) and test3 (MER-SEMI: of its
73,148 clips those with a label). OSUM's paper says MER2023 and not which.

Of the six emotions ``worried`` is none of OSUM's: between fear, sadness and none of the named ones a listener with
OSUM's list has no right answer, so its utterances are left out (462, 57, 52 and 45). To count them as ``fear`` or
``other``, change the table below.

There are no transcripts: the dirs have no ``text``, and offer the emotion alone (``ser_only``).

Counts: 3,373, 411, 412 and 834 labels (the paper's, and those of EmoBox's lists). The labels could be checked
against EmoBox's lists, the clips could not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corpora import (
    Corpus,
    Found,
    NotThere,
    Out,
    Utterance,
    audio_of,
    prepare,
    read_columns,
)  # beside this script

from wenet_osum.errors import run_main

CORPUS = Corpus(
    name="MER2023",
    url="https://huggingface.co/datasets/MERChallenge/MER2023",
    licence="an agreement to be signed; academic research alone",
    published={"train": 3373, "test1": 411, "test2": 412, "test3": 834},
    labels={
        "emotion": {
            "neutral": "neutral",
            "angry": "anger",
            "happy": "happy",
            "sad": "sad",
            "surprise": "surprise",
            "worried": Out("worried, which is none of OSUM's emotions"),
        }
    },
)
CLIPS = {
    "train": ("mer2023train/train", "train"),
    "test1": ("test1", "mer2023test/test1"),
    "test2": ("test2", "mer2023test/test2"),
    "test3": ("mer2023train/test3", "test3"),
}


def find(root: Path, *names: str) -> Path:
    """The first of these paths that is there.

    Raises:
        NotThere: none is.
    """
    for name in names:
        if (root / name).exists():
            return root / name
    mend = f"get it from {CORPUS.url} (an agreement has to be signed) and unpack it there"
    raise NotThere(str(root / names[0]), "not there", mend)


def collect(root: Path, found: Found) -> None:
    """One subset of MER2023."""
    name = f"{found.subset}-label.csv"
    table = find(root, f"mer2023train/{name}" if found.subset == "train" else f"test-labels/{name}", name)
    clips = find(root, *CLIPS[found.subset])
    for where, row in read_columns(table, ("name", "discrete")):
        emotion = found.value("emotion", row["discrete"], where)
        if isinstance(emotion, Out):
            found.leave_out(row["name"], emotion.why)
        else:
            wav = audio_of(clips, row["name"])
            found.add(Utterance(row["name"], wav, lang="zh", labels={"emotion": emotion}), where)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    return prepare(CORPUS, collect, argv, __doc__)


if __name__ == "__main__":
    run_main(main)
