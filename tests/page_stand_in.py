"""A server for the page without a model: /v1/understand gives the same answers to every recording."""

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
from types import SimpleNamespace
from typing import Any

import soundfile as sf
import uvicorn
from fastapi import FastAPI, Request
from starlette.datastructures import UploadFile

from wenet_osum.decode.formats import Heard, Transcript, as_json
from wenet_osum.decode.join import Segment
from wenet_osum.serve.errors_http import ApiError, add_handlers
from wenet_osum.serve.page.routes import add_page
from wenet_osum.serve.service import TaskFacts
from wenet_osum.serve.settings import Limits
from wenet_osum.tasks import Answer, load_tasks
from wenet_osum.tasks.answer import Word

TEXT = "the small dog runs 很快"
WORDS = [
    Word(0.2, 0.4, "the"),
    Word(0.4, 0.9, "small"),
    Word(0.9, 1.3, "dog"),
    Word(1.3, 1.7, "runs"),
    Word(2.1, 2.3, "很"),
    Word(2.3, 2.6, "快"),
]


def heard(name: str, duration: float) -> Heard:
    """A task's answer: the first value of each label field is the likeliest; the age is not certain."""
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
    segments = [Segment(0.0, duration, answer.text or "", answer.labels)]
    return Heard("", answer, probabilities, segments)


@dataclass
class StandIn:
    """A server that runs; ``asked``: what came to /v1/understand; ``errors``: answers to give before any other."""

    service: Any
    settings: Any
    asked: list[dict[str, Any]] = field(default_factory=list)
    errors: list[ApiError] = field(default_factory=list)
    url: str = ""

    def app(self) -> FastAPI:
        app = FastAPI()
        add_handlers(app)
        add_page(app, self.service, self.settings)

        @app.post("/v1/understand")
        async def understand(request: Request) -> Any:
            form = await request.form()
            file = form["file"]
            assert isinstance(file, UploadFile)
            data = await file.read()
            tasks = str(form["tasks"]).split(",")
            key = request.headers.get("authorization")
            self.asked.append({"tasks": tasks, "prompt": form.get("prompt"), "data": data, "key": key})
            if self.errors:
                raise self.errors.pop(0)
            try:
                duration = sf.info(io.BytesIO(data)).duration
            except sf.SoundFileError:
                raise ApiError(400, "no audio that libsndfile knows", "file", "invalid_audio") from None
            name = file.filename or ""
            done = Transcript(name, name, duration, {task: heard(task, duration) for task in tasks})
            return json.loads(as_json(done))

        return app


def stand_in(**settings: Any) -> StandIn:
    """Not started yet. ``settings``: of the page, in place of those that leave all off."""
    tasks = {
        t.name: TaskFacts(t.name, t.tag, t.transcript, t.align, t.reply, {f.name: f.values for f in t.fields})
        for t in load_tasks().values()
    }
    service = SimpleNamespace(ready=True, model_name="tiny", tasks=tasks, limits=Limits())
    off: dict[str, Any] = {"examples": None, "feedback": None, "keys": (), "docs": True}
    return StandIn(service, SimpleNamespace(**{**off, **settings}))


@contextlib.contextmanager
def running(server: StandIn) -> Iterator[StandIn]:
    """``server`` on a free port of this machine, by uvicorn in a thread."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(server.app(), log_level="warning")
    uvicorn_server = uvicorn.Server(config)
    thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not uvicorn_server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        server.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        yield server
    finally:
        uvicorn_server.should_exit = True
        thread.join()
        listening.close()


def feedback_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
