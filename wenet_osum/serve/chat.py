"""``POST /v1/chat/completions``: a question about a recording, in OpenAI's form of a chat."""

from __future__ import annotations

import base64
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from typing import Any, Literal

from fastapi import FastAPI, Request
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from wenet_osum.decode.formats import Heard, Transcript
from wenet_osum.serve.asking import events, while_there
from wenet_osum.serve.deltas import growing
from wenet_osum.serve.errors import BadAudio, TooLarge
from wenet_osum.serve.errors_http import ApiError, api_error, from_validation, unsupported
from wenet_osum.serve.openai_schema import (
    AssistantMessage,
    AudioPart,
    ChatCompletion,
    ChatRequest,
    ChatUsage,
    Choice,
    TextPart,
    TokenDetails,
)
from wenet_osum.serve.openapi import describe
from wenet_osum.serve.room import Room
from wenet_osum.serve.service import Question, TaskFacts
from wenet_osum.tasks.task import REPLY_MARK
from wenet_osum.tasks.timed import format_words

NO_AUDIO = "no audio: the model answers about a recording; send one as an input_audio part"


def read(body: bytes) -> tuple[ChatRequest, bytes]:
    """A request and its audio. Takes its time with a long body: not for the event loop.

    Raises:
        ApiError: no JSON, not as OpenAI has it, or something that this model cannot do.
    """
    try:
        given = from_json(body, allow_inf_nan=False)
    except ValueError as e:
        raise ApiError(400, f"the body is no JSON: {e}", None, "invalid_json") from None
    if not isinstance(given, dict):
        raise ApiError(400, "the body is no JSON object", None, "invalid_json")
    try:
        asked = ChatRequest.model_validate(given)
    except ValidationError as e:
        raise from_validation(e) from None
    if len(asked.messages) > 1:
        raise unsupported("messages", "the model remembers nothing: send one message")
    parts = [part for part in asked.messages[0].content if isinstance(part, AudioPart)]
    if len(parts) != 1:
        raise unsupported("messages", f"{len(parts)} recordings: send one" if parts else NO_AUDIO)
    # Some clients send a data URL.
    encoded = parts[0].input_audio.data.rpartition(",")[2]
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:
        raise ApiError(400, "input_audio.data is no base64", "messages", "invalid_audio") from None
    if not data:
        raise ApiError(400, "input_audio.data has no bytes", "messages", "invalid_audio")
    return asked, data


def question_of(asked: ChatRequest, room: Room) -> tuple[Question, TaskFacts]:
    """The text is a task's name or tag, or a question in the user's own words, which is answered as a transcript is;
    without a text the speech is transcribed."""
    texts = [part.text for part in asked.messages[0].content if isinstance(part, TextPart)]
    text = "\n".join(texts).strip()
    named = room.find_task(text or "asr")
    task = named or room.service.tasks["asr"]
    question = Question(
        (task.name,),
        prompt=None if named else text,
        temperature=asked.temperature or 0.0,
        seed=asked.seed or 0,
    )
    return question, task


def content(heard: Heard, task: TaskFacts) -> str:
    """An answer as OSUM writes it: ``text<label>``, times around each word, ``<开始回答>reply``."""
    answer = heard.answer
    body = format_words(answer.words or []) if task.align else answer.text or ""
    labels = "".join(f"<{answer.labels[name]}>" for name in task.labels if name in answer.labels)
    return body + labels + (REPLY_MARK + answer.reply if answer.reply else "")


class Exchange:
    """One question, and its answer in either form."""

    def __init__(self, asked: ChatRequest, room: Room):
        self.asked, self.room = asked, room
        self.question, self.task = question_of(asked, room)
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        limit = asked.max_completion_tokens or asked.max_tokens
        self.cut = partial(room.facts.cut, tokens=limit)

    def finish(self, whole: str, heard: Heard) -> Literal["stop", "length"]:
        short = self.cut(whole) != whole or any("cut at " in problem for problem in heard.answer.problems)
        return "length" if short else "stop"

    def usage(self, done: Transcript, text: str) -> ChatUsage | None:
        found = self.room.facts.usage(self.question, done, [text])
        if found is None:
            return None
        return ChatUsage(
            prompt_tokens=found.text + found.audio,
            completion_tokens=found.output,
            total_tokens=sum(found),
            prompt_tokens_details=TokenDetails(audio_tokens=found.audio, text_tokens=found.text),
        )

    async def whole(self, data: bytes) -> ChatCompletion:
        done = await self.room.service.hear(data, self.question)
        heard = done.tasks[self.task.name]
        written = content(heard, self.task)
        told = self.cut(written)
        choice = Choice(message=AssistantMessage(content=told), finish_reason=self.finish(written, heard))
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.asked.model,
            choices=[choice],
            usage=self.usage(done, told),
        )

    def chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.asked.model,
            "choices": [choice],
        }

    async def chunks(self, data: bytes) -> AsyncGenerator[dict[str, Any], None]:
        """``chat.completion.chunk``s; the role comes with the first piece of the answer, so that an error before it
        has a status of its own."""
        options = self.asked.stream_options
        stream = self.room.service.stream(data, self.question)
        by_piece = self.task.transcript and not self.task.align
        grown = growing(stream, lambda heard: content(heard, self.task), by_piece, self.cut)
        delta: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
        async with contextlib.aclosing(grown) as items:
            async for item in items:
                if delta:
                    yield self.chunk(delta)
                    delta = {}
                if isinstance(item, str):
                    yield self.chunk({"content": item})
                    continue
                heard = item.tasks[self.task.name]
                written = content(heard, self.task)
                yield self.chunk({}, self.finish(written, heard))
                if options and options.include_usage:
                    usage = self.usage(item, self.cut(written))
                    yield self.chunk({}) | {"choices": [], "usage": usage and usage.model_dump()}


@contextlib.contextmanager
def _of_messages() -> Iterator[None]:
    """The recording is in ``messages``, not in a file."""
    try:
        yield
    except (BadAudio, TooLarge) as e:
        error = api_error(e)
        error.param = "messages"
        raise error from None


def add_chat(app: FastAPI, room: Room) -> None:
    @app.post(
        "/v1/chat/completions",
        **describe(ChatCompletion, json=ChatRequest, others=("text/event-stream",)),
    )
    async def chat(request: Request) -> Response:
        """Answer a question about a recording, as OpenAI's API does."""
        room.check_started()
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(400, "send application/json", None, "no_json")
        asked, data = await run_in_threadpool(read, await request.body())
        room.check_model(asked.model)
        exchange = Exchange(asked, room)
        with _of_messages():
            if asked.stream:
                return await events(request, exchange.chunks(data), "[DONE]")
            found = await while_there(request, exchange.whole(data))
        return Response(found.model_dump_json(), media_type="application/json")
