"""``osum serve`` over HTTP, with a service that hears what it is told: forms, shapes, errors, limits, keys."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serve_stand_in import FakeService, app_of

from wenet_osum.decode import formats
from wenet_osum.errors import OsumError
from wenet_osum.serve.auth import read_keys
from wenet_osum.serve.errors import BadAudio, BadQuestion, Busy, Closing, TimedOut, TooLarge, WorkerLost
from wenet_osum.serve.transcriptions import phrases
from wenet_osum.serve.upload import shown_name

WAV = b"RIFF: the fake service reads no audio"
URL = "/v1/audio/transcriptions"
KEYS = {"file", "duration", "tasks"}


def client(service: FakeService | None = None, **settings: Any) -> TestClient:
    return TestClient(app_of(service or FakeService(), **settings))


def post(
    to: TestClient, data: dict[str, Any] | None = None, url: str = URL, name: str = "a.wav", **more: Any
) -> Any:
    data = {"model": "tiny"} | (data or {}) if url == URL else data or {}
    return to.post(url, data=data, files={"file": (name, WAV)}, **more)


def chat_body(text: str | None = None, **more: Any) -> dict[str, Any]:
    audio = {"data": base64.b64encode(WAV).decode(), "format": "wav"}
    parts: list[dict[str, Any]] = [{"type": "input_audio", "input_audio": audio}]
    if text is not None:
        parts.insert(0, {"type": "text", "text": text})
    return {"model": "tiny", "messages": [{"role": "user", "content": parts}], **more}


def chat(to: TestClient, text: str | None = None, **more: Any) -> Any:
    return to.post("/v1/chat/completions", json=chat_body(text, **more))


def events_of(response: Any) -> list[Any]:
    assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
    found = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in found]


def error_of(response: Any, status: int) -> dict[str, Any]:
    """The error, in OpenAI's shape and without a word about our code."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert (
        set(response.json()) == {"error"}
        and "Traceback" not in response.text
        and "secret" not in response.text
    )
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return error


# --- transcriptions ---


def test_json_has_the_text_and_its_tokens():
    service = FakeService()
    got = post(client(service)).json()
    text = "what a day你好now"
    assert got["text"] == text
    usage = got["usage"]
    assert usage["input_token_details"]["audio_tokens"] == 50  # four seconds
    assert usage["output_tokens"] == len(text)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    [(data, question, name)] = service.asked
    assert (data, name) == (WAV, "a.wav")
    assert question.tasks == ("asr",) and question.lang is None and question.temperature == 0


@pytest.mark.parametrize("format", ["text", "srt", "vtt"])
@pytest.mark.parametrize("task", ["asr", "srwt"])
def test_texts_are_those_of_transcribe(format: str, task: str):
    service = FakeService()
    words = {"timestamp_granularities[]": "word"} if task == "srwt" else {}
    if format == "text" and words:
        return
    got = post(client(service), {"response_format": format, **words})
    assert got.headers["content-type"] == "text/plain; charset=utf-8"
    done = asyncio.run(service.hear(WAV, service.asked[0][1], "a.wav"))
    assert list(done.tasks) == [task]
    assert got.text == formats.FORMATS[format][0](done) and len(got.text.splitlines()) >= 1


def test_verbose_json_has_segments_with_honest_values():
    got = post(client(), {"response_format": "verbose_json", "temperature": "0.5"}).json()
    assert (got["task"], got["duration"], got["language"]) == ("transcribe", 4.0, "chinese")
    assert "words" not in got and got["usage"] == {"type": "duration", "seconds": 4.0}
    first, second = got["segments"]
    assert (first["start"], first["end"], second["start"], second["end"]) == (0, 2, 2, 4)
    assert (first["seek"], second["seek"], first["id"], second["id"]) == (0, 200, 0, 1)
    assert first["text"] == "what a day" and first["tokens"] == list(map(ord, "what a day"))
    assert first["temperature"] == 0.5 and 0 < first["compression_ratio"] < 1
    assert set(first) == {
        *("id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob"),
        *("compression_ratio", "no_speech_prob"),
    }


