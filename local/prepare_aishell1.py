#!/usr/bin/env python3
"""Kaldi dirs of AISHELL-1: Mandarin read by 400 speakers, with their genders (ASR, SGC).

    python local/prepare_aishell1.py /corpora/aishell data/aishell1 --subsets test

Layout (both archives of openslr.org/33 unpacked into one folder, and the archives a speaker in
``data_aishell/wav`` too):

    data_aishell/transcript/aishell_transcript_v0.8.txt    BAC009S0764W0121 甚至 出现 交易 几乎 停滞 的 情况
    data_aishell/wav/test/S0764/BAC009S0764W0121.wav
    resource_aishell/speaker.info                          0764 M

Get it: https://www.openslr.org/33. Licence: Apache 2.0. The text is kept as segmented into words there, with
full-width letters made ASCII; scores of Chinese go by characters.
Counts, of wavs: Kaldi's recipe expects 141,925, of which 141,600 have a transcript: 120,098 of train, 14,326
of dev, 7,176 of test (the numbers that other recipes print). The rest are left out.
Neither the layout nor the counts by subset could be checked against the corpus here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corpora import Corpus, Found, NotThere, Utterance, half_width, prepare, read_pairs  # beside this script

from wenet_osum.errors import OsumError, run_main

CORPUS = Corpus(
    name="AISHELL-1",
    url="https://www.openslr.org/33",
    licence="Apache 2.0",
    published={"test": 7176, "dev": 14331, "train": 120418},
    labels={"gender": {"F": "female", "M": "male"}},
)
NO_TRANSCRIPT = "no transcript"


def read_genders(path: Path) -> dict[str, tuple[str, str]]:
    """Speaker (``S0764``) -> gender as written, and the line that tells it."""
    return {f"S{key.removeprefix('S')}": (gender, where) for where, key, gender in read_pairs(path)}


def collect(root: Path, found: Found) -> None:
    """One subset of AISHELL-1: the wavs of its folder, and the transcripts of its speakers."""
    folder = root / "data_aishell/wav" / found.subset
    if not folder.is_dir():
        mend = f"unpack data_aishell.tgz of {CORPUS.url} and the archives in its wav/"
        raise NotThere(str(folder), "no such folder", mend)
    genders = read_genders(root / "resource_aishell/speaker.info")
    wavs = {wav.stem: wav for wav in folder.glob("*/*.wav")}
    speakers = {path.name for path in folder.iterdir() if path.is_dir()}
    transcripts = root / "data_aishell/transcript/aishell_transcript_v0.8.txt"
    spoken = set()
    for where, key, text in read_pairs(transcripts):
        speaker = key[6:11]  # BAC009 S0764 W0121
        if speaker not in speakers:
            continue
        if speaker not in genders:
            raise OsumError(where, f"speaker {speaker} is not in speaker.info", "get resource_aishell again")
        spoken.add(key)
        gender = found.label("gender", genders[speaker][0], key, genders[speaker][1])
        wav = str(wavs.get(key, folder / speaker / f"{key}.wav"))
        found.add(Utterance(key, wav, half_width(text), speaker, "zh", of_speaker=gender), where)
    for key in sorted(wavs.keys() - spoken):
        found.leave_out(key, NO_TRANSCRIPT)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    return prepare(CORPUS, collect, argv, __doc__)


if __name__ == "__main__":
    run_main(main)
