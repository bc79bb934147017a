"""``POST /v1/audio/transcriptions``, as OpenAI defines it."""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI, Request
from pydantic import ValidationError
from starlette.responses import PlainTextResponse, Response

from wenet_osum.decode import formats
from wenet_osum.decode.formats import Heard, Transcript
from wenet_osum.serve.asking import events, while_there
from wenet_osum.serve.deltas import growing
from wenet_osum.serve.errors_http import from_validation, unsupported
from wenet_osum.serve.model_facts import Usage
from wenet_osum.serve.openai_schema import (
    LANGUAGES,
    DurationUsage,
    Segment,
    TokenDetails,
    TokenUsage,
    Transcription,
    TranscriptionForm,
    TranscriptionVerbose,
    Word,
)
from wenet_osum.serve.openapi import describe
from wenet_osum.serve.room import Room
from wenet_osum.serve.service import Question
from wenet_osum.serve.upload import Form, read_form
from wenet_osum.tasks.prompts import language_of

LISTS = frozenset({"keywords", "timestamp_granularities", "include", "languages"})
SPEAKERS = "the model does not tell speakers apart"
# What OpenAI's form has and this model cannot do; the rest of it is in TranscriptionForm.
CANNOT = {"known_speaker_names": SPEAKERS, "known_speaker_references": SPEAKERS}


def phrases(text: str) -> list[str]:
    """A prompt's names and terms: what stands between commas, semicolons and line ends."""
    parts = (part.strip().rstrip(".。!！?？").strip() for part in re.split(r"[,，、;；\r\n]", text))
    return list(dict.fromkeys(part for part in parts if part))


def read(form: Form) -> TranscriptionForm:
    """The form's fields.

    Raises:
        ApiError: something that is not known or cannot be done.
    """
    for name in form.fields:
        bare = name.removesuffix("[]").partition("[")[0]
        if bare in CANNOT:
            raise unsupported(bare, CANNOT[bare])
        if bare == "chunking_strategy" and name != bare:
            raise unsupported(bare, "pauses are found by energy, with no settings: give 'auto'")
    try:
        asked = TranscriptionForm.model_validate(form.fields)
    except ValidationError as e:
        error = from_validation(e)
        if error.param == "response_format" and form.fields.get("response_format") == "diarized_json":
            raise unsupported("response_format", SPEAKERS) from None
        raise error from None
    words = "word" in asked.timestamp_granularities
    if words and asked.response_format in ("json", "text"):
        what = "words have times in verbose_json, srt and vtt"
        raise unsupported("timestamp_granularities", what)
    if asked.stream and asked.response_format not in ("json", "text"):
        raise unsupported(
            "stream", f"{asked.response_format} is written when all is heard: json and text stream"
        )
    return asked


def question_of(asked: TranscriptionForm, room: Room) -> Question:
    words = [word for given in (*asked.keywords, asked.prompt) for word in phrases(given)]
    return Question(
        ("srwt" if "word" in asked.timestamp_granularities else "asr",),
        lang=room.facts.question_lang(asked.spoken),
        hotwords=tuple(dict.fromkeys(words)),
        temperature=asked.temperature,
    )


def token_usage(usage: Usage | None, done: Transcript) -> TokenUsage | DurationUsage:
    if usage is None:
        return duration_usage(done)
    given = usage.text + usage.audio
    return TokenUsage(
        input_tokens=given,
        output_tokens=usage.output,
        total_tokens=given + usage.output,
        input_token_details=TokenDetails(audio_tokens=usage.audio, text_tokens=usage.text),
    )


def duration_usage(done: Transcript) -> DurationUsage:
    return DurationUsage(seconds=round(done.duration, 3))


def verbose(asked: TranscriptionForm, done: Transcript, heard: Heard, room: Room) -> TranscriptionVerbose:
    """Segments are the pieces that a recording was cut into; without granularities they alone are told, as OpenAI
    does."""
    text = heard.answer.text or ""
    found = TranscriptionVerbose(
        language=LANGUAGES[asked.spoken or language_of(text)],
        duration=round(done.duration, 3),
        text=text,
        usage=duration_usage(done),
    )
    wanted = asked.timestamp_granularities or ["segment"]
    if "segment" in wanted:
        found.segments = [
            Segment(
                id=n,
                seek=round(s.start * 100),  # hundredths of a second, as Whisper counts
                start=s.start,
                end=s.end,
                text=s.text,
                tokens=list(room.facts.tokenizer.encode(s.text)),
                temperature=asked.temperature,
                compression_ratio=compression(s.text),
            )
            for n, s in enumerate(heard.segments)
        ]
    if "word" in wanted:
        found.words = [Word(**w._asdict()) for w in heard.answer.words or []]
    return found


def compression(text: str) -> float:
    """Whisper's: high where a text repeats itself."""
    raw = text.encode()
    return round(len(raw) / len(zlib.compress(raw)), 4)


def answer(asked: TranscriptionForm, question: Question, done: Transcript, room: Room) -> Response:
    match asked.response_format:
        case "text":
            return PlainTextResponse(formats.text(done))
        case "srt":
            return PlainTextResponse(formats.srt(done))
        case "vtt":
            return PlainTextResponse(formats.vtt(done))
        case "verbose_json":
            heard = next(iter(done.tasks.values()))
            found = verbose(asked, done, heard, room)
            return Response(found.model_dump_json(exclude_none=True), media_type="application/json")
    return Response(simple(question, done, room).model_dump_json(), media_type="application/json")


def simple(question: Question, done: Transcript, room: Room) -> Transcription:
    heard = next(iter(done.tasks.values()))
    usage = token_usage(room.facts.usage(question, done, [heard.raw]), done)
    return Transcription(text=heard.answer.text or "", usage=usage)


async def told(form: Form, question: Question, room: Room) -> AsyncGenerator[dict[str, Any], None]:
    """The text as it grows, piece by piece, and at last as a whole."""
    pieces = room.service.stream(form.data, question, form.name)
    async with contextlib.aclosing(growing(pieces, lambda heard: heard.answer.text or "")) as items:
        async for item in items:
            if isinstance(item, str):
                yield {"type": "transcript.text.delta", "delta": item}
                continue
            done = simple(question, item, room)
            event: dict[str, Any] = {"type": "transcript.text.done", "text": done.text}
            if isinstance(done.usage, TokenUsage):
                event["usage"] = done.usage.model_dump()
            yield event


def add_transcriptions(app: FastAPI, room: Room) -> None:
    @app.post(
        "/v1/audio/transcriptions",
        **describe(
            Transcription | TranscriptionVerbose,
            form=TranscriptionForm,
            others=("text/plain", "text/event-stream"),
        ),
    )
    async def transcriptions(request: Request) -> Response:
        """Transcribe a recording, as OpenAI's API does."""
        room.check_started()
        form = await read_form(request, LISTS)
        asked = read(form)
        room.check_model(asked.model)
        question = question_of(asked, room)
        if asked.stream:
            return await events(request, told(form, question, room))
        done = await while_there(request, room.service.hear(form.data, question, form.name))
        return answer(asked, question, done, room)
