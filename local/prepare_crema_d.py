#!/usr/bin/env python3
"""Kaldi dirs of CREMA-D: 91 actors say twelve sentences in six emotions; free to train on (ASR, SER, SGC, SAP).

    python local/prepare_crema_d.py CREMA-D data/crema_d

Layout (git lfs clone https://github.com/CheyneyComputerScience/CREMA-D, or its mirror
https://gitlab.com/cs-cooper-lab/crema-d-mirror):

    SentenceFilenames.csv       Stimulus_Number,Filename: 1001_IEO_NEU_XX is actor, sentence, emotion, its strength
    VideoDemographics.csv       ActorID,Age,Sex,Race,Ethnicity
    AudioWAV/1001_IEO_NEU_XX.wav

Licence: the database ODbL 1.0, its contents DbCL 1.0 (Cao et al., IEEE Transactions on Affective Computing 2014).

The emotion is the one that the actor was asked for; what raters heard in it often differs (processedResults/).
There is no official split. This one goes by actor, so that nobody is in two subsets: actors whose number ends in 4
are test (9 people, 5 women, 24 to 74 years old), in 0 dev (9 people, 4 women), all others train. All three have the
same twelve sentences, so a score in ASR says nothing about unknown text.

1076_MTI_SAD_XX.wav has no sound and is left out (README of the corpus). Ages are in years; their classes are the
task table's.

Counts: 7,442 clips (README), by the actors' numbers 5,966, 738 and 738. Lists and names could be checked against
the real ones, the audio could not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from corpora import Corpus, Found, Utterance, age_label, prepare, read_columns  # beside this script

from wenet_osum.errors import OsumError, run_main

CORPUS = Corpus(
    name="CREMA-D",
    url="https://github.com/CheyneyComputerScience/CREMA-D",
    licence="ODbL 1.0, contents DbCL 1.0",
    published={"train": 5966, "dev": 738, "test": 738},
    labels={
        "emotion": {
            "ANG": "anger",
            "DIS": "disgust",
            "FEA": "fear",
            "HAP": "happy",
            "NEU": "neutral",
            "SAD": "sad",
        },
        "gender": {"Female": "female", "Male": "male"},
    },
)
SENTENCES = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
SILENT = {"1076_MTI_SAD_XX": "no sound in the file, as the makers tell"}
_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_(LO|MD|HI|XX)")


def subset_of(actor: str) -> str:
    """The subset of an actor, by the last digit of the number."""
    return {"4": "test", "0": "dev"}.get(actor[-1], "train")


def read_actors(path: Path) -> dict[str, tuple[dict[str, str], str]]:
    """Actor -> the row of the list, and the line that tells it.

    Raises:
        OsumError: no such file, or not of this form.
    """
    return {row["ActorID"]: (row, where) for where, row in read_columns(path, ("ActorID", "Age", "Sex"))}


def refuse_pointer(wav: Path) -> None:
    """Tell of a clone without Git LFS, whose audio files are notes of where the audio is.

    Raises:
        OsumError: the file is such a note.
    """
    if wav.is_file() and wav.stat().st_size < 200 and wav.read_bytes().startswith(b"version https://git-lfs"):
        raise OsumError(
            str(wav), "a note of Git LFS in place of the audio", "run `git lfs pull` in the clone"
        )


def collect(root: Path, found: Found) -> None:
    """The clips of one subset's actors."""
    actors = read_actors(root / "VideoDemographics.csv")
    for where, row in read_columns(root / "SentenceFilenames.csv", ("Filename",)):
        key = row["Filename"]
        match = _NAME.fullmatch(key)
        if not match or match[2] not in SENTENCES:
            raise OsumError(
                where, f"file name {key!r:.80}", "it is ACTOR_SENTENCE_EMOTION_LEVEL: get the list again"
            )
        actor, sentence, emotion = match[1], match[2], match[3]
        if subset_of(actor) != found.subset:
            continue
        if key in SILENT:
            found.leave_out(key, SILENT[key])
            continue
        if actor not in actors:
            raise OsumError(where, f"actor {actor} is not in VideoDemographics.csv", "get that file again")
        person, told = actors[actor]
        of_speaker = {**found.label("gender", person["Sex"], key, told), **age_label(person["Age"], told)}
        labels = found.label("emotion", emotion, key, where)
        wav = root / "AudioWAV" / f"{key}.wav"
        refuse_pointer(wav)
        found.add(Utterance(key, str(wav), SENTENCES[sentence], actor, "en", labels, of_speaker), where)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    return prepare(CORPUS, collect, argv, __doc__)


if __name__ == "__main__":
    run_main(main)
