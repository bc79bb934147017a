"""Guesses at an answer from what is known already: the CTC head's text, or a transcript that needs its times."""

from __future__ import annotations

import re
from collections.abc import Callable

_MARK = re.compile("<([^<>]*)>")
WINDOW = 4  # tokens by which a draft may have slipped
_SHIFTS = sorted(range(-WINDOW, WINDOW + 1), key=abs)


class TextDraft:
    """A text that the answer is probably like: of the CTC head (arXiv 2603.11243), or of another question.

    After a disagreement the rest of the draft is found again by the last token written, up to four tokens away;
    where it is not there, the token counts as another in its place.
    """

    def __init__(self, text: list[int]):
        self.text, self.offset = text, 0

    def propose(self, written: list[int]) -> list[int]:
        at = len(written) + self.offset  # of the next token in the draft
        for shift in _SHIFTS:
            if 0 < at + shift <= len(self.text) and self.text[at + shift - 1] == written[-1]:
                self.offset += shift
                break
        return self.text[max(len(written) + self.offset, 0) :]


class TimedDraft:
    """The words of a transcript between times: each word is known when its start is written, and each start is
    probably the end before it.

    Args:
        words: as ``split_words`` has them. encode, decode: the tokenizer's.
    """

    def __init__(
        self, words: list[str], encode: Callable[[str], list[int]], decode: Callable[[list[int]], str]
    ):
        self.words, self.encode, self.decode = words, encode, decode

    def propose(self, written: list[int]) -> list[int]:
        text = self.decode(written)
        marks = _MARK.findall(text)
        done = len(marks) // 2
        if not marks or not text.endswith(">") or done >= len(self.words):
            return []
        more = self.words[done] if len(marks) % 2 else f"<{marks[-1]}>{self.words[done]}"
        whole = self.encode(text + more)
        return whole[len(written) :] if whole[: len(written)] == written else []