def test_words_are_those_of_srwt():
    service = FakeService()
    both = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
    got = post(client(service), both).json()
    assert service.asked[0][1].tasks == ("srwt",)
    assert got["words"][:2] == [
        {"word": "what", "start": 0.0, "end": 0.5},
        {"word": "a", "start": 0.5, "end": 1.0},
    ]
    assert got["words"][3]["start"] == 2.0 and len(got["segments"]) == 2
    only = post(client(), {"response_format": "verbose_json", "timestamp_granularities[]": ["word"]}).json()
    assert "segments" not in only and only["words"] == got["words"] and only["text"] == got["text"]


@pytest.mark.parametrize(
    ("given", "lang", "asked"),
    [
        ("en", "auto", "en"),
        ("en-US", "auto", "en"),
        ("Chinese", "auto", "zh"),
        ("", "auto", None),
        ("en", "zh", None),  # a model that knows Chinese questions only is asked in no other language
    ],
)
def test_the_language_of_the_audio(given: str, lang: str, asked: str | None):
    service = FakeService()
    got = post(TestClient(app_of(service, lang)), {"language": given, "response_format": "verbose_json"})
    assert service.asked[0][1].lang == asked
    assert got.json()["language"] == ("english" if given.startswith("en") else "chinese")


def test_prompt_and_keywords_are_hotwords():
    service = FakeService()
    fields = {"prompt": "ZyntriQix, Digique Plus、周杰伦.", "keywords[]": ["OSUM", "WeNet, OSUM"]}
    assert post(client(service), fields).status_code == 200
    assert service.asked[0][1].hotwords == ("OSUM", "WeNet", "ZyntriQix", "Digique Plus", "周杰伦")
    assert phrases(" a ,\n, b;a。") == ["a", "b"]


def test_stream_of_a_transcription():
    *deltas, done = events_of(post(client(), {"stream": "true"}))
    assert [d["type"] for d in deltas] == ["transcript.text.delta"] * 2
    assert "".join(d["delta"] for d in deltas) == done["text"] == "what a day你好now"
    assert done["type"] == "transcript.text.done" and done["usage"]["type"] == "tokens"
    # Silence says nothing, and that is told.
    assert events_of(post(client(FakeService(pieces=[])), {"stream": "true"}))[-1]["text"] == ""


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": "gpt-9"}, "model", "model_not_found"),
        ({"response_format": "xml"}, "response_format", "invalid_value"),
        ({"response_format": "diarized_json"}, "response_format", "unsupported_value"),
        ({"temperature": "1.5"}, "temperature", "invalid_value"),
        ({"temperature": "nan"}, "temperature", "invalid_value"),
        ({"language": "de"}, "language", "unsupported_value"),
        ({"stream": "true", "response_format": "srt"}, "stream", "unsupported_value"),
        ({"stream": "perhaps"}, "stream", "invalid_value"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities", "unsupported_value"),
        ({"include[]": "logprobs"}, "include", "unsupported_value"),
        ({"known_speaker_names[]": "anna"}, "known_speaker_names", "unsupported_value"),
        ({"chunking_strategy[type]": "server_vad"}, "chunking_strategy", "unsupported_value"),
        ({"chunking_strategy": "server_vad"}, "chunking_strategy", "unsupported_value"),
        ({"langauge": "en"}, "langauge", "unknown_parameter"),
        ({"language": ["en", "zh"]}, "language", "invalid_value"),
        ({"prompt": "x" * 40_000}, "prompt", "invalid_value"),
    ],
)
def test_what_a_transcription_cannot_have(fields: dict[str, Any], param: str, code: str):
    service = FakeService()
    error = error_of(post(client(service), fields), 404 if code == "model_not_found" else 400)
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert not service.asked


