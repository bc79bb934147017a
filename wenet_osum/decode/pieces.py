"""A tokenizer's vocabulary as bytes: what each id adds to a text. Rules for answers are made of it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from wenet_osum.errors import OsumError
from wenet_osum.text import BaseTokenizer, CharTokenizer, HuggingFaceTokenizer, SentencepieceTokenizer

TIME = re.compile(rb"<(0|[1-9][0-9]{0,5})(?:\.([0-9]{1,2}))?>")
TIME_BYTES = b"0123456789.<>"
# What a piece with brackets can be in "<start>word<end><start>word<end>": all else never fits there.
_MARKED = re.compile(rb" ?<[0-9.]*|(?:[0-9.]*>)?[^<>]*(?:<[0-9.]*>[^<>]*)*(?:<[0-9.]*)?")


_OPENING = re.compile(rb">[^<>]+")
_CLOSING = re.compile(rb"[^<>\x80-\xbf][^<>]*<")


class Kind(NamedTuple):
    """What text a piece brings, for pieces that start with a whole character.

    ``blank``: white space is in it; ``solid``: other characters are; ``missing``: the bytes that its last
    character still lacks.
    """

    blank: bool
    solid: bool
    missing: int


def spell(pending: bytes, piece: bytes) -> tuple[str, bytes] | None:
    """The characters that ``piece`` completes after ``pending`` bytes of UTF-8, and what is pending now; None
    when the bytes are no text."""
    joined = pending + piece
    try:
        text, used = codecs.utf_8_decode(joined, "strict", False)
    except UnicodeDecodeError:
        return None
    if joined[used : used + 1] == b"\xed" and joined[used + 1 : used + 2] >= b"\xa0":
        return None  # half of a surrogate pair, which Python refuses only at its last byte
    return text, joined[used:]


def missing(pending: bytes) -> int:
    """The bytes that complete a begun character; 0 when none is begun."""
    if not pending:
        return 0
    return (2 if pending[0] < 0xE0 else 3 if pending[0] < 0xF0 else 4) - len(pending)


def solid_part(text: str) -> str:
    """Text without blanks. U+2581 counts as one: sentencepiece writes it for a blank and reads it so."""
    return "".join(text.replace("\u2581", " ").split())


class Vocabulary:
    """What the ids of a tokenizer write.

    Attributes:
        pieces: each id's bytes; None for one that must not be written: the end, padding, unknown and other
            special ids, and ids without a piece.
        joint: what the tokenizer writes between any two pieces, ``""`` but for some character tables.
        kinds: the ids of every kind of text, without ``<`` and ``>``. A vocabulary without pieces of one byte
            writes no part of a character, since it might not be able to finish it.
        opening: pieces such as ``>hel``, by the bytes that the last character lacks. There are many of them, and
            of the next, in large vocabularies, and they all do the same.
        closing: pieces such as ``lo<``.
        marked: other pieces with brackets that can stand in timed words, ``(id, bytes)`` by their first byte.
        numeric: those of ``0-9`` and ``.`` alone, in the same form.
        times: whole time marks such as ``<1.20>``: their hundredths of seconds in order, and the ids.
        spells_times: whether every character of a time is a piece, so that any time can be written.
        blanks: the ids that write one blank.
        tags: pieces that begin with ``<``, and their ids.

    Raises:
        OsumError: a Hugging Face tokenizer that does not say how its pieces become text.
    """

    def __init__(self, tokenizer: BaseTokenizer):
        self.pieces, self.joint = _read(tokenizer)
        if "<" in self.joint or ">" in self.joint:
            what = f"{self.joint!r} is kept for tags"
            raise OsumError("tokenizer_conf.connect_symbol", what, "use another, or --no_constrain")
        single = {piece for piece in self.pieces if piece and len(piece) == 1}
        bytewise = all(bytes([b]) in single for b in range(0x80, 0xC0))
        self.spells_times = all(bytes([b]) in single for b in TIME_BYTES)
        self.blanks = [i for i, piece in enumerate(self.pieces) if piece == b" "]
        self.tags: dict[bytes, list[int]] = {}
        kinds: dict[Kind, list[int]] = {}
        times: list[tuple[int, int]] = []
        opening: dict[int, list[int]] = {}
        closing: list[int] = []
        self.marked: dict[int, list[tuple[int, bytes]]] = {}
        self.numeric: dict[int, list[tuple[int, bytes]]] = {}
        self._tails: list[tuple[int, bytes]] = []
        self._after: dict[bytes, list[tuple[int, str, bytes]]] = {}
        for i, piece in enumerate(self.pieces):
            if not piece or not (bytewise or _is_text(piece)):
                continue
            if piece[0] == ord("<"):
                self.tags.setdefault(piece, []).append(i)
            if b"<" not in piece and b">" not in piece:
                if 0x80 <= piece[0] < 0xC0:
                    self._tails.append((i, piece))
                elif kind := kind_of(piece):
                    kinds.setdefault(kind, []).append(i)
                if not piece.strip(b"0123456789."):
                    self.numeric.setdefault(piece[0], []).append((i, piece))
            elif time := TIME.fullmatch(piece):
                times.append((hundredths(time), i))
            elif _OPENING.fullmatch(piece):
                if (kind := kind_of(piece[1:])) and not kind.blank:
                    opening.setdefault(kind.missing, []).append(i)
            elif _CLOSING.fullmatch(piece):
                if kind_of(piece[:-1]) == Kind(blank=False, solid=True, missing=0):
                    closing.append(i)
            elif _MARKED.fullmatch(piece):
                self.marked.setdefault(piece[0], []).append((i, piece))
        self.kinds = {kind: torch.tensor(ids) for kind, ids in kinds.items()}
        self.opening = {lacks: torch.tensor(ids) for lacks, ids in opening.items()}
        self.closing = torch.tensor(closing, dtype=torch.long)
        times.sort()
        self.times = [time for time, _ in times], torch.tensor([i for _, i in times], dtype=torch.long)

    def stops(self, eos: int, ends: Iterable[int] = ()) -> Tensor:
        """(n,) the ids that may be written where an answer may end: its end id, then ``ends``.

        Raises:
            OsumError: an end id that also writes text.
        """
        if eos < len(self.pieces) and self.pieces[eos] is not None:
            what = f"writes {self.pieces[eos]!r}, and so cannot end an answer"
            raise OsumError(
                f"tokenizer_conf.special_tokens.eos: {eos}", what, "give the id of a special token"
            )
        return torch.tensor([eos, *sorted(ends)], dtype=torch.long)

    def tails(self, pending: bytes) -> list[tuple[int, str, bytes]]:
        """The pieces without brackets that go on with a begun character: id, the text that they complete, what
        is pending then."""
        if pending not in self._after:
            found = [(i, spell(pending, piece)) for i, piece in self._tails]
            self._after[pending] = [(i, *spelled) for i, spelled in found if spelled]
        return self._after[pending]


def kind_of(piece: bytes) -> Kind | None:
    """The kind of a piece without brackets; None when it does not start with a character."""
    if (spelled := spell(b"", piece)) is None:
        return None
    text, pending = spelled
    solid = solid_part(text)
    return Kind(solid != text, bool(solid), missing(pending))


def _is_text(piece: bytes) -> bool:
    spelled = spell(b"", piece)
    return spelled is not None and not spelled[1]


def hundredths(time: re.Match[bytes]) -> int:
    """A time's hundredths of a second, from its groups of whole seconds and decimals (at most two)."""
    return int(time[1]) * 100 + int((time[2] or b"").ljust(2, b"0"))


