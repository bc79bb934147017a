"""A service without a model: it hears what it is told to hear, when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI

from wenet_osum.decode.answer import Answered
from wenet_osum.decode.formats import Transcript
from wenet_osum.decode.hearing import transcript
from wenet_osum.serve.app import create_app
from wenet_osum.serve.http_settings import HttpSettings
from wenet_osum.serve.model_facts import ModelFacts
from wenet_osum.serve.service import Piece, Question, TaskFacts
from wenet_osum.serve.settings import Limits
from wenet_osum.serve.stats import Stats
from wenet_osum.tasks import load_tasks
from wenet_osum.tasks.answer import Word
from wenet_osum.tasks.timed import format_words

TABLE = load_tasks()
SECONDS = 2.0  # of a piece


class Letters:
    """A tokenizer with a token a character."""

    def encode(self, text: str) -> list[int]:
        return list(map(ord, text))

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def written(name: str, text: str) -> str:
    """A task's answer to a piece: words of half a second, the first value of each label, and ``yes``."""
    task = TABLE[name]
    words = [Word(n / 2, n / 2 + 0.5, word) for n, word in enumerate(text.split())]
    body = format_words(words) if task.align else text if task.transcript else ""
    reply = "<开始回答>yes" if task.reply else ""
    return body + "".join(f"<{f.values[0]}>" for f in task.fields) + reply


@dataclass
class FakeService:
    """In place of ``Service``.

    Attributes:
        pieces: what each piece says. error: raised behind so many pieces (``fails_at``).
        wait: before the first piece; None: no wait. asked: what came. cancelled: how many left early.
    """

    pieces: list[str] = field(default_factory=lambda: ["what a day", "你 好 now"])
    error: Exception | None = None
    fails_at: int = 0
    wait: asyncio.Event | None = None
    limits: Limits = field(default_factory=lambda: Limits(max_bytes=1 << 20))
    ready: bool = True
    failed: str | None = None
    model_name: str = "tiny"
    stats: Stats = field(default_factory=Stats)
    asked: list[tuple[bytes, Question, str]] = field(default_factory=list)
    cancelled: int = 0
    stopped: int = 0

    @property
    def tasks(self) -> dict[str, TaskFacts]:
        return {
            t.name: TaskFacts(
                t.name, t.tag, t.transcript, t.align, t.reply, {f.name: f.values for f in t.fields}
            )
            for t in TABLE.values()
        }

    async def start(self) -> None:
        self.ready = True

    async def stop(self, grace: float = 30.0) -> None:
        self.stopped += 1

    async def hear(self, data: bytes, question: Question, name: str = "audio") -> Transcript:
        async with contextlib.aclosing(self.stream(data, question, name)) as items:
            async for item in items:
                if isinstance(item, Transcript):
                    return item
        raise AssertionError

    async def stream(
        self, data: bytes, question: Question, name: str = "audio"
    ) -> AsyncGenerator[Piece | Transcript, None]:
        self.asked.append((data, question, name))
        ended = False
        try:
            if self.wait is not None:
                await self.wait.wait()
            spans, answers = [], []
            for n, text in enumerate(self.pieces):
                if self.error is not None and n == self.fails_at:
                    raise self.error
                found = {}
                for task in question.tasks:
                    raw = written(task, text)
                    shares = {
                        f.name: {v: float(v == f.values[0]) for v in f.values} for f in TABLE[task].fields
                    }
                    found[task] = Answered(name, task, raw, TABLE[task].parse(raw), shares)
                spans.append((n * SECONDS, (n + 1) * SECONDS))
                answers.append(found)
                yield Piece(*spans[-1], SECONDS * len(self.pieces), found)
            tasks = [TABLE[task] for task in question.tasks]
            stem = name.rpartition(".")[0] or name
            ended = True
            yield transcript(name, stem, SECONDS * len(self.pieces), spans, answers, tasks)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += not ended
            raise


def facts(lang: str, rate: float | None) -> ModelFacts:
    return ModelFacts(Letters(), TABLE, {"style": "words", "lang": lang, "number": 1}, rate)


def app_of(service: FakeService, lang: str = "auto", rate: float | None = 12.5, **settings: Any) -> FastAPI:
    """``lang``: of the questions that the model knows. ``rate``: tokens that it hears a second."""
    stand_in: Any = service
    return create_app(stand_in, HttpSettings(names=("tiny", "whisper-1"), **settings), facts(lang, rate))
