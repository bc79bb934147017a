"""What the scripts ``prepare_*.py`` share: a corpus and its labels described, its utterances found, Kaldi dirs written.

A script describes its ``Corpus``, defines ``collect(root, found)``, which walks the official layout and tells
``found`` of every item, and ends with ``prepare(CORPUS, collect, argv, __doc__)``.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # the scripts run uninstalled too

from .ages import age_label
from .corpus import Corpus, Out, Utterance
from .found import Found, NotThere
from .main import prepare
from .tables import read_columns, read_json, read_pairs
from .text import half_width, straight
from .video import audio_of

__all__ = [
    "Corpus",
    "Found",
    "NotThere",
    "Out",
    "Utterance",
    "age_label",
    "audio_of",
    "half_width",
    "prepare",
    "read_columns",
    "read_json",
    "read_pairs",
    "straight",
]
