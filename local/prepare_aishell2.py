#!/usr/bin/env python3
"""Kaldi dirs of AISHELL-2: Mandarin, its tests recorded by iOS, Android and a microphone at once (ASR).

    python local/prepare_aishell2.py /corpora/aishell2 data/aishell2 --subsets test-ios,test-android,test-mic

Layout (a folder with one or both of the archives; ``AISHELL-2/`` may be left out):

    AISHELL-DEV-TEST-SET/iOS/test/wav.scp      IT0011W0001<tab>wav/T0011/IT0011W0001.wav
    AISHELL-DEV-TEST-SET/iOS/test/trans.txt    IT0011W0001<tab>换一首歌
    AISHELL-DEV-TEST-SET/iOS/test/wav/T0011/IT0011W0001.wav
    AISHELL-DEV-TEST-SET/{iOS,Android,Mic}/{dev,test}/...
    AISHELL-2/iOS/data/{wav.scp,trans.txt,wav/}            the training data

Get it: dev and test at https://www.aishelltech.com/aishell_eval, the training data on application at
https://www.aishelltech.com/aishell_2. Licence: free for academic research, not for commerce. Full-width letters
are made ASCII.
Counts, of utterances, from the README of Kaldi's recipe, which is the corpus's own: dev 2,500 and test 5,000 in
each channel; of the training data it says no more than "around 1 million". An item is a line of ``wav.scp``.
The layout could not be checked against the corpus here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corpora import Corpus, Found, NotThere, Utterance, half_width, prepare, read_pairs  # beside this script

from wenet_osum.errors import run_main

CHANNELS = ("iOS", "Android", "Mic")
CORPUS = Corpus(
    name="AISHELL-2",
    url="https://www.aishelltech.com/aishell_2",
    licence="academic research only",
    published={
        **{f"test-{channel.lower()}": 5000 for channel in CHANNELS},
        **{f"dev-{channel.lower()}": 2500 for channel in CHANNELS},
        "train": None,
    },
)
NO_TRANSCRIPT = "no transcript"


def places(root: Path, subset: str) -> list[Path]:
    """Where a subset may be."""
    if subset == "train":
        return [root / "AISHELL-2/iOS/data", root / "iOS/data"]
    part, _, channel = subset.partition("-")
    channel = next(c for c in CHANNELS if c.lower() == channel)
    return [root / "AISHELL-DEV-TEST-SET" / channel / part, root / channel / part]


def collect(root: Path, found: Found) -> None:
    """One subset of AISHELL-2."""
    candidates = places(root, found.subset)
    folder = next((path for path in candidates if path.is_dir()), None)
    if folder is None:
        raise NotThere(str(candidates[0]), "no such folder", f"unpack it there; it is at {CORPUS.url}")
    texts = {key: text for _, key, text in read_pairs(folder / "trans.txt")}
    for where, key, wav in read_pairs(folder / "wav.scp"):
        if key in texts:
            speaker = Path(wav).parent.name
            found.add(Utterance(key, str(folder / wav), half_width(texts[key]), speaker, "zh"), where)
        else:
            found.leave_out(key, NO_TRANSCRIPT)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    return prepare(CORPUS, collect, argv, __doc__)


if __name__ == "__main__":
    run_main(main)