def test_what_has_no_effect_is_taken():
    fields = {"chunking_strategy": "auto", "languages[]": ["en"], "timestamp_granularities[]": "segment"}
    assert post(client(), fields).status_code == 200
    assert post(client(), {"model": "whisper-1"}).status_code == 200  # another name of the same model


def test_tokens_that_cannot_be_counted_are_not_made_up():
    to = client(rate=None)  # an encoder whose rate nobody knows
    assert post(to).json()["usage"] == {"type": "duration", "seconds": 4.0}
    assert "usage" not in events_of(post(to, {"stream": "true"}))[-1]
    assert chat(to).json()["usage"] is None


# --- forms ---


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"", "multipart/form-data; boundary=x", "malformed_form"),
        (b"--x\r\nnonsense", "multipart/form-data; boundary=x", "malformed_form"),
        (
            b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--",
            "multipart/form-data; boundary=x",
            "malformed_form",
        ),
        (b"{}", "application/json", "no_form"),
        (b"a=b", "application/x-www-form-urlencoded", "no_form"),
        (b"--x--", "multipart/form-data", "no_form"),
        (b"--x--", "multipart/form-data; boundary=" + "x" * 300, "malformed_form"),
        (b"--x--", "multipart/form-data; boundary=x; charset=idna", "invalid_value"),
    ],
)
def test_what_is_no_form(body: bytes, kind: Any, code: str):
    kind = kind if isinstance(kind, str) else kind.decode()
    got = client().post(URL, content=body, headers={"content-type": kind})
    assert error_of(got, 400)["code"] in (code, "missing_required_parameter")


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ([("file", ("a.wav", b""))], "invalid_audio"),
        ([("audio", ("a.wav", WAV))], "no_file"),
        ([("file", ("a.wav", WAV)), ("file", ("b.wav", WAV))], "malformed_form"),
        ([("file", (None, WAV))], "no_file"),
        ([(f"f{n}", (None, b"x")) for n in range(65)], "malformed_form"),
        ([("model", (None, b"x" * 70_000))], "malformed_form"),
    ],
)
def test_what_is_no_upload(files: Any, code: str):
    assert error_of(client().post(URL, files=files), 400)["code"] == code
    assert (
        error_of(client().post(URL, data={"model": "tiny"}, files={"x": (None, b"")}), 400)["param"] == "file"
    )


def test_a_name_is_shown_and_never_a_path():
    assert shown_name("../../etc/passwd") == "passwd" and shown_name("C:\\x\\a.wav") == "a.wav"
    assert shown_name("..") == shown_name("a/") == shown_name(None) == shown_name("\0\n") == "audio"
    assert len(shown_name("x" * 5000 + ".wav")) == 120
    got = post(client(), url="/v1/understand", name="../../etc/pass\x00wd").json()
    assert "/" not in got["file"] and set(got) == KEYS


# --- the rest of the API ---


def test_understand_answers_as_transcribe_does():
    service = FakeService()
    got = post(client(service), url="/v1/understand")
    assert list(got.json()["tasks"]) == ["asr", "srwt", "ved", "ser", "ssr", "sgc", "sap", "sttc"]
    done = asyncio.run(service.hear(WAV, service.asked[0][1], "a.wav"))
    assert got.text == formats.as_json(done)
    fields = {
        "tasks": "ser, <TRANSCRIBE><GENDER>,ser",
        "hotwords": "a,b",
        "lang": "en",
        "prompt": "What?",
        "seed": 7,
    }
    got = post(client(service), fields, "/v1/understand").json()
    question = service.asked[-1][1]
    assert (question.tasks, question.hotwords, question.lang) == (("ser", "sgc"), ("a", "b"), "en")
    assert (question.prompt, question.seed) == ("What?", 7)
    assert (
        got["tasks"]["ser"]["labels"] and sum(got["tasks"]["ser"]["probabilities"]["emotion"].values()) == 1
    )


