"""The labels that stand behind timed words, piece by piece.

A time and a label both open with ``<``, so that no single piece ends the words: whether they go on is known
only behind the bracket. The rule for timed words therefore goes on to the end of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from wenet_osum.decode.pieces import Vocabulary
from wenet_osum.errors import OsumError


class Tags:
    """Tags in a fixed order, such as ``<adult><male>``, and what they cost.

    Args:
        vocabulary: what they are written with.
        parts: what each tag may hold, without its brackets.

    Attributes:
        pieces: ``(id, bytes)`` of all that is part of one tag.

    Raises:
        OsumError: a tag that cannot be written.
    """

    def __init__(self, vocabulary: Vocabulary, parts: Sequence[Sequence[str]]):
        self.parts = [[value.encode() for value in values] for values in parts]
        tags = [b"<" + value + b">" for values in self.parts for value in values]
        inside = {tag[a:b] for tag in tags for a in range(len(tag)) for b in range(a + 1, len(tag) + 1)}
        self.pieces = [(i, piece) for i, piece in enumerate(vocabulary.pieces) if piece in inside and piece]
        self._writable = {piece for _, piece in self.pieces}
        for tag in tags:
            if math.isinf(self._spell(tag)):
                what = f"has no pieces for {tag.decode()}"
                raise OsumError("the tokenizer", what, "train it with the labels, or use --no_constrain")

    def __len__(self) -> int:
        return len(self.parts)

    def lead_on(self, n: int, begun: bytes) -> bool:
        """Whether tag ``n`` may begin so (behind its bracket)."""
        return n < len(self) and any(value.startswith(begun) for value in self.parts[n])

    def need(self, n: int, begun: bytes | None = None) -> float:
        """Tokens that suffice for tag ``n``, of which ``begun`` is written behind its bracket (None: nothing, not
        even that), and all that follow."""
        if n == len(self):
            return 0
        if begun is None:
            return min(self._spell(b"<" + value + b">") for value in self.parts[n]) + self.need(n + 1)
        rests = [value[len(begun) :] + b">" for value in self.parts[n] if value.startswith(begun)]
        return min(map(self._spell, rests), default=math.inf) + self.need(n + 1)

    def _spell(self, text: bytes) -> float:
        """The fewest pieces that make up a text; infinity when none do."""
        fewest: list[float] = [0.0]  # for its last 0, 1, 2 ... bytes
        for a in reversed(range(len(text))):
            ends = (b for b in range(a + 1, len(text) + 1) if text[a:b] in self._writable)
            fewest.append(1 + min((fewest[len(text) - b] for b in ends), default=math.inf))
        return fewest[-1]
