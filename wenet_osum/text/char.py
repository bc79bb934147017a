"""WeNet's character tokenizer: a table of ``symbol id`` lines (units.txt)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from wenet_osum.errors import OsumError
from wenet_osum.fileio import read_lines
from wenet_osum.text.base import BaseTokenizer

BLANK = "▁"  # how WeNet's tables write a space
_UNIT = re.compile("<[^<>]*>|.", re.DOTALL)
_ENDS = ("<sos/eos>", "</s>", "<eos>")
_SILENT = {*_ENDS, "<blank>", "<pad>", "<s>", "<sos>"}


class _Table(NamedTuple):
    ids: dict[str, int]
    symbols: dict[int, str]


class CharTokenizer(BaseTokenizer):
    """One id a character; a tag such as ``<happy>`` or a time ``<0.42>`` that the table has is one id too.

    A character outside the table becomes ``<unk>``.

    Args:
        symbol_table_path: ``symbol id`` a line, UTF-8; a space is written ``▁``.
    """

    def __init__(self, symbol_table_path: str | Path):
        self.symbol_table_path = str(symbol_table_path)

    def _build(self) -> _Table:
        ids: dict[str, int] = {}
        for n, line in read_lines(self.symbol_table_path):
            symbol, _, number = line.rstrip().rpartition(" ")
            where = f"{self.symbol_table_path}:{n}"
            if not symbol or not number.isdecimal():
                raise OsumError(where, f"{line!r} is not 'symbol id'", "write one symbol and its id a line")
            if symbol in ids or int(number) in ids.values():
                raise OsumError(where, f"symbol or id of {line!r} is given twice", "drop one")
            ids[symbol] = int(number)
        if not ids:
            raise OsumError(self.symbol_table_path, "is empty", "write one symbol and its id a line")
        return _Table(ids, {i: s for s, i in ids.items()})

    def text2tokens(self, line: str) -> list[str]:
        tokens: list[str] = []
        for unit in _UNIT.findall(line.replace(" ", BLANK)):
            mark = unit.replace(BLANK, " ") if len(unit) > 1 else unit
            tokens += [mark] if mark in self.backend.ids or len(unit) == 1 else list(unit)
        return tokens

    def tokens2text(self, tokens: list[str]) -> str:
        return "".join(t for t in tokens if t not in _SILENT).replace(BLANK, " ")

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
