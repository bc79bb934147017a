#!/usr/bin/env python3
"""Kaldi dirs of MELD: dialogues of the series Friends, with the emotion of every utterance (ASR, SER).

    python local/prepare_meld.py MELD.Raw data/meld --subsets test

Layout (MELD.Raw.tar.gz of web.eecs.umich.edu/~mihalcea/downloads, its three archives unpacked in place; the lists
are also in github.com/declare-lab/MELD, data/MELD):

    train_sent_emo.csv      Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,...
    dev_sent_emo.csv, test_sent_emo.csv
    train_splits/dia0_utt0.mp4, dev_splits_complete/, output_repeated_splits_test/

Lists and folders may also lie in train/, dev/ and test/. A clip's audio is a wav or flac of its name beside it,
else what ffmpeg makes of the mp4 whenever it is read.

Licence: the repository, with the lists, is GPL-3.0; the clips are of a television series, for research alone.

Stage directions in brackets, which are not spoken, are taken out of the texts; where they are not closed, up to the
end. A text that is nothing else leaves the utterance without one, and with its emotion. The lists write both it's and
it’s (5,000 times the latter): all are made the former. The lists' speakers are no people in Kaldi's sense ("All",
"Woman" in scene after scene) and are not used.

Two clips are known to be broken and left out: train dia125_utt3 cannot be decoded, dev dia110_utt7 is not in the
archive. By the lists' own times three are cut wrongly and longer than 30 s: train dia309_utt0 (41 s), test
dia38_utt4 (305 s) and dia220_utt0 (235 s); they stay, so that the test set is that of the others' scores.

Counts: 9,989, 1,109 and 2,610 utterances (README of the repository). The lists could be checked against the real
ones, the clips could not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from corpora import (
    Corpus,
    Found,
    NotThere,
    Utterance,
    audio_of,
    prepare,
    read_columns,
    straight,
)  # beside this script

from wenet_osum.errors import OsumError, run_main

CORPUS = Corpus(
    name="MELD",
    url="https://github.com/declare-lab/MELD",
    licence="GPL-3.0 (lists); clips of a television series, for research",
    published={"train": 9989, "dev": 1109, "test": 2610},
    labels={
        "emotion": {
            "neutral": "neutral",
            "joy": "happy",
            "sadness": "sad",
            "anger": "anger",
            "surprise": "surprise",
            "fear": "fear",
            "disgust": "disgust",
        }
    },
)
FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
BROKEN = {
    ("train", "dia125_utt3"): "a clip known to be broken: it cannot be decoded",
    ("dev", "dia110_utt7"): "a clip known to be lacking in the archive",
}
NOT_SPOKEN = "in brackets, not spoken: taken out of the text"
ONLY_DIRECTIONS = "nothing but stage directions"
_DIRECTION = re.compile(r"\([^()]*(\)|$)|\[[^\[\]]*(\]|$)")


def spoken(text: str) -> str:
    """A text without its stage directions.

    >>> spoken("I'd better go. (She goes and sits down in the")
    "I'd better go."
    """
    return " ".join(_DIRECTION.sub(" ", text).split())


def find(root: Path, subset: str, name: str) -> Path:
    """A list or folder of a subset, in the root or the subset's own folder.

    Raises:
        NotThere: in neither.
    """
    places = [root / name, root / subset / name]
    for path in places:
        if path.exists():
            return path
    raise NotThere(
        str(places[0]), "not there", f"unpack {subset}.tar.gz of MELD.Raw ({CORPUS.url}) in its place"
    )


def collect(root: Path, found: Found) -> None:
    """One subset of MELD."""
    table = find(root, found.subset, f"{found.subset}_sent_emo.csv")
    clips = find(root, found.subset, FOLDERS[found.subset])
    for where, row in read_columns(table, ("Utterance", "Emotion", "Dialogue_ID", "Utterance_ID")):
        dialogue, number = row["Dialogue_ID"], row["Utterance_ID"]
        if not (dialogue.isdigit() and number.isdigit()):
            raise OsumError(where, f"dialogue {dialogue!r:.40}, utterance {number!r:.40}", "both are numbers")
        name = f"dia{dialogue}_utt{number}"
        key = f"{found.subset}_{name}"  # the subsets count their dialogues from 0 each
        if (found.subset, name) in BROKEN:
            found.leave_out(key, BROKEN[found.subset, name])
            continue
        written = straight(row["Utterance"])
        text: str | None = spoken(written)
        if not re.search(r"\w", text or ""):
            text = None
            found.leave_out(key, ONLY_DIRECTIONS, "text")
        elif text != " ".join(written.split()):
            found.leave_out(key, NOT_SPOKEN, "stage direction")
        emotion = found.label("emotion", row["Emotion"], key, where)
        found.add(Utterance(key, audio_of(clips, name), text, lang="en", labels=emotion), where)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    return prepare(CORPUS, collect, argv, __doc__)


if __name__ == "__main__":
    run_main(main)
