"""What is made equal before texts are compared. Each score names the normaliser it used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from wenet_osum.errors import OsumError

Normalizer = Callable[[str], str]

NORMALIZERS = ("wenet", "whisper_en", "plain")

_TAG = re.compile(r"<[^<>]*>")
# The marks that WeNet's compute-wer.py leaves out: half- and full-width ones, 17 in its list.
_MARKS = re.compile("[!,?、。！，；？：「」︰『』《》]")


def plain(text: str) -> str:
    """Runs of white space become one space; nothing else changes.

    >>> plain(" Hello,  World ")
    'Hello, World'
    """
    return " ".join(text.split())


def wenet(text: str) -> str:
    """Upper case, without ``<...>`` tags and without the 17 marks of WeNet's compute-wer.py.

    Equal to that script (``--char=1 --rt=1``) for Chinese, for ASCII words and for their mixture,
    except where it is accidental: it keeps a mark that is glued to the end of an ASCII word
    ("yes," differs from "yes"), joins two ASCII words with a tag between them and cuts a word at
    each accented letter; here marks and tags part words and nothing else does. ``.`` and ``'``
    are not among the marks.

    >>> wenet("Hello, world 你好。<happy>")
    'HELLO WORLD 你好'
    """
    return plain(_MARKS.sub(" ", _TAG.sub(" ", text)).upper())


@lru_cache(maxsize=8)
def get_normalizer(name: str) -> Normalizer:
    """The normaliser of that name.

    Args:
        name: ``wenet``; ``plain``; ``whisper_en``: Whisper's English normaliser as transformers
            has it (numbers, contractions, fillers), without its British-to-American spelling map,
            which only comes with a Whisper checkpoint; ``whisper_en:normalizer.json``: the same
            with that map, a JSON object of word to word.

    Raises:
        OsumError: no such normaliser, or its spelling map cannot be read.
    """
    kind, _, mapping = name.partition(":")
    if kind == "whisper_en":
        # transformers is slow to import and only this normaliser needs it
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        whisper = EnglishTextNormalizer(_spelling_map(Path(mapping)) if mapping else {})
        return lambda text: plain(whisper(text))
    if name == "wenet":
        return wenet
    if name == "plain":
        return plain
    raise OsumError("normalizer", f"no normaliser {name!r}", f"choose one of {', '.join(NORMALIZERS)}")


def _spelling_map(path: Path) -> dict[str, str]:
    mend = "give the normalizer.json of a Whisper checkpoint"
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise OsumError(str(path), f"not a readable spelling map ({e})", mend) from None
    if not isinstance(words, dict) or not all(isinstance(v, str) for v in words.values()):
        raise OsumError(str(path), "not an object of word to word", mend)
    return words