@pytest.mark.parametrize(
    ("fields", "param"), [({"tasks": "dance"}, "tasks"), ({"lang": "de"}, "lang"), ({"task": "asr"}, "task")]
)
def test_what_understand_cannot_have(fields: dict[str, str], param: str):
    assert error_of(post(client(), fields, "/v1/understand"), 400)["param"] == param


def test_models():
    to = client()
    found = to.get("/v1/models").json()
    assert [m["id"] for m in found["data"]] == ["tiny", "whisper-1"] and found["object"] == "list"
    assert to.get("/v1/models/whisper-1").json()["object"] == "model"
    assert error_of(to.get("/v1/models/a/b"), 404)["code"] == "model_not_found"


def test_state_and_numbers():
    service = FakeService()
    to = client(service)
    assert to.get("/health").json() == {"status": "ok"} and to.get("/ready").status_code == 200
    service.ready = False
    loading = to.get("/ready")
    assert (loading.status_code, loading.json()["status"]) == (
        503,
        "loading",
    ) and "retry-after" in loading.headers
    assert error_of(post(to), 503)["code"] == "loading"
    to.app.state.room.started = True  # type: ignore[attr-defined]  # its process is being started anew: wait for it
    assert post(to).status_code == 200
    service.failed = "it is no model"
    assert error_of(post(to), 503)["code"] == "model_lost" and to.get("/health").status_code == 200
    to.get("/nobody/knows/this")
    text = to.get("/metrics").text
    assert f'osum_http_requests_total{{method="POST",route="{URL}",status="200"}} 1.0' in text
    assert 'route="other",status="404"' in text and "nobody" not in text
    assert "osum_ready 0.0" in text and "osum_answer_seconds_bucket" in text


def test_docs_load_nothing_from_elsewhere_and_every_reference_is_there():
    to = client()
    page = to.get("/docs")
    assert not re.search("https?://", page.text) and "/v1/understand" in page.text
    assert "timestamp_granularities" in page.text
    schema = to.get("/openapi.json").json()
    assert {URL, "/v1/chat/completions", "/v1/understand", "/v1/models"} <= set(schema["paths"])
    named = re.findall(r"#/components/schemas/(\w+)", json.dumps(schema))
    assert named and set(named) <= set(schema["components"]["schemas"]) and "$defs" not in json.dumps(schema)
    assert schema["components"]["schemas"]["TranscriptionForm"]["required"] == ["file", "model"]
    assert client(docs=False).get("/docs").status_code == 404


# --- errors ---


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (Busy(7), 429, "requests"),
        (TooLarge("9000 s, at most 7200"), 413, "invalid_request_error"),
        (BadAudio("unreadable"), 400, "invalid_request_error"),
        (BadQuestion("prompt", "3000 characters", "use 2000 at most"), 400, "invalid_request_error"),
        (WorkerLost("it ended"), 503, "server_error"),
        (Closing(), 503, "server_error"),
        (TimedOut(600), 504, "server_error"),
        (RuntimeError("in secret.py"), 500, "server_error"),
    ],
)
def test_errors_of_the_engine(error: Exception, status: int, kind: str):
    for stream in ("false", "true"):
        to = TestClient(app_of(FakeService(error=error)), raise_server_exceptions=False)
        got = post(to, {"stream": stream})
        assert error_of(got, status)["type"] == kind
        assert ("retry-after" in got.headers) == (status in (429, 503))
        assert error_of(chat(to), status)["type"] == kind
    assert not isinstance(error, Busy) or got.headers["retry-after"] == "7"


