"""What a script finds of one subset: utterances, and what is left out with its cause."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wenet_osum.dataset.sources import is_pipe
from wenet_osum.errors import OsumError

from .corpus import Corpus, Out, Utterance

NO_AUDIO = "no audio file"
TAG_MARK = "'<' or '>' in the text, which are kept for tags"


class NotThere(OsumError):
    """A subset that this copy of the corpus does not have; ``--allow_partial`` goes on without it."""


@dataclass
class Found:
    """One subset as found.

    Attributes:
        corpus: its description.
        subset: its name, a key of ``corpus.published``.
        partial: whether a file that the lists name may be missing (``--allow_partial``).
        utterances: those that are used.
        left_out: (item, what, cause); ``what`` is ``utterance``, or the label field that an utterance
            which is used goes without.
    """

    corpus: Corpus
    subset: str
    partial: bool = False
    utterances: list[Utterance] = field(default_factory=list)
    left_out: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def items(self) -> int:
        """The number of items, used and left out together, which ``corpus.published`` tells too."""
        return len(self.utterances) + sum(what == "utterance" for _, what, _ in self.left_out)

    def rows(self) -> list[tuple[str, str, str]]:
        """``left_out``, sorted; of an utterance that is left out itself its labels are not told too."""
        gone = {item for item, what, _ in self.left_out if what == "utterance"}
        return sorted(row for row in self.left_out if row[1] == "utterance" or row[0] not in gone)

    def add(self, utterance: Utterance, where: str) -> None:
        """Use an utterance, if its audio file is there.

        Args:
            utterance: its ``text`` may have any white space.
            where: file and line that tell of it.

        Raises:
            OsumError: the file is missing, and this is no part of a corpus.
        """
        if not is_pipe(utterance.wav) and not Path(utterance.wav).is_file():
            if not self.partial:
                mend = f"get it again from {self.corpus.url}, or go on without by --allow_partial"
                raise OsumError(where, f"no audio file {utterance.wav}", mend)
            self.leave_out(utterance.key, NO_AUDIO)
        elif set("<>") & set(utterance.text or ""):
            self.leave_out(utterance.key, TAG_MARK)
        else:
            self.utterances.append(utterance)

    def leave_out(self, item: str, cause: str, what: str = "utterance") -> None:
        """Leave out an item, or only a label (``what``: its field) of an utterance that is used."""
        self.left_out.append((item, what, cause))

    def value(self, field_name: str, official: str, where: str) -> str | Out:
        """OSUM's value of an official label, or ``Out`` with the reason why there is none.

        Raises:
            OsumError: a label that the description does not have.
        """
        table = self.corpus.labels[field_name]
        if official not in table:
            known = ", ".join(map(repr, table))
            mend = f"known are {known}; another version of the corpus? Add it to the table of the script"
            raise OsumError(where, f"unknown {field_name} {official!r:.80}", mend)
        return table[official]

    def label(self, field_name: str, official: str, key: str, where: str) -> dict[str, str]:
        """``{field: value}`` for an utterance that is used in any case; without a value, ``{}``, and that is
        counted."""
        value = self.value(field_name, official, where)
        if isinstance(value, Out):
            self.leave_out(key, value.why, field_name)
            return {}
        return {field_name: value}
