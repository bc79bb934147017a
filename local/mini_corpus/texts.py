"""Sentences of open vocabulary: the examples of WordNet, and which sentences must stay out.

``wordnet-base`` (Debian; Princeton's WordNet 3.0, its own permissive licence) explains its 117,659 senses with
some 48,000 example sentences and phrases, short and on everything under the sun:
``/usr/share/wordnet/data.{noun,verb,adj,adv}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from asterisk_text import plain_words  # beside this folder

from wenet_osum.errors import OsumError

FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
SHORTEST, LONGEST = 3, 16  # words
_EXAMPLE = re.compile(r'"([^"]+)"')
# What a synthesiser reads in one way only: no digits, signs, abbreviations or single letters.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z' ,.;:!?-]*")
_CAPITALS = re.compile(r"\b[A-Z]{2,}\b|\b[B-HJ-NP-Zb-hj-np-z]\b|\.\s*\S")
_QUOTED = re.compile(r"\s*-\s*[A-Z][^.]*$")  # "Full fathom five thy father lies- Shakespeare"


def readable(text: str) -> bool:
    """Whether a sentence has ``SHORTEST`` to ``LONGEST`` words that sound in one way only."""
    if not _PLAIN.fullmatch(text) or _CAPITALS.search(text.replace("'", "")):
        return False
    return SHORTEST <= len(plain_words(text).split()) <= LONGEST


def wordnet_examples(root: Path) -> list[str]:
    """The readable examples, in the files' order, each once.

    Args:
        root: where the package is installed (``/``) or unpacked.

    Raises:
        OsumError: it is not there.
    """
    folder = root / "usr/share/wordnet"
    found: dict[str, None] = {}
    for name in FILES:
        if not (folder / name).is_file():
            raise OsumError(str(folder / name), "no such file", "run: apt-get install wordnet-base")
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            for example in _EXAMPLE.findall(line.partition(" | ")[2]):
                example = _QUOTED.sub("", example).strip(" ;,")
                if readable(example):
                    found[example] = None
    return list(found)


class Held:
    """Sentences of test sets. What holds one of them may not be trained on.

    Args:
        sentences: plain words.
    """

    def __init__(self, sentences: Iterable[str]):
        self.sentences = {f" {plain_words(s)} " for s in sentences}

    def covers(self, text: str) -> bool:
        """Whether ``text`` is one of them, or holds one of four words or more."""
        words = f" {plain_words(text)} "
        return words in self.sentences or any(s in words for s in self.sentences if len(s.split()) > 3)


def without(texts: Iterable[str], held: Held, used: set[str]) -> Iterator[str]:
    """The texts that are not held out and not in ``used`` (plain words), to which they are added."""
    for text in texts:
        words = plain_words(text)
        if words not in used and not held.covers(text):
            used.add(words)
            yield text


def read_texts(data_dirs: Iterable[Path]) -> list[str]:
    """The sentences of Kaldi dirs.

    Raises:
        OsumError: a dir has no ``text``.
    """
    sentences = []
    for folder in data_dirs:
        if not (folder / "text").is_file():
            raise OsumError(str(folder / "text"), "no such file", "give Kaldi dirs to --held_out")
        lines = (folder / "text").read_text(encoding="utf-8").splitlines()
        sentences += [line.partition(" ")[2] for line in lines]
    return sentences
