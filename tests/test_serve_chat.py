"""``/v1/chat/completions`` of ``osum serve``, with a service that hears what it is told."""

from __future__ import annotations

import re
from typing import Any

import pytest
from serve_stand_in import FakeService
from test_serve_http import WAV, chat, chat_body, client, error_of, events_of


@pytest.mark.parametrize(
    ("text", "task", "prompt", "content"),
    [
        (None, "asr", None, "what a day你好now"),
        ("asr", "asr", None, "what a day你好now"),
        ("SER", "ser", None, "what a day你好now<sad>"),
        ("<TRANSCRIBE><EMOTION>", "ser", None, "what a day你好now<sad>"),
        ("<TRANSCRIBE> <ALIGN>", "srwt", None, None),
        ("sttc", "sttc", None, None),
        ("Who is speaking?", "asr", "Who is speaking?", "what a day你好now"),
    ],
)
def test_chat_whole_and_as_a_stream(text: str | None, task: str, prompt: str | None, content: str | None):
    service = FakeService()
    to = client(service)
    got = chat(to, text).json()
    [(data, question, _)] = service.asked
    assert (data, question.tasks, question.prompt) == (WAV, (task,), prompt)
    assert got["object"] == "chat.completion" and got["model"] == "tiny" and got["id"].startswith("chatcmpl-")
    [choice] = got["choices"]
    told = choice["message"]["content"]
    assert content is None or (
        content == told if task != "ser" else re.fullmatch(content[:-5] + "<.+>", told)
    )
    if task == "srwt":
        assert told.startswith("<0.00>what<0.50><0.50>a<1.00>")
    if task == "sttc":
        assert told == "what a day你好now<开始回答>yes yes"
    assert choice["finish_reason"] == "stop" and choice["message"]["role"] == "assistant"
    usage = got["usage"]
    assert usage["completion_tokens"] == len(told) and usage["prompt_tokens_details"]["audio_tokens"] == 50
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert prompt is None or usage["prompt_tokens_details"]["text_tokens"] == len(prompt)

    *chunks, last, counts, end = events_of(
        chat(to, text, stream=True, stream_options={"include_usage": True})
    )
    assert end == "[DONE]" and counts["choices"] == [] and counts["usage"] == usage
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(c["choices"][0]["delta"]["content"] for c in chunks) == told
    assert last["choices"][0]["finish_reason"] == "stop" and last["choices"][0]["delta"] == {}
    assert {c["object"] for c in [*chunks, last, counts]} == {"chat.completion.chunk"}
    assert len({c["id"] for c in [*chunks, last, counts]}) == 1


def test_chat_no_longer_than_asked():
    got = chat(client(), max_tokens=6).json()
    assert (
        got["choices"][0]["message"]["content"] == "what a" and got["choices"][0]["finish_reason"] == "length"
    )
    assert got["usage"]["completion_tokens"] == 6
    *chunks, last, end = events_of(chat(client(), max_completion_tokens=13, stream=True))
    assert "".join(c["choices"][0]["delta"]["content"] for c in chunks) == "what a day你好n"
    assert last["choices"][0]["finish_reason"] == "length" and end == "[DONE]"


def test_what_has_no_effect_on_a_chat_is_taken():
    more = {"n": 1, "top_p": 1, "presence_penalty": 0, "tools": [], "user": "me", "store": False}
    more |= {
        "stop": None,
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "temperature": 0.7,
        "seed": 3,
    }
    service = FakeService()
    assert chat(client(service), **more).status_code == 200
    assert (service.asked[0][1].temperature, service.asked[0][1].seed) == (0.7, 3)


AUDIO = chat_body()["messages"][0]["content"][0]
SYSTEM = {"role": "system", "content": "be nice"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"stop": ["."]}, "stop"),
        ({"top_p": 0.5}, "top_p"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"temperature": 3}, "temperature"),
        ({"seed": -1}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [SYSTEM, {"role": "user", "content": [AUDIO]}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [AUDIO]}] * 2}, "messages"),
        ({"messages": [{"role": "user", "content": [AUDIO, AUDIO]}]}, "messages"),
        ({"messages": [{"role": "user", "content": "hello"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_a_chat_cannot_have(change: dict[str, Any], param: str):
    service = FakeService()
    got = client(service).post("/v1/chat/completions", json=chat_body() | change)
    assert error_of(got, 400)["param"] == param
    assert not service.asked


def test_text_without_audio_is_told_what_is_missing():
    got = client().post(
        "/v1/chat/completions", json=chat_body() | {"messages": [{"role": "user", "content": "hi"}]}
    )
    assert error_of(got, 400)["message"].startswith("no audio")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"a": NaN}', b'{"messages": "\\ud800"}', b"1" * 10_000],
)
def test_what_is_no_json(body: bytes):
    got = client().post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    error_of(got, 400)


def test_audio_that_is_no_base64():
    for data in ("%%%", "QQ", "", "音"):
        body = chat_body()
        body["messages"][0]["content"][0]["input_audio"]["data"] = data
        got = client().post("/v1/chat/completions", json=body)
        assert error_of(got, 400)["code"] == "invalid_audio"
