"""Small repairs of transcripts that several corpora need."""

from __future__ import annotations

# The letters and digits of U+FF01 ... U+FF5E are the ASCII ones, as wide as a Chinese character.
_HALF = {
    wide: wide - 0xFEE0 for wide in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))
}


_APOSTROPHES = {0x2018: "'", 0x2019: "'"}


def straight(text: str) -> str:
    """The text with curly apostrophes made the one of a keyboard, for a list may write both.

    >>> straight("it’s")
    "it's"
    """
    return text.translate(_APOSTROPHES)


def half_width(text: str) -> str:
    """The text with full-width Latin letters and digits made ASCII, as the Kaldi and WeNet recipes do.

    >>> half_width("ＡＴＭ 机")
    'ATM 机'
    """
    return text.translate(_HALF)
