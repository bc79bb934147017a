#!/usr/bin/env python3
"""Kaldi dirs of Common Voice: sentences read by volunteers, who may tell gender and age (ASR, SGC, SAP).

    python local/prepare_common_voice.py /corpora/cv-corpus-17.0-2024-03-15/en data/cv --subsets test
    python local/prepare_common_voice.py /corpora/common-voice-kaggle data/cv_kaggle --subsets cv-valid-test

Two layouts, told apart by the subset's name. Of a language of a release (commonvoice.mozilla.org):

    en/test.tsv         client_id  path  sentence  up_votes  down_votes  age  gender  ... (tabs between)
    en/clips/common_voice_en_1.mp3

and of the English set of 2017 on Kaggle (kaggle.com/datasets/mozillaorg/common-voice), which the OSUM paper
scores gender and age on; it names no speakers:

    cv-valid-test.csv   filename,text,up_votes,down_votes,age,gender,accent,duration
    cv-valid-test/cv-valid-test/sample-000000.mp3   (or one folder less)

Licence: CC0 1.0; whoever takes it promises not to find out who the speakers are.

Age is told in decades. OSUM's classes are child (under 14), adult (14 to 59) and old (60 on); where the bounds
lie is a choice of this project (the task table's), the authors' are not known here. Twenties to fifties are adult,
sixties on old. Only the teens (13 to 19) straddle two classes and are left without age; so there is no child here. Genders other than the two, and what
was not told, are left without a label; the utterance is used all the same. Audio without a sentence is left out.
In the tables a quote is a character; a sentence that is wholly in quotes, with its inner ones doubled, loses them.
Curly apostrophes of a release's sentences are made straight ones.

Counts: of Kaggle's lists as its users count their rows (195,776 of cv-valid-train, 4,076 of cv-valid-dev, 3,995
of cv-valid-test); a release's differ by release and language, so none are checked. The layouts could not be
checked against the corpora here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from corpora import (
    Corpus,
    Found,
    NotThere,
    Out,
    Utterance,
    prepare,
    read_columns,
    straight,
)  # beside this script

from wenet_osum.errors import run_main

_TOO_WIDE = Out("teens are 13 to 19: both child and adult")
_NOT_TOLD = Out("not told")
_NO_VALUE = Out("neither female nor male")

KAGGLE = ("cv-valid-test", "cv-valid-dev", "cv-valid-train")
RELEASE = ("test", "dev", "train", "validated")


def subsets_of(root: Path) -> list[str]:
    """The subsets of the layout that is there."""
    names = [name for name in (*KAGGLE, *RELEASE) if list_of(root, name).is_file()]
    if not names:
        raise NotThere(str(root), "neither a *.tsv of a release nor a cv-valid-*.csv in it", "check the path")
    return names


def list_of(root: Path, subset: str) -> Path:
    """The table of a subset."""
    return root / (f"{subset}.csv" if subset in KAGGLE else f"{subset}.tsv")


CORPUS = Corpus(
    name="Common Voice",
    url="https://commonvoice.mozilla.org/datasets",
    licence="CC0 1.0",
    published={
        "cv-valid-test": 3995,
        "cv-valid-dev": 4076,
        "cv-valid-train": 195776,
        **dict.fromkeys(RELEASE),
    },
    labels={
        "gender": {
            "female": "female",
            "male": "male",
            "female_feminine": "female",
            "male_masculine": "male",
            "other": _NO_VALUE,
            "intersex": _NO_VALUE,
            "transgender": _NO_VALUE,
            "non-binary": _NO_VALUE,
            "do_not_wish_to_say": _NOT_TOLD,
            "": _NOT_TOLD,
        },
        "age": {
            "teens": _TOO_WIDE,
            "twenties": "adult",
            "thirties": "adult",
            "fourties": "adult",  # as they spell it
            "fifties": "adult",
            "sixties": "old",
            "seventies": "old",
            "eighties": "old",
            "nineties": "old",
            "": _NOT_TOLD,
        },
    },
    default=subsets_of,
)
NO_SENTENCE = "no sentence"


def sentence_of(text: str) -> str:
    """A sentence without the quotes that its table wrote around it, and with straight apostrophes."""
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        text = text[1:-1].replace('""', '"')
    return straight(text.strip())


class Row(NamedTuple):
    """What a line tells; ``where`` is its file and number."""

    where: str
    key: str
    audio: Path
    sentence: str
    speaker: str
    lang: str
    gender: str
    age: str


def read_rows(root: Path, subset: str) -> Iterator[Row]:
    """Yield the rows of a subset's table.

    Raises:
        NotThere: there is none.
    """
    table = list_of(root, subset)
    if not table.is_file():
        raise NotThere(str(table), "no such file", f"get it from {CORPUS.url} (the 2017 set: Kaggle)")
    if subset in KAGGLE:
        deep = (root / subset / subset).is_dir()  # as Kaggle's archive unpacks
        for where, row in read_columns(table, ("filename", "text", "age", "gender")):
            audio = root / subset / row["filename"] if deep else root / row["filename"]
            text, told = row["text"].strip(), (row["gender"], row["age"])
            yield Row(where, audio.stem, audio, text, "", "en", *told)
        return
    columns = ("client_id", "path", "sentence", "age", "gender")
    for where, row in read_columns(table, columns, "\t", quotes=False):
        audio = root / "clips" / row["path"]
        if audio.suffix != ".mp3":  # the first releases left it out
            audio = audio.with_name(audio.name + ".mp3")
        # The ids are 128 digits; so many of them tell all speakers apart.
        speaker = row["client_id"][:16]
        key, lang = f"{speaker}-{audio.stem}", row.get("locale") or root.name
        sentence, told = sentence_of(row["sentence"]), (row["gender"], row["age"])
        yield Row(where, key, audio, sentence, speaker, lang, *told)


def collect(root: Path, found: Found) -> None:
    """One subset of Common Voice."""
    for row in read_rows(root, found.subset):
        if not row.sentence:
            found.leave_out(row.key, NO_SENTENCE)
            continue
        labels = {
            **found.label("gender", row.gender, row.key, row.where),
            **found.label("age", row.age, row.key, row.where),
        }
        found.add(Utterance(row.key, str(row.audio), row.sentence, row.speaker, row.lang, labels), row.where)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    return prepare(CORPUS, collect, argv, __doc__)


if __name__ == "__main__":
    run_main(main)
