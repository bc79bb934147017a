#!/usr/bin/env python3
"""Kaldi dirs of VocalSound: laughs, sighs, coughs and the like of 3,365 people, with gender and age (VED).

    python local/prepare_vocalsound.py vs_release_16k data/vocalsound --subsets test

Layout (vs_release_16k.zip or vs_release_44k.zip of github.com/YuanGongND/vocalsound):

    audio_16k/f0003_0_cough.wav     speaker (f or m and a number), which of his sessions, sound; or audio_44k/
    datafiles/tr.json               {"data": [{"wav": "/any/folder/f0003_0_cough.wav", "labels": "/m/01b_21"}, ...]}
    datafiles/val.json, te.json
    meta/all_meta.csv               speaker, gender, age, country, native language, health, ...; a first line may
                                    name them

Licence: CC BY-SA 4.0 (Gong, Yu and Glass, ICASSP 2022).

The sound is read off the file's name, as the makers tell it. Five of the six sounds are OSUM's events; a sniff is
``other``, the answer that OSUM's list has for it. OSUM's paper does not tell what it made of sniffs, nor whether
its 82.58 % are over all six sounds. Nobody speaks: the text is empty, and gender and age are those of the sound.
Ages are in years; their classes are the task table's.

Counts: 15,570, 1,860 and 3,594 items, which are the 21,024 that the makers tell; copies on hubs have a few fewer
(1,855 and 3,591: take those by --allow_partial). Lists and audio could not be checked here; the README calls the
files in meta/ json, and who has the archive reads them as csv.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpora import Corpus, Found, NotThere, Utterance, age_label, prepare, read_json  # beside this script

from wenet_osum.errors import OsumError, run_main
from wenet_osum.fileio import read_lines

LISTS = {"train": "tr.json", "dev": "val.json", "test": "te.json"}
CORPUS = Corpus(
    name="VocalSound",
    url="https://github.com/YuanGongND/vocalsound",
    licence="CC BY-SA 4.0",
    published={"train": 15570, "dev": 1860, "test": 3594},
    labels={
        "event": {
            "laughter": "laugh",
            "sigh": "sigh",
            "cough": "cough",
            "throatclearing": "throat clearing",
            "sneeze": "sneeze",
            "sniff": "other",
        },
        "gender": {"f": "female", "m": "male"},
    },
)
NO_AGE = "no age told, or two"
_NAME = re.compile(r"(([a-z])\d+)_\d+_([a-z]+)")


def read_ages(path: Path) -> dict[str, tuple[str, str]]:
    """Speaker -> age as written, ``""`` where two are told, and the line that tells it.

    Raises:
        OsumError: no such file, or a line that is none of a speaker.
    """
    ages: dict[str, tuple[str, str]] = {}
    for n, line in read_lines(path):
        cells = [cell.strip() for cell in next(csv.reader([line]), [])]
        speaker = re.fullmatch(r"[fm]\d+", cells[0]) if cells else None
        if speaker and len(cells) >= 3:
            where = f"{path}:{n}"
            if ages.setdefault(cells[0], (cells[2], where))[0] != cells[2]:
                ages[cells[0]] = ("", where)
        elif cells and n > 1:
            raise OsumError(f"{path}:{n}", f"cannot read {line!r:.80}", "write speaker,gender,age,...")
    return ages


def read_names(path: Path) -> list[tuple[str, str]]:
    """``(where, file name)`` of every recording of a list.

    Raises:
        OsumError: no such file, or not of this form.
    """
    content: Any = read_json(path)
    rows = content.get("data") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise OsumError(str(path), 'no list "data"', f"get it again from {CORPUS.url}")
    names = []
    for n, row in enumerate(rows, 1):
        wav = row.get("wav") if isinstance(row, dict) else None
        if not isinstance(wav, str):
            raise OsumError(f"{path}: item {n}", 'no "wav"', f"get it again from {CORPUS.url}")
        names.append((f"{path}: item {n}", wav.rpartition("/")[2]))
    return names


def collect(root: Path, found: Found) -> None:
    """One of the makers' three lists."""
    path = root / "datafiles" / LISTS[found.subset]
    if not path.is_file():
        raise NotThere(str(path), "no such file", f"unpack the whole of {CORPUS.url} there")
    audio = next((root / d for d in ("audio_16k", "audio_44k") if (root / d).is_dir()), root / "audio_16k")
    meta = root / "meta" / "all_meta.csv"
    ages = read_ages(meta) if meta.is_file() or not found.partial else {}
    for where, name in read_names(path):
        match = _NAME.fullmatch(Path(name).stem)
        if not match:
            raise OsumError(where, f"file name {name!r:.80}", "they are SPEAKER_SESSION_SOUND.wav")
        key, speaker, sex, sound = match[0], match[1], match[2], match[3]
        of_speaker = found.label("gender", sex, key, where)
        years, told = ages.get(speaker, ("", ""))
        if years:
            of_speaker |= age_label(years, told)
        else:
            found.leave_out(key, NO_AGE, "age")
        event = found.label("event", sound, key, where)
        found.add(Utterance(key, str(audio / name), "", speaker, "", event, of_speaker), where)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    return prepare(CORPUS, collect, argv, __doc__)


if __name__ == "__main__":
    run_main(main)
