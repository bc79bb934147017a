#!/usr/bin/env python3
"""Kaldi dirs of LibriSpeech: English read from books, with its readers' genders (ASR, SGC).

    python local/prepare_librispeech.py LibriSpeech data/librispeech --subsets test-clean,test-other

Layout (all of openslr.org/12 unpacked into one folder):

    LibriSpeech/SPEAKERS.TXT                             ;ID |SEX| SUBSET |MINUTES| NAME
    LibriSpeech/test-clean/1089/134686/1089-134686-0000.flac
    LibriSpeech/test-clean/1089/134686/1089-134686.trans.txt    1089-134686-0000 HE HOPED ...

Get it: https://www.openslr.org/12. Licence: CC BY 4.0. The texts are upper case without marks and stay so.
Counts, of utterances: Panayotov et al. 2015 tell hours and speakers; these are the numbers of lines in the
``*.trans.txt`` of each archive, as Kaldi's and Hugging Face's recipes have them. An item is a line of a
``*.trans.txt``. The layout could not be checked against the corpus here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corpora import Corpus, Found, NotThere, Utterance, prepare, read_pairs  # beside this script

from wenet_osum.errors import OsumError, run_main
from wenet_osum.fileio import read_lines

CORPUS = Corpus(
    name="LibriSpeech",
    url="https://www.openslr.org/12",
    licence="CC BY 4.0",
    published={
        "test-clean": 2620,
        "test-other": 2939,
        "dev-clean": 2703,
        "dev-other": 2864,
        "train-clean-100": 28539,
        "train-clean-360": 104014,
        "train-other-500": 148688,
    },
    labels={"gender": {"F": "female", "M": "male"}},
)


def read_speakers(path: Path) -> dict[str, tuple[str, str]]:
    """Reader -> sex as written, and the line that tells it.

    Raises:
        OsumError: no such file, or a line that is none of a reader.
    """
    speakers = {}
    for n, line in read_lines(path):
        if line.strip() and not line.startswith(";"):
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) < 5 or not cells[0].isdigit():
                raise OsumError(f"{path}:{n}", f"cannot read {line!r:.80}", "get the file again")
            speakers[cells[0]] = (cells[1], f"{path}:{n}")
    return speakers


def collect(root: Path, found: Found) -> None:
    """One subset of LibriSpeech."""
    folder = root / found.subset
    if not folder.is_dir():
        raise NotThere(str(folder), "no such folder", f"unpack {found.subset}.tar.gz of {CORPUS.url} there")
    speakers = read_speakers(root / "SPEAKERS.TXT")
    for transcripts in sorted(folder.glob("*/*/*.trans.txt")):
        reader = transcripts.parents[1].name
        for where, key, text in read_pairs(transcripts):
            if reader not in speakers:
                raise OsumError(where, f"reader {reader} is not in SPEAKERS.TXT", "get that file again")
            gender = found.label("gender", speakers[reader][0], key, speakers[reader][1])
            wav = str(transcripts.parent / f"{key}.flac")
            found.add(Utterance(key, wav, text, reader, "en", of_speaker=gender), where)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    return prepare(CORPUS, collect, argv, __doc__)


if __name__ == "__main__":
    run_main(main)
