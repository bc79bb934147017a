"""A server for the page without a model: the real app, and the same answers to every recording."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile as sf
import uvicorn
from fastapi import FastAPI

from wenet_osum.decode.formats import Heard, Transcript
from wenet_osum.decode.join import Segment
from wenet_osum.serve.app import create_app
from wenet_osum.serve.errors import BadAudio
from wenet_osum.serve.http_settings import HttpSettings
from wenet_osum.serve.service import Question, TaskFacts
from wenet_osum.serve.settings import Limits
from wenet_osum.serve.stats import Stats
from wenet_osum.tasks import Answer, load_tasks
from wenet_osum.tasks.answer import Word

TEXT = "the small dog runs很快"
WORDS = [
    Word(0.2, 0.4, "the"),
    Word(0.4, 0.9, "small"),
    Word(0.9, 1.3, "dog"),
    Word(1.3, 1.7, "runs"),
    Word(2.1, 2.3, "很"),
    Word(2.3, 2.6, "快"),
]


def heard(name: str, duration: float) -> Heard:
    """A task's answer: the first value of each label field is the likeliest; about the age there is a doubt."""
    task = load_tasks()[name]
    probabilities = {
        f.name: {v: (0.94 if i == 0 else 0.06 / (len(f.values) - 1)) for i, v in enumerate(f.values)}
        for f in task.fields
    }
    answer = Answer(
        text=TEXT if task.transcript else None,
        labels={f.name: f.values[0] for f in task.fields},
        words=WORDS if task.align else None,
        reply="the dog eats meat" if task.reply else None,
        problems=["stopped where it had no more room"] if name == "sap" else [],
    )
    return Heard("", answer, probabilities, [Segment(0.0, duration, answer.text or "", answer.labels)])


@dataclass
class StandIn:
    """In place of ``Service``, and the app around it.

    Attributes:
        asked: what came: (bytes, question). errors: to be raised before anything is answered.
        url: where it runs, see ``running``.
    """

    settings: HttpSettings
    limits: Limits = field(default_factory=Limits)
    ready: bool = True
    failed: str | None = None
    model_name: str = "tiny"
    stats: Stats = field(default_factory=Stats)
    asked: list[tuple[bytes, Question]] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    url: str = ""

    @property
    def tasks(self) -> dict[str, TaskFacts]:
        return {
            t.name: TaskFacts(
                t.name, t.tag, t.transcript, t.align, t.reply, {f.name: f.values for f in t.fields}
            )
            for t in load_tasks().values()
        }

    async def hear(self, data: bytes, question: Question, name: str = "audio") -> Transcript:
        self.asked.append((data, question))
        if self.errors:
            raise self.errors.pop(0)
        try:
            duration = sf.info(io.BytesIO(data)).duration
        except sf.SoundFileError:
            raise BadAudio("libsndfile does not know it") from None
        return Transcript(name, name, duration, {task: heard(task, duration) for task in question.tasks})

    def app(self) -> FastAPI:
        service: Any = self
        facts: Any = None  # of the model, whom the page's routes do not ask
        return create_app(service, self.settings, facts)


def stand_in(**settings: Any) -> StandIn:
    return StandIn(HttpSettings(names=("tiny",), **settings))


def below(path: str, app: Any) -> Any:
    """``app`` as a proxy shows it that takes ``path`` off the front of an address; elsewhere there is nothing."""

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            inner = scope["path"].removeprefix(path) if scope["path"].startswith(f"{path}/") else "/nothing"
            scope = {**scope, "path": inner, "raw_path": inner.encode()}
        await app(scope, receive, send)

    return proxy


@contextlib.contextmanager
def running(server: StandIn, path: str = "") -> Iterator[StandIn]:
    """``server`` on a free port of this machine, by uvicorn in a thread. ``path``: see ``below``."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = below(path, server.app()) if path else server.app()
    uvicorn_server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not uvicorn_server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        server.url = f"http://127.0.0.1:{listening.getsockname()[1]}{path}/"
        yield server
    finally:
        uvicorn_server.should_exit = True
        thread.join()
        listening.close()


def feedback_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
