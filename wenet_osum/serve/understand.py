"""``POST /v1/understand``: any task about a recording, or all eight, with labels and their probabilities."""

from __future__ import annotations

from fastapi import FastAPI, Request
from pydantic import ValidationError
from starlette.responses import Response

from wenet_osum.decode.formats import as_json
from wenet_osum.score.report import TASK_ORDER
from wenet_osum.serve.asking import while_there
from wenet_osum.serve.errors_http import ApiError, from_validation
from wenet_osum.serve.openai_schema import UnderstandForm, Understood
from wenet_osum.serve.openapi import describe
from wenet_osum.serve.room import Room
from wenet_osum.serve.service import Question
from wenet_osum.serve.upload import read_form

LISTS = frozenset({"tasks", "hotwords"})


def split(given: list[str]) -> list[str]:
    """What stands between commas, over all values of a list."""
    parts = (part.strip() for value in given for part in value.split(","))
    return list(dict.fromkeys(part for part in parts if part))


def question_of(asked: UnderstandForm, room: Room) -> Question:
    """Raises:
    ApiError: an unknown task.
    """
    names: list[str] = []
    for given in split(asked.tasks) or ["all"]:
        task = room.find_task(given)
        if task is None and given.lower() != "all":
            what = f"unknown task {given[:60]!r}; there are {', '.join(room.service.tasks)}"
            raise ApiError(400, what, "tasks", "invalid_value")
        names += [task.name] if task else TASK_ORDER
    return Question(
        tuple(dict.fromkeys(names)),
        prompt=asked.prompt.strip() or None,
        lang=asked.lang,
        hotwords=tuple(split(asked.hotwords)),
        temperature=asked.temperature,
        seed=asked.seed,
    )


def add_understand(app: FastAPI, room: Room) -> None:
    @app.post("/v1/understand", **describe(Understood, form=UnderstandForm))
    async def understand(request: Request) -> Response:
        """All that the model hears: transcript, timed words, labels with probabilities, a reply."""
        room.check_started()
        form = await read_form(request, LISTS)
        try:
            asked = UnderstandForm.model_validate(form.fields)
        except ValidationError as e:
            raise from_validation(e) from None
        room.check_model(asked.model)
        question = question_of(asked, room)
        done = await while_there(request, room.service.hear(form.data, question, form.name))
        return Response(as_json(done), media_type="application/json")
