"""Tokenizers of Hugging Face language models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wenet_osum.errors import OsumError
from wenet_osum.hub import TOKENIZER_FILES, fetch, is_hub_id
from wenet_osum.text.base import BaseTokenizer

DOWNLOAD_OPTIONS = ("revision", "cache_dir", "local_files_only")


class HuggingFaceTokenizer(BaseTokenizer):
    """What ``transformers.AutoTokenizer`` loads.

    Decoding is the exact inverse of encoding for byte-level vocabularies (Qwen, GPT, Llama 3), except
    where the tokenizer normalises Unicode itself (Qwen: NFC).

    Args:
        model_path: a local folder, or a model's name on the hub.
        from_pretrained: passed to ``AutoTokenizer.from_pretrained``; ``eos_token`` sets another end.
    """

    def __init__(self, model_path: str | Path, **from_pretrained: Any):
        self.model_path = str(model_path)
        self.from_pretrained = from_pretrained

    def _build(self) -> Any:
        from transformers import AutoTokenizer

        folder = self.model_path
        if is_hub_id(folder):
            options = {k: v for k, v in self.from_pretrained.items() if k in DOWNLOAD_OPTIONS}
            folder = str(fetch(folder, TOKENIZER_FILES, "tokenizer_conf.model_path", **options))
        try:
            return AutoTokenizer.from_pretrained(folder, **self.from_pretrained)
        except (OSError, ValueError, KeyError) as e:
            reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
            mend = "give a folder with the tokenizer's files, or a hub name that can be reached"
            raise OsumError(self.model_path, f"no tokenizer could be loaded ({reason})", mend) from None

    def text2tokens(self, line: str) -> list[str]:
        return self.backend.tokenize(line)

    def tokens2text(self, tokens: list[str]) -> str:
        special = set(self.backend.all_special_tokens)
        return self.backend.convert_tokens_to_string([t for t in tokens if t not in special])

    def tokens2ids(self, tokens: list[str]) -> list[int]:
        return self.backend.convert_tokens_to_ids(tokens)

    def ids2tokens(self, ids: list[int]) -> list[str]:
        return self.backend.convert_ids_to_tokens([int(i) for i in ids])

    def encode(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False)

    def decode(self, ids: list[int]) -> str:
        return self.backend.decode(
            [int(i) for i in ids], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def vocab_size(self) -> int:
        return len(self.backend)

    @property
    def symbol_table(self) -> dict[str, int]:
        return self.backend.get_vocab()

    @property
    def eos_id(self) -> int:
        if (eos := self.backend.eos_token_id) is None:
            raise OsumError(self.model_path, "the tokenizer has no end token", "set tokenizer_conf.eos_token")
        return eos