_known: WeakKeyDictionary[BaseTokenizer, Vocabulary] = WeakKeyDictionary()


def vocabulary_of(tokenizer: BaseTokenizer) -> Vocabulary:
    """The vocabulary of a tokenizer, made once. See ``Vocabulary`` for errors."""
    if tokenizer not in _known:
        _known[tokenizer] = Vocabulary(tokenizer)
    return _known[tokenizer]


def _read(tokenizer: BaseTokenizer) -> tuple[list[bytes | None], str]:
    """``Vocabulary.pieces`` and ``joint``."""
    if isinstance(tokenizer, SentencepieceTokenizer):
        model = tokenizer.backend
        return [_sentencepiece(model, i) for i in range(model.get_piece_size())], ""
    if isinstance(tokenizer, CharTokenizer):
        pieces: list[bytes | None] = [None] * tokenizer.vocab_size()
        for symbol, i in tokenizer.symbol_table.items():
            if symbol != "<unk>":
                pieces[i] = tokenizer.tokens2text([symbol]).encode() or None
        return pieces, tokenizer.connect_symbol
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return _hugging_face(tokenizer), ""
    raise OsumError(type(tokenizer).__name__, "no tokenizer whose pieces are known", "use --no_constrain")


def _sentencepiece(model: Any, i: int) -> bytes | None:
    if model.is_control(i) or model.is_unknown(i) or model.is_unused(i):
        return None
    piece = model.id_to_piece(i)
    return bytes([int(piece[1:-1], 16)]) if model.is_byte(i) else piece.replace("\u2581", " ").encode()


def _hugging_face(tokenizer: HuggingFaceTokenizer) -> list[bytes | None]:
    """Of byte-level vocabularies (Qwen, GPT, Llama 3) and sentencepiece's (Llama 2, Gemma)."""
    backend = tokenizer.backend
    decoder = getattr(getattr(backend, "backend_tokenizer", None), "decoder", None)
    form = decoder.__getstate__().decode() if decoder is not None else ""
    byte_level, byte_fallback = '"ByteLevel"' in form, '"ByteFallback"' in form
    if not byte_level and "\u2581" not in form:
        what = "a tokenizer that does not say how its pieces become text"
        raise OsumError(tokenizer.model_path, what, "use --no_constrain")
    special = {*backend.all_special_ids}
    special |= {i for i, token in backend.added_tokens_decoder.items() if token.special}
    pieces: list[bytes | None] = [None] * tokenizer.vocab_size()
    for piece, i in backend.get_vocab().items():
        if i in special or i >= len(pieces):
            continue
        if byte_level:
            try:
                pieces[i] = piece.translate(_BYTE_OF).encode("latin-1")
            except UnicodeEncodeError:  # an added token, which is written as it stands
                pieces[i] = piece.encode()
        elif byte_fallback and re.fullmatch("<0x[0-9A-F]{2}>", piece):
            pieces[i] = bytes([int(piece[1:-1], 16)])
        else:
            pieces[i] = piece.replace("\u2581", " ").encode()
    return pieces


def _byte_level() -> dict[int, int]:
    """GPT-2's alphabet: a printable byte is its own character, the others are counted up from U+0100.

    A character that stands for no byte is sent beyond latin-1, so that it is noticed.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [b for b in range(0x100) if b not in printable]
    return dict.fromkeys(others, 0x100) | {0x100 + n: b for n, b in enumerate(others)}


_BYTE_OF = _byte_level()
