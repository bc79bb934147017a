"""The texts of Debian's Asterisk prompts: reading the lists, and what is spoken in each entry.

A list (``core-sounds-it.txt.gz``) has a line ``file: text`` for every prompt and comments behind
``;``. The texts were typed for people who record or translate prompts, not for recognisers: they
hold notes in brackets, digits, signs and a few slips. ``spoken_form`` turns an entry into plain
words, or raises ``LeftOut`` with a cause when it is not sure what the speaker says: a wrong
reference costs more than a lost one.
"""

from __future__ import annotations

import gzip
import re
import unicodedata
import zlib
from collections.abc import Mapping
from pathlib import Path

from wenet_osum.errors import OsumError

# Causes, in the order in which they are printed.
SILENCE = "silence"
SOUND = "sound, not speech"
NO_TEXT = "no text in the package's list"
TWO_TEXTS = "two different texts for one file"
RUN_TOGETHER = "another entry's name inside the text"
BRACKETED = "words in brackets, perhaps not spoken"
LOST_LETTER = "a letter lost in the text (a question mark stands for it)"
NO_READING = "a number or sign without a sure reading"
UNREADABLE = "unreadable audio"
EMPTY_AUDIO = "audio without samples"
TOO_LONG = "longer than 30 s"
NO_FILE = "text without an audio file"
CAUSES = (
    *(SILENCE, SOUND, NO_TEXT, TWO_TEXTS, RUN_TOGETHER, BRACKETED, LOST_LETTER, NO_READING),
    *(UNREADABLE, EMPTY_AUDIO, TOO_LONG, NO_FILE),
)

# Known by name, since some lists describe them in plain words ("un suono beep") or not at all.
SOUNDS = frozenset(
    (
        "beep",
        "beeperr",
        "ascending-2tone",
        "descending-2tone",
        "confbridge-join",
        "confbridge-leave",
        "tt-monkeys",
    )
)
# The Spanish list has digits/0 twice, "cero" and, where digits/10 belongs, "diez".
SLIPS = {("es", "digits/0", "diez"): "digits/10"}

_BRACKETS = re.compile(r"\[([^\]]*)\]|\(([^)]*)\)|<([^>]*)>")
# The Italian list went through an encoding without accents: "sar? esattamente", "la linea ? piena".
_LOST = re.compile(r"\w\?\s+[a-z]|(?:^|\s)\?\s")
_ENTRY_NAME = re.compile(r"[a-z]+-[a-z-]+:")
_SIGNS = frozenset("*#@$%&+=/")


class LeftOut(Exception):
    """An entry that gives no utterance; ``cause`` is one of ``CAUSES``."""

    def __init__(self, cause: str):
        self.cause = cause
        super().__init__(cause)


def read_texts(path: Path, lang: str) -> dict[str, list[str]]:
    """Read a list, plain or gzipped.

    Returns:
        name of the prompt without suffix ("digits/1") -> its texts as typed, without repeats
        (one, but for the lists' slips; an empty text gives an empty list).

    Raises:
        OsumError: the list is damaged or not UTF-8.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        content = raw.decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as e:
        raise OsumError(str(path), f"unreadable list of texts ({e})", "install its package again") from None
    texts: dict[str, list[str]] = {}
    for line in content.splitlines():
        name, colon, text = line.partition(":")
        name, text = name.strip(), text.strip()
        if not colon or name.startswith(";"):
            continue
        found = texts.setdefault(SLIPS.get((lang, name, text), name), [])
        if text and text not in found:
            found.append(text)
    return texts


def plain_words(text: str) -> str:
    """Lower case, one space between words, no punctuation.

    Letters of any script keep their accents; an apostrophe stays inside a word ("l'aide", "don't")
    and hyphens part words ("dix-sept" is two). Digits and signs are not treated here.

    Example:
        >>> plain_words("Trait d’union: A.M., «Ещё»")
        "trait d'union a m ещё"
    """
    text = unicodedata.normalize("NFC", text).lower().replace("’", "'").replace("‘", "'")
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return " ".join(word for word in (w.strip("'") for w in kept.split()) if word)


def digit_words(texts: Mapping[str, list[str]]) -> dict[str, str]:
    """How a language reads the digits, from the list's own entries ``digits/0`` ... ``digits/9``."""
    entries = {d: texts.get(f"digits/{d}", []) for d in "0123456789"}
    return {d: plain_words(found[0]) for d, found in entries.items() if len(found) == 1}


def spoken_form(name: str, found: list[str], digits: Mapping[str, str]) -> tuple[str, bool]:
    """What is said in a prompt.

    A digit on its own becomes its word ("press 1" -> "press one"). A bracket around signs only
    (``at [@]``) is removed; a bracket with words in it may or may not be spoken (the Spanish list
    has "[temporales]" for a spoken word, the Italian one "(in inglese)" as a note), so the entry is left out.

    Args:
        name: the prompt's name ("digits/1").
        found: its texts, as ``read_texts`` gives them.
        digits: from ``digit_words``.

    Returns:
        plain words; whether a bracket was removed.

    Raises:
        LeftOut: nothing is spoken, or what is spoken is not sure.
    """
    if name.startswith("silence/"):
        raise LeftOut(SILENCE)
    if name in SOUNDS or any(_BRACKETS.search(t) and not plain_words(_BRACKETS.sub(" ", t)) for t in found):
        raise LeftOut(SOUND)
    if len(found) != 1:
        raise LeftOut(TWO_TEXTS if found else NO_TEXT)
    text = found[0]
    if _ENTRY_NAME.search(text):
        raise LeftOut(RUN_TOGETHER)
    inside = ["".join(groups) for groups in _BRACKETS.findall(text)]
    if any(plain_words(note) for note in inside):
        raise LeftOut(BRACKETED)
    text = _BRACKETS.sub(" ", text)
    if _LOST.search(text):
        raise LeftOut(LOST_LETTER)
    # "H.323" and "28.8" are one number each, so digits are looked at before punctuation goes.
    tokens = [re.sub(r"^\W+|\W+$", "", token) for token in text.split()]
    tokens = [digits.get(token, token) for token in tokens]
    if _SIGNS & set(text) or any(c.isdigit() for token in tokens for c in token):
        raise LeftOut(NO_READING)
    words = plain_words(" ".join(tokens))
    if not words:
        raise LeftOut(NO_TEXT)
    return words, bool(inside)
