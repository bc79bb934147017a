"""The rule for timed words, ``<start>word<end><start>word<end>``, as ``tasks/timed.py`` reads them."""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from wenet_osum.decode.constrain_tags import Tags
from wenet_osum.decode.pieces import Vocabulary, hundredths, missing, solid_part, spell
from wenet_osum.errors import OsumError

_CHUNK = re.compile(rb"[<>]|[^<>]+")
_BEGUN = re.compile(rb"(0|[1-9][0-9]{0,5})(?:\.([0-9]{0,2}))?")
_WHOLE = re.compile(rb"(0|[1-9][0-9]{0,5})(?:\.([0-9]{1,2}))?")


class State(NamedTuple):
    """Where in the form an answer stands.

    Attributes:
        place: ``gap`` between words, ``start`` in a start time (or, so far alike, in the first label), ``open``
            behind it, ``word`` in a word, ``end`` in an end time; ``tag`` in a label, ``tags`` behind it.
        floor: the hundredths of a second that the next time may not be below: the start of the word, or in
            ``gap`` and ``start`` of the word before; -1 before anything is written. In ``tag`` and ``tags`` how
            many labels are complete.
        rest: what is written of the time or label, or the begun character's bytes in a word.
    """

    place: str
    floor: int
    rest: bytes = b""


