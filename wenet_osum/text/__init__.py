"""Tokenizers, and the form of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wenet_osum.errors import OsumError
from wenet_osum.registry import TOKENIZERS
from wenet_osum.text.base import BaseTokenizer
from wenet_osum.text.char import CharTokenizer
from wenet_osum.text.hugging_face import HuggingFaceTokenizer
from wenet_osum.text.sentencepiece import SentencepieceTokenizer
from wenet_osum.wenet_keys import TOKENIZER_KEYS

__all__ = [
    "TOKENIZERS",
    "BaseTokenizer",
    "CharTokenizer",
    "HuggingFaceTokenizer",
    "SentencepieceTokenizer",
    "init_tokenizer",
]

TOKENIZERS.update(sentencepiece=SentencepieceTokenizer, huggingface=HuggingFaceTokenizer, char=CharTokenizer)
_FROM_PRETRAINED = ("revision", "subfolder", "cache_dir", "local_files_only")
# name -> the tokenizer_conf key it cannot do without, and those it may have
_CONF_KEYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sentencepiece": ("model_path", ()),
    "huggingface": ("model_path", (*_FROM_PRETRAINED, "eos_token", "pad_token")),
    "char": ("symbol_table_path", ("non_lang_syms_path", "split_with_space", "connect_symbol")),
}


def init_tokenizer(configs: Mapping[str, Any]) -> BaseTokenizer:
    """Make the tokenizer of a run from ``tokenizer`` and ``tokenizer_conf``.

    ``tokenizer_conf.special_tokens`` is WeNet's place for the ids that the model is told; it is not
    the tokenizer's. Of WeNet's other keys a tokenizer takes its own and leaves the rest, as in WeNet.

    Raises:
        OsumError: an unknown name, an unknown or missing key. Files are looked at on first use.
    """
    name = configs.get("tokenizer")
    cls = TOKENIZERS.find(name)
    required, optional = _CONF_KEYS[str(name)]
    strangers = {"special_tokens", *TOKENIZER_KEYS} - {required, *optional}
    conf = {k: v for k, v in (configs.get("tokenizer_conf") or {}).items() if k not in strangers}
    for key in conf:
        if key != required and key not in optional:
            known = ", ".join((required, *optional))
            raise OsumError(f"tokenizer_conf.{key}", f"unknown key for {name}", f"use one of {known}")
    if not conf.get(required):
        raise OsumError(f"tokenizer_conf.{required}", "missing", f"{name} needs it")
    return cls(**conf)