def test_an_error_behind_the_first_event_is_the_last_event():
    first, last = events_of(
        post(client(FakeService(error=WorkerLost("it ended"), fails_at=1)), {"stream": "true"})
    )
    assert first["type"] == "transcript.text.delta" and last["error"]["code"] == "model_lost"
    *_, last = events_of(chat(client(FakeService(error=RuntimeError("x"), fails_at=1)), stream=True))
    assert last["error"]["code"] == "internal_error"  # and no [DONE]


def test_unknown_urls_and_methods():
    to = client()
    assert error_of(to.get("/v2/x"), 404)["code"] == "unknown_url"
    got = to.get(URL)
    assert error_of(got, 405)["code"] == "method_not_supported" and got.headers["allow"] == "POST"
    error_of(to.get("/page/static/../../../app.py"), 404)
    error_of(to.get("/page/static/%2e%2e/routes.py"), 404)
    error_of(to.get("/page/examples/..%2f..%2fapp.py"), 404)


# --- who may ask ---


def test_keys(tmp_path):
    to = client(keys=("secret-1", "secret-2"))
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic secret-1"},
        {"authorization": b"Bearer \xe9"},
    ):
        got = to.get("/v1/models", headers=headers)
        assert error_of(got, 401)["code"] == "invalid_api_key" and got.headers["www-authenticate"] == "Bearer"
    for key in ("secret-1", "secret-2"):
        assert to.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200
    for closed in ("/metrics", "/openapi.json", "/docs", "/healthy", "/page/feedback"):
        assert to.get(closed).status_code == 401, closed
    for opened in ("/health", "/ready", "/", "/page/facts", "/page/static/app.js"):
        assert to.get(opened).status_code == 200, opened
    error_of(post(to), 401)
    (tmp_path / "keys").write_text("# ours\nsecret-1\n\n  secret-2\n")
    assert read_keys(tmp_path / "keys") == ["secret-1", "secret-2"]
    (tmp_path / "none").write_text("# nothing\n")
    with pytest.raises(OsumError, match="holds no API key"):
        read_keys(tmp_path / "none")


def test_pages_of_other_sites_may_ask_only_where_they_are_named():
    other = {"origin": "https://other.example"}
    to = client()
    assert error_of(post(to, headers=other), 403)["code"] == "cors_not_allowed"
    error_of(post(to, headers={"origin": "null"}), 403)
    assert "access-control-allow-origin" not in to.get("/health").headers
    assert post(to, headers={"origin": "http://testserver"}).status_code == 200  # our own page
    to = client(cors=("https://other.example",))
    got = post(to, headers=other)
    assert got.status_code == 200 and got.headers["access-control-allow-origin"] == "https://other.example"
    error_of(post(to, headers={"origin": "https://third.example"}), 403)
    asks = other | {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    assert to.options(URL, headers=asks).status_code == 200


def test_a_name_that_leads_here_is_not_ours():
    """DNS rebinding: to the browser, a page of that name is of the same origin."""
    to = client(hosts=("speech.example",))
    for name in (
        "evil.example:8000",
        "localhost.evil.example",
        "10.0.0.1",
        "[::2]:80",
        "[",
        "127.0.0.1@evil.example",
    ):
        got = to.get("/v1/models", headers={"host": name, "origin": f"http://{name}"})
        assert got.status_code == 403, name
        error_of(to.get("/page/facts", headers={"host": name}), 403)
    for name in ("localhost:8000", "127.0.0.1:8000", "127.0.0.9", "[::1]:8000", "Speech.example"):
        assert to.get("/v1/models", headers={"host": name}).status_code == 200, name
    assert client().get("/v1/models", headers={"host": "any.example"}).status_code == 200


def test_every_answer_has_the_headers_of_safety():
    to = client()
    for got in (
        to.get("/health"),
        to.get("/nothing"),
        post(to),
        post(to, {"stream": "true"}),
        to.get("/docs"),
    ):
        assert got.headers["x-content-type-options"] == "nosniff" and got.headers["x-frame-options"] == "DENY"
        assert "default-src" in got.headers["content-security-policy"]
