"""An utterance of a corpus, and what is known of the corpus before anything of it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Out:
    """In a label table, in place of a value: OSUM has none for this official label, and why."""

    why: str


@dataclass(frozen=True)
class Utterance:
    """One utterance.

    Attributes:
        key: unique in its subset, without blanks; begins with the speaker, so that both sort alike.
        wav: an absolute path, or a command that ends with ``|``.
        text: what is said; ``""`` where nobody speaks; None where nobody wrote it down.
        speaker: "" where nobody knows; then every utterance is its own speaker, as Kaldi has it.
        lang: ``en``, ``zh`` ...
        labels: label field of the task table (``emotion``, ``event``, ``style``, ``gender``, ``age``) ->
            OSUM's value; said of the utterance.
        of_speaker: the same, said of the speaker (``gender``, ``age``).
        reply: the answer to a spoken question.
        more: further file of the data dir -> its value, such as ``utt2question``.
        recording: id of the long recording that it is a part of, with ``start`` and ``end`` in seconds.
    """

    key: str
    wav: str
    text: str | None = None
    speaker: str = ""
    lang: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    of_speaker: Mapping[str, str] = field(default_factory=dict)
    reply: str = ""
    more: Mapping[str, str] = field(default_factory=dict)
    recording: str = ""
    start: float = 0.0
    end: float = 0.0


@dataclass(frozen=True)
class Corpus:
    """A corpus as its makers publish it.

    Attributes:
        name: as its makers write it.
        url: where to get it.
        licence: under which it may be used.
        published: subset -> its number of items, used and left out together; None where none is published.
        labels: label field -> official label -> OSUM's value, or ``Out``. Every official label is there.
        default: root -> the subsets to prepare when none are named; None: all that are published.
    """

    name: str
    url: str
    licence: str
    published: Mapping[str, int | None]
    labels: Mapping[str, Mapping[str, str | Out]] = field(default_factory=dict)
    default: Callable[[Path], Sequence[str]] | None = None
