"""Sentencepiece models: ours (``text/train_sentencepiece.py``) and WeNet's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wenet_osum.errors import OsumError
from wenet_osum.text.base import BaseTokenizer


class SentencepieceTokenizer(BaseTokenizer):
    """A sentencepiece model file.

    Decoding is the exact inverse of encoding for models of ours; U+2581, sentencepiece's own sign for
    a blank, comes back as a blank.

    Args:
        model_path: the ``.model`` file.
    """

    def __init__(self, model_path: str | Path):
        self.model_path = str(model_path)

    def _build(self) -> Any:
        import sentencepiece

        if not Path(self.model_path).is_file():
            raise OsumError(self.model_path, "no such tokenizer model", "make it with osum train_tokenizer")
        model = sentencepiece.SentencePieceProcessor()
        try:
            model.load(self.model_path)
        except (RuntimeError, OSError):
            raise OsumError(self.model_path, "not a sentencepiece model", "make it anew") from None
        return model

    def text2tokens(self, line: str) -> list[str]:
        return self.backend.encode(line, out_type=str)

    def tokens2text(self, tokens: list[str]) -> str:
        return self.backend.decode_pieces(tokens)

    def tokens2ids(self, tokens: list[str]) -> list[int]:
        return [self.backend.piece_to_id(token) for token in tokens]

    def ids2tokens(self, ids: list[int]) -> list[str]:
        return [self.backend.id_to_piece(int(i)) for i in ids]

    def encode(self, text: str) -> list[int]:
        return self.backend.encode(text, out_type=int)

    def decode(self, ids: list[int]) -> str:
        return self.backend.decode([int(i) for i in ids])

    def vocab_size(self) -> int:
        return self.backend.get_piece_size()

    @property
    def symbol_table(self) -> dict[str, int]:
        return {self.backend.id_to_piece(i): i for i in range(self.vocab_size())}

    @property
    def eos_id(self) -> int:
        if (eos := self.backend.eos_id()) < 0:
            raise OsumError(self.model_path, "no end-of-sentence piece", "train it with an eos_id")
        return eos