class Form:
    """What all states of one answer share; keeps what it has worked out.

    Args:
        stops: ids that may be written where the answer may end.
        limit: the latest time, in hundredths of a second.
        tags: the labels behind the words.
    """

    def __init__(self, vocabulary: Vocabulary, stops: Tensor, limit: int, tags: Tags):
        self.vocabulary, self.stops, self.limit, self.tags = vocabulary, stops, limit, tags
        self.longest = len(f"<{limit / 100:.2f}>")  # of an end time, in tokens
        self.finish = int(tags.need(0)) + 1  # tokens for all that follows the words
        self.plenty = 2 * self.longest + 8 + self.finish  # with so many left nothing is refused for room
        self._ids: dict[tuple[State, int], Tensor] = {}
        self._closing: dict[tuple[int, bytes], int] = {}
        self._words: dict[int, Tensor] = {}

    # Walking

    def walk(self, state: State | None, piece: bytes) -> State | None:
        """The state behind a piece; None where it does not fit."""
        for chunk in _CHUNK.findall(piece):
            if state is None:
                break
            state = self._step(state, chunk)
        return state

    def _step(self, state: State, chunk: bytes) -> State | None:
        place, floor, rest = state
        if chunk == b"<":
            if place == "gap":
                return State("start", max(floor, 0))
            if place == "tags" and floor < len(self.tags):
                return State("tag", floor)
            return State("end", floor) if place == "word" and not rest else None
        if place == "tag" and chunk == b">":
            return State("tags", floor + 1) if rest in self.tags.parts[floor] else None
        if place == "tag":
            return State("tag", floor, rest + chunk) if self.tags.lead_on(floor, rest + chunk) else None
        if place in ("start", "end"):
            if chunk != b">":
                if self._leads_on(floor, rest + chunk):
                    return State(place, floor, rest + chunk)
                is_tag = place == "start" and self.tags.lead_on(0, rest + chunk)
                return State("tag", 0, rest + chunk) if is_tag else None
            if not self._fits(floor, rest):
                return None
            return State("open", self._value(rest)) if place == "start" else State("gap", floor)
        if place == "tags":
            return None
        if place == "gap":  # some tokenizers put one blank in front of all they write
            return State("gap", 0) if (floor, chunk) == (-1, b" ") else None
        spelled = spell(rest, chunk) if chunk != b">" else None
        if spelled is None or solid_part(spelled[0]) != spelled[0]:
            return None
        return State("word", floor, spelled[1])

    def _value(self, time: bytes) -> int:
        match = _WHOLE.fullmatch(time)
        return hundredths(match) if match else -1

    def _fits(self, floor: int, time: bytes) -> bool:
        return floor <= self._value(time) <= self.limit

    def _leads_on(self, floor: int, time: bytes) -> bool:
        """Whether a time that is legal here begins so."""
        match = _BEGUN.fullmatch(time)
        if not match:
            return not time
        whole, decimals = int(match[1]), match[2]
        if decimals is not None:
            size = 10 ** (2 - len(decimals))
            low = whole * 100 + int(decimals or b"0") * size
            return low <= self.limit and floor <= low + size - 1
        more = range(7 - len(match[1])) if whole else (0,)
        return any(whole * 10**n * 100 <= self.limit and floor <= (whole + 1) * 10**n * 100 - 1 for n in more)

    # Room

    def need(self, state: State) -> float:
        """Tokens that surely suffice to come from a state to the end, the end id included."""
        place, floor, rest = state
        if place == "gap":
            return self.finish
        if place == "open":
            return 1 + self._mark(floor) + self.finish
        if place == "word":
            return missing(rest) + self._mark(floor) + self.finish
        if place == "end":
            return self._close(floor, rest) + self.finish
        if place == "start":
            as_time = math.inf
            if self.vocabulary.spells_times:
                as_time = self._close(floor, rest) + 1 + self.longest + self.finish
            return min(as_time, self.tags.need(0, rest) + 1) if len(self.tags) else as_time
        return self.tags.need(floor, rest if place == "tag" else None) + 1

    def _mark(self, floor: int) -> int:
        """Tokens of the shortest end time that is not before ``floor``."""
        return 1 if len(self._times(floor)) else 1 + self._close(floor, b"")

    def _close(self, floor: int, time: bytes) -> int:
        """The fewest characters that complete a begun time, its ``>`` included."""
        key = floor, time
        if key not in self._closing:
            n, begun = 1, [time]
            while not any(self._fits(floor, t) for t in begun):
                longer = [t + bytes([c]) for t in begun for c in b"0123456789."]
                n, begun = n + 1, [t for t in longer if self._leads_on(floor, t)]
            self._closing[key] = n
        return self._closing[key]

    # Ids

    def _times(self, floor: int) -> Tensor:
        """The whole time marks from ``floor`` to the limit."""
        values, ids = self.vocabulary.times
        return ids[bisect_left(values, floor) : bisect_right(values, self.limit)]

    def _pieces(self, state: State) -> Iterator[tuple[int, bytes]]:
        """Pieces with brackets, and within a time with digits, that might fit; some twice."""
        if state.place in ("gap", "start", "tag", "tags"):
            yield from self.tags.pieces
        if not self.vocabulary.spells_times:
            return
        marked, numeric = self.vocabulary.marked, self.vocabulary.numeric
        if state.place in ("start", "end"):
            for first in b"0123456789.":
                if self._leads_on(state.floor, state.rest + bytes([first])):
                    yield from numeric.get(first, ())
                    yield from marked.get(first, ())
            yield from marked.get(ord(">"), ())
        elif state.place in ("tag", "tags"):
            yield from marked.get(ord(">"), ())
        elif state.place == "gap":
            yield from marked.get(ord("<"), ())
            yield from marked.get(ord(" "), ()) if state.floor < 0 else ()
        else:
            for first in marked:
                yield from marked[first] if first != ord(">") else ()

    def allowed(self, state: State, room: int) -> Tensor:
        left = min(room, self.plenty) - 1
        ids = self._marks(state, left)
        if state.place in ("open", "word") and not state.rest:
            spare = left - self._mark(state.floor) - self.finish
            if spare >= 0:
                ids = torch.cat([self.words(spare), ids]) if len(ids) else self.words(spare)
        return ids if len(ids) else self.stops

    def _marks(self, state: State, left: int) -> Tensor:
        """All that may come next but whole pieces of words, of which there are very many."""
        key = state, left
        if key in self._ids:
            return self._ids[key]
        vocabulary, (place, floor, rest) = self.vocabulary, state
        found = list(vocabulary.blanks) if place == "gap" and floor < 0 and left >= self.finish else []
        if place == "word" and rest:
            spare = left - self._mark(floor) - self.finish
            for i, text, pending in vocabulary.tails(rest):
                if solid_part(text) == text and missing(pending) <= spare:
                    found.append(i)
        for i, piece in self._pieces(state):
            after = self.walk(state, piece)
            if after is not None and self.need(after) <= left:
                found.append(i)
        parts = [torch.tensor(list(dict.fromkeys(found)), dtype=torch.long)]
        if (place, floor) == ("tags", len(self.tags)) or (place == "gap" and not len(self.tags)):
            parts.append(self.stops)
        if place == "gap" and left >= 2 + self.finish:  # a word and a mark must follow
            parts.append(self._times(max(floor, 0)))
        elif place == "word" and not rest and left >= self.finish:
            parts.append(self._times(floor))
        if self.vocabulary.spells_times:
            if place in ("open", "word") and not rest and left >= self.need(State("end", floor)):
                parts.append(vocabulary.closing)
            if place == "start" and self._fits(floor, rest):
                word = self.need(State("word", self._value(rest)))
                parts += [ids for lacks, ids in vocabulary.opening.items() if lacks + word <= left]
        self._ids[key] = torch.cat(parts)
        return self._ids[key]

    def words(self, spare: int) -> Tensor:
        """Pieces of words whose last character lacks no more bytes than ``spare``."""
        spare = min(spare, 3)
        if spare not in self._words:
            kinds = self.vocabulary.kinds
            self._words[spare] = torch.cat(
                [torch.tensor([], dtype=torch.long)]
                + [ids for kind, ids in kinds.items() if not kind.blank and kind.missing <= spare]
            )
        return self._words[spare]


