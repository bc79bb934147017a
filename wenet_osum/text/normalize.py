"""The form in which label text is written, and how it splits into words.

Both rules are OSUM's: an answer is lower-case and has no spaces beside Chinese characters and tags.
"""

from __future__ import annotations

import re

# Han: the unified block (all that OSUM knows), extension A, compatibility, extensions B and up.
_HAN = "\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\U00020000-\U000323af"
_IS_HAN = re.compile(f"[{_HAN}]")
_SPACE_BESIDE = re.compile(f" (?=[{_HAN}<>])|(?<=[{_HAN}<>]) ")
_WORD = re.compile(f"[{_HAN}]|[^\\s{_HAN}]+")


def is_cjk(char: str) -> bool:
    """Whether ``char`` (one character) is a Chinese character; kana and hangul are not."""
    return _IS_HAN.match(char) is not None


def has_cjk(text: str) -> bool:
    """Whether there is a Chinese character in ``text``."""
    return _IS_HAN.search(text) is not None


def process_text(text: str) -> str:
    """Bring text to the form all answers have: OSUM's rule, then runs of spaces made one.

    Lower-case; no space beside a Chinese character, ``<`` or ``>``; other white space is one blank,
    none at the ends. Punctuation stays. ``process_text(process_text(s)) == process_text(s)``.

    Example:
        >>> process_text("Hello World 你 好 <HAPPY>")
        'hello world你好<happy>'
    """
    text = " ".join(text.lower().split())
    return _SPACE_BESIDE.sub("", text) if " " in text else text


def split_words(text: str) -> list[str]:
    """Split mixed text: every Chinese character alone, all else at white space.

    Example:
        >>> split_words("play 周杰伦 songs")
        ['play', '周', '杰', '伦', 'songs']
    """
    return _WORD.findall(text)


def join_words(words: list[str]) -> str:
    """Join words to a transcript: a blank between words unless a Chinese character is beside it."""
    return process_text(" ".join(words))
