"""What WeNet's scoring scripts count as one token, to the digit of their figures.

Read off what ``tools/compute-wer.py`` and ``tools/compute-cer.py`` do to a line, its accidents
included: a mark that is glued to the end of an ASCII word stays with it (``yes,`` is not ``yes``),
two ASCII words with nothing but a tag between them are one, a letter beyond ASCII that has a case
(``é``, Cyrillic, full-width ``Ａ``) begins a new token. A user who compares with a WeNet recipe's
figures needs them; the other normalisers are there for who does not.
"""

from __future__ import annotations

import re
import unicodedata

# Half- and full-width marks that are left out wherever a token could begin.
MARKS = "!,?、。！，；？：「」︰『』《》"

_BLANKS = " \t\r\n"
_ASCII = f"[^{_BLANKS}\x80-\U0010ffff]"  # an ASCII character that does not end a token
_TAG_OR_WORD = re.compile(f"<(?:(?!>){_ASCII})*>?|.{_ASCII}*", re.DOTALL)
_TAG = re.compile("<[^>]*>?")

# Nearly all texts are of ASCII, common Chinese characters (all "Lo") and marks: those are cut by one pattern.
_HAN = "\u4e00-\u9fea"
_COMMON = re.compile(f"[\x00-\x7f{_HAN}{MARKS}\u3000]*")
_TOKEN = re.compile(f"[{_HAN}]|<(?:(?!>){_ASCII})*>?|[^{MARKS}{_BLANKS}\u3000]{_ASCII}*", re.DOTALL)


def mixed_tokens(text: str) -> list[str]:
    """As ``compute-wer.py --char=1``: letters without case (Chinese, kana) alone, other text by words.

    >>> mixed_tokens("play 周杰伦, it's<happy> OK")
    ['PLAY', '周', '杰', '伦', "IT'S", 'OK']
    """
    if _COMMON.fullmatch(text):
        tokens = _TOKEN.findall(text.upper())
        return _normal(tokens) if "<" in text else tokens
    return _mixed_tokens(text)


def _mixed_tokens(text: str) -> list[str]:
    """The same of any text, character by character as compute-wer.py goes."""
    tokens = []
    at = 0
    while at < len(text):
        category = unicodedata.category(text[at])
        end = at + 1
        if text[at] not in MARKS and text[at] not in _BLANKS and category not in ("Zs", "Cn"):
            if category != "Lo" and (match := _TAG_OR_WORD.match(text, at)):
                end = match.end()
            tokens.append(text[at:end])
        at = end
    return _normal(tokens)


def cuts_words(text: str) -> bool:
    """Whether `mixed_tokens` cuts a word of ``text`` at a letter with case beyond ASCII."""
    return not text.isascii() and any(c > "\x7f" and unicodedata.category(c) in ("Lu", "Ll") for c in text)


def word_tokens(text: str) -> list[str]:
    """As ``compute-wer.py --char=0``: what stands between white space; marks stay.

    >>> word_tokens("你好 world, <unk>")
    ['你好', 'WORLD,']
    """
    return _normal(text.split())


def char_tokens(text: str) -> list[str]:
    """As ``compute-cer.py --char=1``: the characters of every word of letters and digits; a word with
    another mark in it stays whole.

    >>> char_tokens("it's ok")
    ["IT'S", 'O', 'K']
    """
    return [part for token in mixed_tokens(text) for part in (token if token.isalnum() else [token])]


def _normal(tokens: list[str]) -> list[str]:
    """Upper case and without tags; what is nothing but a tag is left out."""
    return [plain for token in tokens if (plain := _TAG.sub("", token.upper()))]
