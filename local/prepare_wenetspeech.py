#!/usr/bin/env python3
"""Kaldi dirs of WenetSpeech: 10,000 hours of Mandarin from the net, as segments of long recordings (ASR).

    python local/prepare_wenetspeech.py /corpora/wenetspeech data/wenetspeech --subsets TEST_NET,TEST_MEETING

Layout (as the download script of github.com/wenet-e2e/WenetSpeech leaves it):

    WenetSpeech.json    {"audios": [{"aid": "Y0...", "path": "audio/test_net/Y00000/Y0....opus", "duration": 9.5,
                          "segments": [{"sid": "Y0..._S00000", "begin_time": 0.4, "end_time": 3.1, "text": "...",
                                        "confidence": 1.0, "subsets": ["TEST_NET"]}, ...]}, ...]}
    audio/test_net/Y00000/Y0....opus

Get it: https://wenet.org.cn/WenetSpeech (asks for an agreement, gives a password). Licence: CC BY 4.0, for purposes
that are not commercial; the recordings stay their owners'. A segment may be in several subsets: S is part of M, M
of L. Nobody told the speakers. The JSON is read whole, some ten times its size in memory.
Counts, of segments: 13,825 of DEV, 24,774 of TEST_NET, 8,370 of TEST_MEETING, as recipes count them; the
makers tell hours (Zhang et al. 2022: 20, 23, 15; and 100, 1,000, 10,005 of S, M, L), so S, M and L have no
number here. The layout is that of WeNet's and lhotse's readers, not checked against the corpus here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from corpora import Corpus, Found, NotThere, Utterance, prepare, read_json  # beside this script

from wenet_osum.errors import OsumError, run_main

CORPUS = Corpus(
    name="WenetSpeech",
    url="https://wenet.org.cn/WenetSpeech",
    licence="CC BY 4.0, not for commerce",
    published={"TEST_NET": 24774, "TEST_MEETING": 8370, "DEV": 13825, "S": None, "M": None, "L": None},
)
NO_TRANSCRIPT = "no transcript"
NO_LENGTH = "a segment that ends where it begins"


@lru_cache(maxsize=1)  # the subsets share it, and it is large
def read_audios(path: Path) -> list[dict[str, Any]]:
    """The recordings.

    Raises:
        OsumError: no such file, or it is in another form.
    """
    content = read_json(path)
    audios = content.get("audios") if isinstance(content, dict) else None
    if not isinstance(audios, list):
        raise OsumError(str(path), "has no list 'audios'", "get WenetSpeech.json again")
    return audios


def collect(root: Path, found: Found) -> None:
    """One subset of WenetSpeech."""
    path = root / "WenetSpeech.json"
    before = found.items
    for number, audio in enumerate(read_audios(path), 1):
        where = f"{path}: audio {number}"
        try:
            for segment in audio["segments"]:
                if found.subset in segment["subsets"]:
                    add(root, found, audio, segment, f"{path}: {segment['sid']}")
        except (KeyError, TypeError, ValueError) as e:
            raise OsumError(where, f"malformed ({e!r:.80})", "get WenetSpeech.json again") from None
    if found.items == before:
        raise NotThere(str(path), f"no segment of {found.subset} in it", f"get the whole of it, {CORPUS.url}")


def add(root: Path, found: Found, audio: dict[str, Any], segment: dict[str, Any], where: str) -> None:
    """One segment, used or left out."""
    key, text = str(segment["sid"]), str(segment["text"]).strip()
    start, end = float(segment["begin_time"]), float(segment["end_time"])
    if not text:
        found.leave_out(key, NO_TRANSCRIPT)
    elif end <= start:
        found.leave_out(key, NO_LENGTH)
    else:
        wav = str(root / audio["path"])
        recording = str(audio["aid"])
        found.add(Utterance(key, wav, text, lang="zh", recording=recording, start=start, end=end), where)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    return prepare(CORPUS, collect, argv, __doc__)


if __name__ == "__main__":
    run_main(main)
