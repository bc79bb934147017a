"""The tokenizer surface that WeNet's code expects, and what a generating model needs beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any


class BaseTokenizer(ABC):
    """Text to ids and back.

    The backend is built on first use and left out of pickles, so a tokenizer crosses into data
    workers cheaply. ``decode(encode(s)) == s`` for text as ``process_text`` leaves it.
    """

    @abstractmethod
    def _build(self) -> Any:
        """Make the backend.

        Raises:
            OsumError: its files are missing or malformed.
        """

    @cached_property
    def backend(self) -> Any:
        """The library's tokenizer object (or a table), built on first use."""
        return self._build()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "backend"}

    def tokenize(self, line: str) -> tuple[list[str], list[int]]:
        """Tokens and ids of a text."""
        tokens = self.text2tokens(line)
        return tokens, self.tokens2ids(tokens)

    def detokenize(self, ids: list[int]) -> tuple[str, list[str]]:
        """Text and tokens of ids; runs of blanks in the text are one, as in a decode's ``text`` file."""
        tokens = self.ids2tokens(ids)
        return " ".join(self.tokens2text(tokens).split()), tokens

    def encode(self, text: str) -> list[int]:
        """Ids of a text, no end or other special id added."""
        return self.tokens2ids(self.text2tokens(text))

    def decode(self, ids: list[int]) -> str:
        """Text of ids; special ids (end, padding) write nothing."""
        return self.tokens2text(self.ids2tokens(ids))

    @abstractmethod
    def text2tokens(self, line: str) -> list[str]:
        """Split a text into tokens."""

    @abstractmethod
    def tokens2text(self, tokens: list[str]) -> str:
        """Join tokens to text."""

    @abstractmethod
    def tokens2ids(self, tokens: list[str]) -> list[int]:
        """Look tokens up."""

    @abstractmethod
    def ids2tokens(self, ids: list[int]) -> list[str]:
        """Look ids up."""

    @abstractmethod
    def vocab_size(self) -> int:
        """The number of ids."""

    @property
    @abstractmethod
    def symbol_table(self) -> dict[str, int]:
        """Token -> id."""

    @property
    @abstractmethod
    def eos_id(self) -> int:
        """The id that ends an answer.

        Raises:
            OsumError: the vocabulary has none.
        """
