"""WeNet's character tokenizer: a table of ``symbol id`` lines (units.txt)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from wenet_osum.errors import OsumError
from wenet_osum.fileio import read_lines
from wenet_osum.text.base import BaseTokenizer

BLANK = "▁"  # how WeNet's tables write a space
_TAG = re.compile(r"(<[^<>]+>)")
_SYMBOL = re.compile(r"(<[^<>]+>|\[[^][]+\]|\{[^{}]+\})")
_ENDS = ("<sos/eos>", "</s>", "<eos>")
_SILENT = {*_ENDS, "<blank>", "<pad>", "<s>", "<sos>"}


class _Table(NamedTuple):
    ids: dict[str, int]
    symbols: dict[int, str]
    non_lang: frozenset[str]


class CharTokenizer(BaseTokenizer):
    """One id a character; a tag such as ``<happy>`` or a time ``<0.42>`` that the table has is one id too.

    A character outside the table becomes ``<unk>``. But for the tags of the table, blanks at the ends of a text,
    and the empty text, which has none here, the ids are those of WeNet's character tokenizer.

    Args:
        symbol_table_path: ``symbol id`` a line, UTF-8; a space is written ``▁``.
        non_lang_syms_path: WeNet's file of symbols in ``{}``, ``<>`` or ``[]``, one a line, which are one token
            each; with it, all other text is upper-cased, as in WeNet.
        split_with_space: tokens are what stands between blanks, in place of characters.
        connect_symbol: stands between tokens when they are joined to text.
    """

    def __init__(
        self,
        symbol_table_path: str | Path,
        non_lang_syms_path: str | Path | None = None,
        split_with_space: bool = False,
        connect_symbol: str = "",
    ):
        self.symbol_table_path = str(symbol_table_path)
        self.non_lang_syms_path = non_lang_syms_path
        self.split_with_space, self.connect_symbol = split_with_space, connect_symbol

    def _build(self) -> _Table:
        ids: dict[str, int] = {}
        for n, line in read_lines(self.symbol_table_path):
            symbol, _, number = line.rstrip().replace("\t", " ").rpartition(" ")
            where = f"{self.symbol_table_path}:{n}"
            if not symbol or not number.isdecimal():
                raise OsumError(where, f"{line!r} is not 'symbol id'", "write one symbol and its id a line")
            if symbol in ids or int(number) in ids.values():
                raise OsumError(where, f"symbol or id of {line!r} is given twice", "drop one")
            ids[symbol] = int(number)
        if not ids:
            raise OsumError(self.symbol_table_path, "is empty", "write one symbol and its id a line")
        return _Table(ids, {i: s for s, i in ids.items()}, self.read_non_lang())

    def read_non_lang(self) -> frozenset[str]:
        """The symbols of ``non_lang_syms_path``.

        Raises:
            OsumError: no such file, or a line that is no symbol in brackets.
        """
        symbols = set()
        for n, line in read_lines(self.non_lang_syms_path) if self.non_lang_syms_path else ():
            if not _SYMBOL.fullmatch(line.strip()):
                where = f"{self.non_lang_syms_path}:{n}"
                raise OsumError(where, f"{line!r} is no symbol", "write {NOISE}, <NOISE> or [NOISE]")
            symbols.add(line.strip())
        return frozenset(symbols)

    def text2tokens(self, line: str) -> list[str]:
        table, tokens, words = self.backend, [], ""
        for part in (_SYMBOL if self.non_lang_syms_path else _TAG).split(line):
            known = _TAG.fullmatch(part) and part in table.ids
            if known or part.upper() in table.non_lang:
                tokens += [*self.pieces(words), part if known else part.upper()]
                words = ""
            elif self.non_lang_syms_path:  # other symbols part words as well
                tokens += self.pieces(part.strip().upper())
            else:
                words += part
        return tokens + self.pieces(words)

    def pieces(self, text: str) -> list[str]:
        """The tokens of text without symbols."""
        if not text:
            return []
        return text.split(" ") if self.split_with_space else list(text.replace(" ", BLANK))

    def tokens2text(self, tokens: list[str]) -> str:
        return self.connect_symbol.join(t for t in tokens if t not in _SILENT).replace(BLANK, " ")

    def tokens2ids(self, tokens: list[str]) -> list[int]:
        ids = self.backend.ids
        try:
            return [ids[t] if t in ids else ids["<unk>"] for t in tokens]
        except KeyError:
            strange = next(t for t in tokens if t not in ids)
            raise OsumError(
                self.symbol_table_path, f"lacks {strange!r} and has no <unk>", "add a line '<unk> 1'"
            ) from None

    def ids2tokens(self, ids: list[int]) -> list[str]:
        return [self.backend.symbols[int(i)] for i in ids]

    def vocab_size(self) -> int:
        return max(self.backend.symbols) + 1

    @property
    def symbol_table(self) -> dict[str, int]:
        return self.backend.ids

    @property
    def eos_id(self) -> int:
        for symbol in _ENDS:
            if symbol in self.backend.ids:
                return self.backend.ids[symbol]
        raise OsumError(self.symbol_table_path, "no end symbol", f"add a line '{_ENDS[0]} ID'")
