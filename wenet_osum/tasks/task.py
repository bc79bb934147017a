"""A task: what is asked of an utterance and how the answer is written.

The written form is OSUM's: ``text<label>``, several labels in the order of the tag, timed words in
place of the text, and ``<开始回答>reply`` at the end, so that one rule covers every compound.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from wenet_osum.errors import OsumError
from wenet_osum.tasks import timed
from wenet_osum.tasks.answer import Answer, Word
from wenet_osum.tasks.label_field import LabelField
from wenet_osum.text.normalize import join_words, process_text

TRANSCRIBE, ALIGN, CHAT = "TRANSCRIBE", "ALIGN", "S2TCHAT"
REPLY_MARK = "<开始回答>"
_MARK = re.compile("<([^<>]*)>")
_ATOM = re.compile("<\\s*([^<>\\s]+)\\s*>")
_TAG = re.compile(f"\\s*(?:{_ATOM.pattern}\\s*)+")


@lru_cache(maxsize=1024)  # lists name one of a few tasks in every line
def tag_atoms(tag: str) -> tuple[str, ...]:
    """The atoms of a task tag, upper-case; blanks between them or none; empty when it is no tag."""
    return tuple(a.upper() for a in _ATOM.findall(tag)) if _TAG.fullmatch(tag) else ()


@dataclass(frozen=True)
class Task:
    """One task. Made by ``load_tasks``, which checks that its parts fit together.

    Attributes:
        name: short name, lower-case, e.g. ``"ser"``.
        atoms: the parts of its tag, e.g. ``("TRANSCRIBE", "EMOTION")``.
        fields: the labels it asks for, in tag order.
        prompts: language -> wordings of the question.
    """

    name: str
    atoms: tuple[str, ...]
    fields: tuple[LabelField, ...]
    prompts: dict[str, tuple[str, ...]] = field(repr=False, hash=False)

    @property
    def tag(self) -> str:
        """As lists have it: ``"<TRANSCRIBE> <EMOTION>"``."""
        return " ".join(f"<{atom}>" for atom in self.atoms)

    @property
    def transcript(self) -> bool:
        """Whether the answer starts with what is said (with or without times)."""
        return TRANSCRIBE in self.atoms

    @property
    def align(self) -> bool:
        """Whether every word has its times."""
        return ALIGN in self.atoms

    @property
    def reply(self) -> bool:
        """Whether the answer ends with a reply to the speaker."""
        return CHAT in self.atoms

    def is_called(self, name_or_tag: str) -> bool:
        """Whether this is the task's name (any case) or its tag (blanks between atoms or none)."""
        return name_or_tag.strip().lower() == self.name or tag_atoms(name_or_tag) == self.atoms

    def prompt(self, lang: str, index: int) -> str:
        """The wording ``index`` (modulo their number) in a language.

        A language without wordings falls back to Chinese, OSUM's own, then to English, then to any.
        """
        known = (k for k in (lang, "zh", "en", *self.prompts) if k in self.prompts)
        wordings = self.prompts[next(known)]
        return wordings[index % len(wordings)]

    def supported_by(self, sample: Mapping[str, Any]) -> bool:
        """Whether a sample dict has the parts this task's answer needs.

        A sample with a ``task`` supports that task alone. A sample without ``txt`` supports no task
        with a transcript; an empty ``txt`` says that nothing is said, which only labels can go with.
        """
        if sample.get("task"):
            return self.is_called(sample["task"])
        if any(not sample.get(f.name) for f in self.fields):
            return False
        if (self.align and not sample.get("align")) or (self.reply and not sample.get("reply")):
            return False
        if not self.transcript or self.align:
            return True
        if sample.get("txt") == "":
            return bool(self.fields) and not self.reply
        return sample.get("txt") is not None

    def answer_of(self, sample: Mapping[str, Any]) -> Answer:
        """This task's answer for a sample that supports it.

        Raises:
            OsumError: naming the sample's key, when the sample lacks a part or has a bad label.
        """
        where = str(sample.get("key", ""))
        if not self.supported_by(sample):
            raise OsumError(where, f"has no answer for task {self.name}", f"it has {sorted(sample)}")
        if sample.get("task"):
            answer = self.parse(sample["txt"])
            if answer.problems:
                mend = f"write txt as {self.tag} asks"
                raise OsumError(where, f"{'; '.join(answer.problems)} in {sample['txt']!r}", mend)
            return answer
        answer = Answer(labels={f.name: self._canonical(f, sample[f.name], where) for f in self.fields})
        if self.align:
            try:
                answer.words = [Word(float(start), float(end), word) for start, end, word in sample["align"]]
            except (TypeError, ValueError):
                raise OsumError(where, "malformed align", "write [[start, end, word], ...]") from None
        elif self.transcript:
            answer.text = sample["txt"]
        if self.reply:
            answer.reply = sample["reply"]
        return self.normalize(answer, where=where)

    @staticmethod
    def _canonical(label: LabelField, raw: Any, where: str) -> str:
        value = label.canonical(str(raw))
        if value is None:
            raise OsumError(
                where, f"unknown {label.name} {raw!r:.80}", f"use one of {', '.join(label.values)}"
            )
        return value

    def normalize(self, answer: Answer, time_step: float = 0.01, where: str = "") -> Answer:
        """The answer as it is once written and read again: ``parse(compose(answer, time_step))``.

        Args:
            answer: text and reply in any case and spacing; canonical labels.
            time_step: see ``compose``.
            where: the utterance, for errors; without it the task's name.

        Raises:
            OsumError: a part is missing, is not this task's, or cannot be written.
        """
        where = where or self.name

        def bad(what: str, mend: str = "") -> OsumError:
            return OsumError(where, what, mend)

        def plain(text: str) -> str:
            text = process_text(text)
            if "<" in text or ">" in text:
                raise bad(f"'<' or '>' in {text!r}", "they are kept for tags; take them out")
            return text

        if answer.problems:
            raise bad("an answer with problems: " + "; ".join(answer.problems))
        if set(answer.labels) != {f.name for f in self.fields}:
            wanted = [f.name for f in self.fields]
            raise bad(f"labels {sorted(answer.labels)}", f"{self.name} has {wanted}")
        for f in self.fields:
            if answer.labels[f.name] not in f.values:
                raise bad(f"unknown {f.name} {answer.labels[f.name]!r}", f"use one of {', '.join(f.values)}")
        for part, has, wants in (
            ("text", answer.text is not None, self.transcript),
            ("words", answer.words is not None, self.align),
            ("reply", answer.reply is not None, self.reply),
        ):
            # Text may be left out: beside words it says nothing new, and a clip may have no speech.
            if has != wants and not (part == "text" and wants):
                raise bad(f"{'a' if has else 'no'} part {part!r}", f"{self.name} has {self.tag}")
        result = Answer(labels={f.name: answer.labels[f.name] for f in self.fields})
        if self.transcript:
            result.text = plain(answer.text or "")
        if answer.words is not None:
            result.words = timed.snap(answer.words, time_step, where)
            result.text = join_words([w.word for w in result.words])
            if answer.text is not None and plain(answer.text) != result.text:
                raise bad(f"the words are {result.text!r} and the text {answer.text!r}", "make them agree")
        if answer.reply is not None:
            result.reply = plain(answer.reply)
            if not result.reply:
                raise bad("an empty reply")
        return result

    def compose(self, answer: Answer, time_step: float = 0.01) -> str:
        """Write an answer.

        Args:
            answer: see ``normalize``.
            time_step: times are rounded to multiples of it (seconds, a multiple of 0.01).

        Raises:
            OsumError: see ``normalize``.

        Example:
            >>> load_tasks()["ser"].compose(Answer("What a day", {"emotion": "happy"}))
            'what a day<happy>'
        """
        answer = self.normalize(answer, time_step)
        body = (answer.text or "") if answer.words is None else timed.format_words(answer.words)
        labels = "".join(f"<{answer.labels[f.name]}>" for f in self.fields)
        return body + labels + ("" if answer.reply is None else REPLY_MARK + answer.reply)

    def label_span(self, text: str) -> tuple[int, int]:
        """Where the labels of a composed answer stand, as ``text[start:end]``; empty when it has none."""
        body = text.partition(REPLY_MARK)[0] if self.reply else text
        return (self._first_label(body) if self.fields else len(body)), len(body)

    def _first_label(self, body: str) -> int:
        """Where the first mark stands that is not a time; the length of ``body`` when there is none."""
        marks = (m.start() for m in _MARK.finditer(body) if not (self.align and timed.is_time(m[1])))
        return next(marks, len(body))

    def parse(self, text: str) -> Answer:
        """Read an answer, a model's or a list's; never raises.

        A label may be an alias. What cannot be relied on is left out of the answer and named in
        ``problems``; the text is what stands before the first mark that is not a time.
        """
        answer = Answer()
        body = process_text(text)
        if self.reply:
            body, mark, reply = body.partition(REPLY_MARK)
            if mark:
                answer.reply = re.split("[<>]", reply)[0]
            if not answer.reply:
                answer.problems.append(f"no reply after {REPLY_MARK}" if mark else f"no {REPLY_MARK}")
            elif answer.reply != reply:
                answer.problems.append(f"marks in the reply: {reply!r}")
        first = self._first_label(body)
        head, tail = body[:first], body[first:]
        if rest := _MARK.sub("", tail):
            answer.problems.append(f"text after the labels: {rest!r}")
        self._parse_labels(_MARK.findall(tail), answer)
        if self.align:
            answer.words, problems = timed.parse_words(head)
            answer.problems += problems
            answer.text = process_text(re.sub("[<>]", " ", _MARK.sub(" ", head)))
        elif self.transcript:
            answer.text = re.split("[<>]", head)[0]
            if answer.text != head:
                answer.problems.append(f"a stray '<' or '>': {head!r}")
        elif head:
            answer.problems.append(f"text where only labels are asked: {head!r}")
        return answer

    def _parse_labels(self, marks: list[str], answer: Answer) -> None:
        if len(marks) == len(self.fields):
            named = [f.named(mark) for f, mark in zip(self.fields, marks, strict=True)]
            if None not in named:
                answer.labels = {f.name: v for f, v in zip(self.fields, named, strict=True) if v}
                return
        # Not as the tag asks: keep a label only where one reading is left.
        readings = [[(f.name, v) for f in self.fields if (v := f.named(mark))] for mark in marks]
        clear = {only[0] for only in readings if len(only) == 1}
        for f in self.fields:
            values = [value for name, value in clear if name == f.name]
            if len(values) == 1:
                answer.labels[f.name] = values[0]
        wanted = "".join(f"<{f.name}>" for f in self.fields) or "no labels"
        answer.problems.append(f"labels {''.join(f'<{m}>' for m in marks) or 'missing'} for {wanted}")
