"""What an answer may be written with, so that every answer parses.

An answer is written in parts: the body (a transcript, timed words or nothing) under a rule; the labels,
chosen among all combinations of a task's values; the mark of a reply and the reply, under a rule again.
A rule is immutable and tells the ids that may come next; ``models/generation.py`` asks it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wenet_osum.decode.constrain_timed import TimedRule, timed_rule
from wenet_osum.decode.pieces import Vocabulary, missing, solid_part, spell, vocabulary_of
from wenet_osum.errors import OsumError
from wenet_osum.tasks import Task
from wenet_osum.tasks.task import REPLY_MARK
from wenet_osum.text import BaseTokenizer
from wenet_osum.text.normalize import process_text

MOST_CHOICES = 1_000
_PLENTY = 8  # with so many tokens left free text is refused nothing


@dataclass(frozen=True)
class TextRule:
    """See ``text_rule``.

    Attributes:
        vocabulary, stops: what it is made of.
        free: whether the answer may end: nothing more need be written.
        pending: the bytes of a begun character.
        known: masks worked out already, shared by all that follow from one rule.
    """

    vocabulary: Vocabulary
    stops: Tensor
    free: bool
    pending: bytes = b""
    known: dict[tuple[bool, bytes, int], Tensor] = field(default_factory=dict, compare=False, repr=False)

    @property
    def least(self) -> int:
        """The least room in which the text can be finished, in tokens with the end id."""
        return missing(self.pending) + (1 if self.free else 2)

    @property
    def ends(self) -> frozenset[int]:
        """The ids beside the end id that end the text."""
        return frozenset(self.stops[1:].tolist())

    def allowed(self, room: int) -> Tensor:
        """(n,) ids that may come next, with ``room`` tokens left, the end id included. The same tensor every
        time in the same place."""
        left = min(room, _PLENTY) - 1
        key = self.free, self.pending, left
        if key not in self.known:
            self.known[key] = self._allowed(left)
        return self.known[key]

    def _allowed(self, left: int) -> Tensor:
        def need(solid: bool, lacks: int) -> int:
            return lacks + (1 if self.free or solid else 2)

        if self.pending:
            after = self.vocabulary.tails(self.pending)
            ids = [i for i, text, rest in after if need(bool(solid_part(text)), missing(rest)) <= left]
            parts = [torch.tensor(ids, dtype=torch.long)]
        else:
            kinds = self.vocabulary.kinds.items()
            parts = [ids for kind, ids in kinds if need(kind.solid, kind.missing) <= left]
            parts += [self.stops] if self.free else []
        allowed = torch.cat(parts) if parts else self.stops
        return allowed if len(allowed) else self.stops  # for less room than there must be

    def after(self, token: int) -> TextRule:
        """The rule for what follows a token.

        Raises:
            ValueError: the token is not allowed here.
        """
        piece = self.vocabulary.pieces[token] if token < len(self.vocabulary.pieces) else None
        spelled = spell(self.pending, piece) if piece and not {60, 62} & {*piece} else None
        if spelled is None:
            if not self.pending and bool((self.stops == token).any()):
                return self
            raise ValueError(f"token {token} is not allowed here")
        text, pending = spelled
        free = self.free or bool(solid_part(text))
        return TextRule(self.vocabulary, self.stops, free, pending, self.known)


def text_rule(vocabulary: Vocabulary, eos: int, ends: Iterable[int] = (), nonempty: bool = False) -> TextRule:
    """Text without ``<`` and ``>``, in whole characters. It takes room for one token, the end id; two when it
    may not be empty.

    Pieces with a bracket in them are not allowed, though a tokenizer may write one where a text ends and
    labels begin (Qwen's ``.<``): the text then takes the ``.`` and the labels the ``<``.

    Args:
        eos: the end id; allowed where the text may end.
        ends: other ids that end it, in the same places, such as ``label_starts``.
        nonempty: something that is no blank must be written.

    Raises:
        OsumError: an end id that also writes text.
    """
    return TextRule(vocabulary, vocabulary.stops(eos, ends), not nonempty)


def body_rule(
    task: Task,
    vocabulary: Vocabulary,
    eos: int,
    ends: Iterable[int] = (),
    duration: float = 0.0,
    time_step: float = 0.01,
) -> TextRule | TimedRule | None:
    """The rule of a task's body; None for a task that has none, only labels.

    Behind timed words the rule also writes the labels and the mark of a reply, if the task has them: see
    ``constrain_tags``. The body is then what stands before ``Task.label_span``.

    Args:
        ends: the task's ``label_starts``, which end a transcript.
        duration: of the audio in seconds, for timed words; ``time_step``: see ``timed_rule``.

    Raises:
        OsumError: see ``text_rule`` and ``timed_rule``.
    """
    if task.align:
        tags = [f.values for f in task.fields] + [(REPLY_MARK.strip("<>"),)] * task.reply
        return timed_rule(vocabulary, eos, duration, time_step, tags)
    return text_rule(vocabulary, eos, ends) if task.transcript else None


def label_choices(task: Task, tokenizer: BaseTokenizer) -> tuple[list[list[int]], list[dict[str, str]]]:
    """All that a task's labels can be.

    Returns:
        the ids of each combination as it is written, e.g. ``<other><adult><male>``, and the value that it
        gives each label field; one choice without ids and values for a task without labels.

    Raises:
        OsumError: more than 1,000 combinations, or labels that the tokenizer cannot write.
    """
    if (count := math.prod(len(f.values) for f in task.fields)) > MOST_CHOICES:
        what = f"its labels have {count:,} combinations, over {MOST_CHOICES:,}"
        raise OsumError(f"task {task.name}", what, "ask for fewer at once, or use --no_constrain")
    names = [f.name for f in task.fields]
    values = [dict(zip(names, c)) for c in itertools.product(*(f.values for f in task.fields))]
    texts = ["".join(f"<{value}>" for value in choice.values()) for choice in values]
    return [_ids(tokenizer, text, behind=task.transcript) for text in texts], values


def reply_mark(tokenizer: BaseTokenizer) -> list[int]:
    """The ids of the mark between what is said and the reply.

    Raises:
        OsumError: the tokenizer cannot write it.
    """
    return _ids(tokenizer, REPLY_MARK, behind=True)


def label_starts(task: Task, tokenizer: BaseTokenizer) -> set[int]:
    """The ids that what follows a task's body can begin with: its labels, or else the mark of a reply.

    All pieces that the label text can begin with are among them: a tokenizer may part ``day<happy>`` before
    ``<happy`` and ``day.<happy>`` before ``happy``.

    Raises:
        OsumError: labels that the tokenizer cannot write.
    """
    tags = vocabulary_of(tokenizer).tags
    if not task.fields:
        texts = [REPLY_MARK] if task.reply else []
    else:
        texts = [f"<{value}>" for value in task.fields[0].values]
    begun = (text.encode()[:n] for text in texts for n in range(1, len(text.encode()) + 1))
    starts = {i for piece in begun for i in tags.get(piece, ())}
    return starts | {_ids(tokenizer, text, behind=task.transcript)[0] for text in texts}


def _ids(tokenizer: BaseTokenizer, text: str, behind: bool) -> list[int]:
    """The ids of labels or a mark, ``behind`` a word or at the start of an answer.

    Some tokenizers put a blank in front of all they write; behind a word it is not there.
    """
    ids = tokenizer.encode(text)
    for word in ("a", "\u4e00", "0") if behind else ():
        front = tokenizer.encode(word)
        both = tokenizer.encode(word + text)
        if both[: len(front)] == front:
            ids = both[len(front) :]
            break
    if process_text(tokenizer.decode(ids)) != text:
        what = f"cannot write {text}, but {tokenizer.decode(ids)!r}"
        raise OsumError("the tokenizer", what, "train it with the labels, or use --no_constrain")
    return ids