@dataclass(frozen=True)
class TimedRule:
    """See ``timed_rule``."""

    form: Form
    state: State

    @property
    def least(self) -> int:
        """The least room in which the form can be finished, in tokens with the end id."""
        return int(self.form.need(self.state))

    @property
    def ends(self) -> frozenset[int]:
        """The ids beside the end id that end the answer: none."""
        return frozenset()

    def allowed(self, room: int) -> Tensor:
        """(n,) ids that may come next, with ``room`` tokens left, the end id included."""
        return self.form.allowed(self.state, room)

    def after(self, token: int) -> TimedRule:
        """The rule for what follows a token.

        Raises:
            ValueError: the token is not allowed here.
        """
        piece = self.form.vocabulary.pieces[token] if token < len(self.form.vocabulary.pieces) else None
        state = self.form.walk(self.state, piece) if piece else None
        if state is None:
            if bool((self.form.stops == token).any()) and token in self.allowed(self.form.plenty):
                return self
            raise ValueError(f"token {token} cannot follow {self.state}")
        return TimedRule(self.form, state)


def timed_rule(
    vocabulary: Vocabulary,
    eos: int,
    duration: float,
    time_step: float = 0.01,
    tags: Sequence[Sequence[str]] = (),
) -> TimedRule:
    """Timed words: a word has characters and no blank, times have at most two decimals, lie between 0 and
    the audio's end, and starts do not go back. A word may begin before the one in front of it ends.

    A time is one piece, or is spelled in any pieces. Not allowed are pieces with a blank in them, and pieces
    of more than ``TIME_BYTES`` that ``_MARKED`` of pieces.py does not match, since they fit nowhere.

    Args:
        eos: the end id, allowed behind the last word or label alone.
        duration: of the audio, in seconds; a time may be rounded up to the next ``time_step``.
        tags: what each of the labels may be that follow the words, without brackets; the rule writes them too.

    Raises:
        OsumError: a tokenizer that cannot write times or labels.
    """
    if vocabulary.joint:
        what = f"writes {vocabulary.joint!r} inside words and times"
        raise OsumError("tokenizer_conf.connect_symbol", what, "leave it out, or use --no_constrain")
    if not vocabulary.spells_times and not vocabulary.times[0]:
        what = "has neither whole times such as <0.40> nor all of 0-9 . < >"
        raise OsumError("the tokenizer", what, "train it with times, or use --no_constrain")
    steps = math.ceil(duration / time_step - 1e-6)
    limit = min(max(0, round(steps * time_step * 100)), 999_999_99)
    return TimedRule(Form(vocabulary, vocabulary.stops(eos), limit, Tags(vocabulary, tags)), State("gap", -1))
