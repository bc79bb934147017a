"""Questions about utterances, and their answers: what ``recognize``, ``transcribe`` and a server ask.

An answer is written in parts: the body (a transcript, or words with their times) token by token under a rule,
the labels by the probability of each, a reply under a rule again. So every answer can be read by
``Task.parse``, and each label comes with its probability. With ``constrain`` off the LLM writes as it likes.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wenet_osum.constants import IGNORE_ID
from wenet_osum.dataset.batch import Batch
from wenet_osum.decode.constrain import (
    TextRule,
    body_rule,
    label_choices,
    label_starts,
    reply_mark,
    text_rule,
)
from wenet_osum.decode.constrain_timed import TimedRule
from wenet_osum.decode.drafts import TextDraft, TimedDraft
from wenet_osum.decode.pieces import vocabulary_of
from wenet_osum.errors import OsumError
from wenet_osum.models.beam import write_best
from wenet_osum.models.choices import log_probabilities
from wenet_osum.models.generation import Drafter, Rule, Search, Session, Written, looping
from wenet_osum.models.osum import Heard
from wenet_osum.tasks import Answer, Task, TaskTable
from wenet_osum.tasks.prompts import prompt_text, with_hotwords
from wenet_osum.tasks.task import REPLY_MARK
from wenet_osum.text.normalize import split_words

DRAFTS = ("none", "exact", "relaxed")
REPEATED = 60  # tokens of one thing over and over that are told
LOOP = 100  # tokens of a reply that repeat one thing before it is cut
RELAXED = 0.1  # probability from which a draft's token is kept
TIMED = 8  # as many times max_new_tokens for words with times: up to twelve tokens a word with digits apart


@dataclass
class Answered:
    """One utterance's answer to one task.

    Attributes:
        text: as composed, e.g. ``"what a day<happy>"``.
        answer: the same, parsed.
        probabilities: label field -> value -> probability, each field's summing to 1; empty without labels, and
            where the LLM writes as it likes. Of several labels the likeliest combination is written, which need not
            be made of each field's likeliest value.
        proposed, accepted: draft tokens.
    """

    key: str
    task: str
    text: str
    answer: Answer
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    proposed: int = 0
    accepted: int = 0


@dataclass
class Question:
    """A task put to one utterance of a batch, and what of its answer there is."""

    task: Task
    row: int  # of the batch
    ready: bool = False  # the body is there
    cut: bool = False  # by the limit
    body: Written = field(default_factory=Written)
    labels: dict[str, str] = field(default_factory=dict)
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    reply: list[int] = field(default_factory=list)


class Answerer:
    """A model, its tokenizer and its tasks, ready to be asked.

    Args:
        model: ``Osum``, on ``device``. table: the tasks. conf: ``dataset_conf``.
        mode: ``llm_greedy``, or ``llm_beam`` with ``search.beam_size`` hypotheses.
        constrain: keep answers to the form of their task, and labels to its values.
        draft: ``exact``: the CTC head's text is a draft, which the LLM checks; ``relaxed``: and keeps tokens that it
            gives at least a probability of 0.1. With several tasks the transcript drafts the timed words.
        autocast: makes a context around the model's work.
        hotwords: words that the question names. prompt: a question in your own words. lang: the language of the
            question, in place of each utterance's. chunks: size and left ones, for a streaming encoder of WeNet's.

    Raises:
        OsumError: a draft without CTC head, or beside beams or drawing.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        table: TaskTable,
        conf: dict[str, Any],
        device: torch.device,
        mode: str = "llm_greedy",
        search: Search | None = None,
        constrain: bool = True,
        draft: str = "none",
        autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        hotwords: Sequence[str] = (),
        prompt: str | None = None,
        lang: str | None = None,
        chunks: tuple[int, int] = (-1, -1),
    ):
        self.model, self.tokenizer, self.table, self.conf, self.device = model, tokenizer, table, conf, device
        self.mode, self.search = mode, search or Search()
        if draft == "relaxed":
            self.search = replace(self.search, relaxed=RELAXED)
        self.constrain, self.draft, self.autocast = constrain, draft, autocast
        self.hotwords, self.prompt, self.lang, self.chunks = tuple(hotwords), prompt, lang, chunks
        if draft != "none" and not hasattr(model.ctc, "greedy"):
            raise OsumError(
                "--draft", "the model has no CTC head", "train one (ctc: ctc), or use --draft none"
            )
        if draft != "none" and (mode == "llm_beam" or self.search.do_sample):
            raise OsumError(
                "--draft", "goes with greedy decoding only", "drop the beams and sampling, or the draft"
            )
        self.eos = int(model.eos)
        self.vocabulary = vocabulary_of(tokenizer) if constrain else None
        self.prompts: dict[str, Tensor] = {}
        self.choices: dict[str, tuple[list[list[int]], list[dict[str, str]]]] = {}
        self.rules: dict[str, TextRule | TimedRule | None] = {}
        self.starts: dict[str, frozenset[int]] = {}
        self.tails: dict[str, int] = {}
        self.seconds_per_frame = (
            conf["log_mel_spectrogram_conf"]["hop_length"] / conf["resample_conf"]["resample_rate"]
        )

    @torch.no_grad()
    def answer(self, batch: Batch, tasks: Sequence[str]) -> dict[str, list[Answered]]:
        """Ask a padded batch all ``tasks``.

        The audio is encoded once. With several tasks the first that has a transcript writes it, and the others go
        on behind it; words with times are written anew.

        Returns:
            task -> one answer an utterance, in the batch's order.
        """
        asked = [self.table[name] for name in dict.fromkeys(tasks)]
        with self.autocast():
            feats, lengths = batch["feats"].to(self.device), batch["feats_lengths"].to(self.device)
            heard = self.model.hear(feats, lengths, *self.chunks)
            drafts = self.ctc_drafts(heard)
            plain = [t for t in asked if t.transcript and not t.align]
            first = (plain or asked)[0]
            rows = range(len(batch["keys"]))
            questions = [Question(first, row) for row in rows]
            self.ask(heard, batch, questions, drafts, None)
            if len(asked) > 1:
                known = [q.body for q in questions] if first.transcript and not first.align else None
                others = [task for task in asked if task is not first]
                # Each by itself: a question's rows are alike in length, while those of another would be padding
                # to them, or have nothing to write and be in their way.
                for task in others:
                    more = [Question(task, row) for row in rows]
                    self.ask(heard, batch, more, drafts, known)
                    questions += more
        answers = [self.composed(q, batch["keys"][q.row]) for q in questions]
        return {task.name: [a for a in answers if a.task == task.name] for task in asked}

    def ask(
        self,
        heard: Heard,
        batch: Batch,
        questions: list[Question],
        drafts: list[list[int]] | None,
        known: list[Written] | None,
    ) -> None:
        """Write the answers into ``questions``. ``known``: the transcript of each utterance of the batch."""
        whole, heard = heard, heard.rows(torch.tensor([q.row for q in questions], device=self.device))
        own = batch.get("questions") or [None] * len(batch["keys"])
        prompts = [self.prompt_ids(q.task, batch["langs"][q.row], own[q.row]) for q in questions]
        prompt = pad_sequence(prompts, batch_first=True, padding_value=IGNORE_ID).to(self.device)
        if not self.constrain:
            longest = [self.longest(q.task, True) for q in questions]
            session = self.model.ask(heard, prompt)
            return self.write(session, heard, batch, questions, longest, drafts, None)
        longest = []
        for q in questions:
            if known is not None and q.task.transcript and not q.task.align:
                q.body, q.ready = Written(known[q.row].tokens, looped=known[q.row].looped), True
            longest.append(self.longest(q.task, False) if q.task.transcript and not q.ready else 0)
        session = self.model.ask(heard, prompt, [q.body.tokens for q in questions])
        if any(longest):
            self.write(session, heard, batch, questions, longest, drafts, known)
            if self.tagged(questions):
                return self.ask(whole, batch, questions, drafts, known)
        self.label(session, questions)
        self.reply(session, batch, questions)

    def write(
        self,
        session: Session,
        heard: Heard,
        batch: Batch,
        questions: list[Question],
        longest: list[int],
        drafts: list[list[int]] | None,
        known: list[Written] | None,
    ) -> None:
        """The bodies, or whole answers of an LLM that writes as it likes."""
        natural = self.model.limits(heard, max(longest))
        room = [left - self.tail(q.task) for q, left in zip(questions, self.room(session))]
        limits = [min(n, most, max(left, 1)) for n, most, left in zip(natural, longest, room)]
        audible = self.model.audible(heard)
        rules: list[Rule | None] = [None] * len(questions)
        ends: list[frozenset[int]] = [frozenset()] * len(questions)
        if self.vocabulary is not None:
            for n, q in enumerate(questions):
                rule = self.rule(q.task, float(batch["feats_lengths"][q.row]) * self.seconds_per_frame)
                if rule is not None and limits[n]:
                    rules[n], ends[n], limits[n] = rule, rule.ends, max(limits[n], rule.least - 1)
                if q.task.align and self.tail(q.task):  # its rule lets it end behind the labels only
                    audible[n] = limits[n] + 1
        drafters = [self.drafter(q, drafts, known) for q in questions]
        found = self.search_for(session, batch, questions, limits, rules, ends, drafters, audible)
        for q, limit, written in zip(questions, limits, found):
            if limit:
                q.body, q.cut = written, len(written.tokens) >= limit and not written.ended

    def search_for(
        self,
        session: Session,
        batch: Batch,
        questions: list[Question],
        limits: list[int],
        rules: list[Rule | None],
        ends: list[frozenset[int]],
        drafters: list[Drafter | None],
        audible: list[int],
    ) -> list[Written]:
        """Let the session go on in the way that was asked for. Beams know no drafts, and go in circles only where
        nothing else is likelier."""
        # Numbers of the rows for drawing, which do not depend on the batch.
        keys = [
            zlib.crc32(f"{batch['keys'][q.row]} {q.task.name}".encode(errors="surrogateescape"))
            for q in questions
        ]
        if self.mode == "llm_beam" and self.search.beam_size > 1:
            return write_best(session, limits, rules, ends, self.search, keys)
        return session.write(limits, rules, ends, drafters, self.search, keys, audible)

    def tagged(self, questions: list[Question]) -> bool:
        """Take off what a rule wrote behind timed words: a time and a label both open with ``<``, so that the rule
        writes labels too, and they are chosen anew by their probability. Whether there were any."""
        found = [q for q in questions if q.task.align and (q.task.fields or q.task.reply) and not q.ready]
        for q in found:
            text = self.tokenizer.decode(q.body.tokens)
            q.body.tokens = self.tokenizer.encode(text[: q.task.label_span(text)[0]])
        for q in questions if found else []:  # those beside them stay as they are
            q.ready = True
        return bool(found)

    def label(self, session: Session, questions: list[Question]) -> None:
        """The likeliest labels of each question, all of them scored beside each other."""
        own = [self.combinations(q.task) for q in questions]
        if not any(q.task.fields for q in questions):
            return
        found = log_probabilities(session, [ids for ids, _ in own])
        chosen: list[list[int]] = []
        for q, (ids, values), scores in zip(questions, own, found):
            if not q.task.fields:
                chosen.append([])
                continue
            shares = scores.double().softmax(0).tolist()
            best = max(range(len(shares)), key=shares.__getitem__)
            q.labels = values[best]
            for label in q.task.fields:
                q.probabilities[label.name] = {
                    value: sum(p for p, v in zip(shares, values) if v[label.name] == value)
                    for value in label.values
                }
            chosen.append(ids[best])
        if any(q.task.reply for q in questions):
            session.force(chosen)

    def reply(self, session: Session, batch: Batch, questions: list[Question]) -> None:
        if not any(q.task.reply for q in questions):
            return
        assert self.vocabulary is not None
        mark = reply_mark(self.tokenizer)
        session.force([mark if q.task.reply else [] for q in questions])
        limits = [
            min(self.model.max_new_tokens, left) if q.task.reply else 0
            for q, left in zip(questions, self.room(session))
        ]
        rules: list[Rule | None] = [text_rule(self.vocabulary, self.eos, nonempty=True)] * len(questions)
        free: list[frozenset[int]] = [frozenset()] * len(questions)
        most = [LOOP] * len(questions)
        found = self.search_for(session, batch, questions, limits, rules, free, [None] * len(questions), most)
        for q, written in zip(questions, found):
            q.reply = written.tokens

    def composed(self, q: Question, key: str) -> Answered:
        text = self.tokenizer.decode(q.body.tokens)
        if self.constrain:
            text += "".join(f"<{q.labels[label.name]}>" for label in q.task.fields)
            text += REPLY_MARK + self.tokenizer.decode(q.reply) if q.task.reply else ""
        answer = q.task.parse(text)
        if q.body.looped:
            answer.problems.append("repeats itself, cut")
        elif looping(q.body.tokens, REPEATED) > 0:  # not surely a fault, so it stays
            answer.problems.append("repeats itself")
        elif q.cut:
            answer.problems.append(f"cut at {len(q.body.tokens)} tokens, the most that it may have")
        return Answered(key, q.task.name, text, answer, q.probabilities, q.body.proposed, q.body.accepted)

    # --- what a question is made of ---

    def prompt_ids(self, task: Task, lang: str, own: str | None = None) -> Tensor:
        """(n,) ids of the question; ``own``: the utterance's, for a task with a reply."""
        conf = {**self.conf["prompt_conf"], "lang": self.lang} if self.lang else self.conf["prompt_conf"]
        if given := self.prompt or (own if task.reply else None):
            text = with_hotwords(given, conf["lang"] if conf["lang"] != "auto" else lang, self.hotwords)
        else:
            text = prompt_text(task, lang, conf, 0, self.hotwords)
        if text in self.prompts:
            return self.prompts[text]
        ids = torch.tensor(self.tokenizer.encode(text), dtype=torch.long)
        if own is None:  # the others are few
            self.prompts[text] = ids
        return ids

    def combinations(self, task: Task) -> tuple[list[list[int]], list[dict[str, str]]]:
        if not task.fields:
            return [], []
        if task.name not in self.choices:
            self.choices[task.name] = label_choices(task, self.tokenizer)
        return self.choices[task.name]

    def rule(self, task: Task, seconds: float) -> TextRule | TimedRule | None:
        """Of a body. One without times is the same for every utterance, and keeps the masks it has worked out."""
        assert self.vocabulary is not None
        if not task.align and task.name in self.rules:
            return self.rules[task.name]
        step, ends = self.conf["time_step"], self.ends(task)
        rule = self.rules[task.name] = body_rule(task, self.vocabulary, self.eos, ends, seconds, step)
        return rule

    def ends(self, task: Task) -> frozenset[int]:
        """Ids that end a body: those which a label or a reply begins with."""
        if task.name not in self.starts:
            self.starts[task.name] = frozenset(label_starts(task, self.tokenizer))
        return self.starts[task.name]

    def longest(self, task: Task, whole: bool) -> int:
        most: int = self.model.max_new_tokens
        return most * (TIMED if task.align else 1) + (most if whole and task.reply else 0)

    def tail(self, task: Task) -> int:
        """Tokens that labels and the mark of a reply take behind a body, and two for the reply."""
        if not self.constrain:
            return 0
        if task.name not in self.tails:
            labels = max((len(ids) for ids in self.combinations(task)[0]), default=0)
            self.tails[task.name] = labels + (len(reply_mark(self.tokenizer)) + 2 if task.reply else 0)
        return self.tails[task.name]

    def room(self, session: Session) -> list[int]:
        """Positions that the LLM has left for each answer."""
        positions = getattr(self.model.decoder.causal_lm.config, "max_position_embeddings", None)
        used = session.kept.lengths().tolist()
        return [2**31 if positions is None else max(1, positions - n - 1) for n in used]

    def ctc_drafts(self, heard: Heard) -> list[list[int]] | None:
        if self.draft == "none":
            return None
        return self.model.ctc_greedy(heard)  # type: ignore[no-any-return]

    def drafter(
        self, q: Question, drafts: list[list[int]] | None, known: list[Written] | None
    ) -> Drafter | None:
        """Of the transcript, which the CTC head or a question before has."""
        text = known[q.row].tokens if known else drafts[q.row] if drafts else None
        if text is None or not q.task.transcript or self.search.do_sample:
            return None
        if q.task.align:
            return TimedDraft(
                split_words(self.tokenizer.decode(text)), self.tokenizer.encode, self.tokenizer.decode
            )
        return TextDraft(text)
