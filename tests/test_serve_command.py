"""``osum serve`` as a process: OpenAI's client, the answers of ``osum transcribe``, every command of docs/serve.md."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers import command, one_error_line
from openai import BadRequestError, NotFoundError, OpenAI
from openai.types.audio import Transcription, TranscriptionVerbose
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from served import Server, served
from test_readme import shell

from wenet_osum.bin import serve as program
from wenet_osum.bin import transcribe
from wenet_osum.score.report import TASK_ORDER
from wenet_osum.serve.server import TWICE

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/serve.md").read_text(encoding="utf-8")
FILES = ("calls/u01.wav", "stereo.wav", "talk.flac", "talk.mp3")

pytestmark = [pytest.mark.slow, pytest.mark.integration]


@pytest.fixture(scope="module")
def server(here: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests; at its end, by SIGTERM, nothing of them is left."""
    temporary = tmp_path_factory.mktemp("tmp")
    with served(here, "--examples", "calls", "--feedback", "feedback.jsonl", TMPDIR=str(temporary)) as server:
        yield server
        assert server.end(signal.SIGTERM) == 0, server.log
        assert not list(temporary.iterdir())
        assert "Traceback" not in "".join(server.log)


@pytest.fixture
def openai(server: Server) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def strictly(found: Any, kind: type[Any]) -> None:
    """The client makes its objects without a look at what is in them."""
    assert type(found) is kind
    assert not found.model_extra or set(found.model_extra) <= {"task"}
    kind.model_validate(found.model_dump(exclude=set(found.model_extra or ())), strict=True)


def test_openai_client_transcribes(openai: OpenAI, here: Path):
    create = openai.audio.transcriptions.create
    talk = here / "talk.flac"
    plain = create(model="osum_model", file=talk)
    strictly(plain, Transcription)
    assert plain.text and plain.usage is not None and plain.usage.type == "tokens"
    assert create(model="osum_model", file=talk, response_format="text").strip()
    srt = create(model="osum_model", file=talk, response_format="srt")
    assert re.match(r"1\n00:00:0\d,\d{3} --> 00:00:\d\d,\d{3}\n.+\n", srt)
    assert create(model="osum_model", file=talk, response_format="vtt").startswith("WEBVTT\n\n00:00:0")
    verbose = create(
        model="osum_model", file=talk, response_format="verbose_json", language="en", temperature=0
    )
    strictly(verbose, TranscriptionVerbose)
    assert verbose.text == plain.text and verbose.words is None and verbose.language == "english"
    assert verbose.duration > 30 and verbose.segments is not None and len(verbose.segments) > 1
    timed = create(
        model="osum_model",
        file=("talk.flac", talk.read_bytes(), "audio/flac"),
        response_format="verbose_json",
        timestamp_granularities=["word"],
        prompt="door, hat",
    )
    strictly(timed, TranscriptionVerbose)
    assert timed.segments is None and timed.words and all(w.start <= w.end for w in timed.words)


def test_openai_client_streams_a_transcription(openai: OpenAI, here: Path):
    plain = openai.audio.transcriptions.create(model="osum_model", file=here / "talk.flac")
    stream = openai.audio.transcriptions.create(model="osum_model", file=here / "talk.flac", stream=True)
    *deltas, done = list(stream)
    for event in (*deltas, done):
        strictly(event, type(event))
    assert {type(d).__name__ for d in deltas} == {"TranscriptionTextDeltaEvent"}
    assert type(done).__name__ == "TranscriptionTextDoneEvent"
    assert len(deltas) > 1 and "".join(d.delta for d in deltas) == done.text == plain.text


def message(file: Path, text: str | None = None) -> Any:
    data = base64.b64encode(file.read_bytes()).decode()
    parts: list[Any] = [{"type": "input_audio", "input_audio": {"data": data, "format": file.suffix[1:]}}]
    return {"role": "user", "content": parts + [{"type": "text", "text": text}] * (text is not None)}


@pytest.mark.parametrize("text", [None, "ser", "<TRANSCRIBE> <ALIGN>", "sttc", "what is said?"])
def test_openai_client_chats(openai: OpenAI, here: Path, text: str | None):
    asked = {"model": "osum_model", "messages": [message(here / "calls/u01.wav", text)]}
    whole = openai.chat.completions.create(**asked)
    strictly(whole, ChatCompletion)
    told = whole.choices[0].message.content
    chunks = list(
        openai.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    for chunk in chunks:
        strictly(chunk, ChatCompletionChunk)
    deltas = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(deltas) == told and chunks[-1].usage == whole.usage
    assert whole.choices[0].finish_reason == [c.choices[0].finish_reason for c in chunks if c.choices][-1]
    assert text != "ser" or re.search("<(happy|sad|anger|neutral|surprise|fear|disgust|other)>$", told or "")


def test_openai_client_lists_models_and_reads_errors(openai: OpenAI, here: Path):
    [model] = openai.models.list().data
    strictly(model, type(model))
    assert model.id == "osum_model" and openai.models.retrieve("osum_model") == model
    with pytest.raises(NotFoundError) as missing:
        openai.audio.transcriptions.create(model="whisper-1", file=here / "talk.flac")
    assert missing.value.code == "model_not_found"
    with pytest.raises(BadRequestError) as bad:
        openai.audio.transcriptions.create(model="osum_model", file=("a.wav", b"no audio"))
    assert bad.value.code == "invalid_audio" and "unreadable" in bad.value.message
    with pytest.raises(BadRequestError) as text:
        openai.chat.completions.create(model="osum_model", messages=[{"role": "user", "content": "hi"}])
    assert text.value.param == "messages"


def ask(server: Server, file: str, url: str = "/v1/audio/transcriptions", **fields: str) -> str:
    path = Path(file)
    with path.open("rb") as f:
        got = httpx.post(server.url + url, data=fields, files={"file": (file, f)}, timeout=60)
    assert got.status_code == 200, got.text
    return got.content.decode()


@pytest.mark.parametrize("task", ["asr", "srwt"])
def test_http_equals_cli_in_text_and_subtitles(
    server: Server, here: Path, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(here)
    formats = {"text": "txt", "srt": "srt", "vtt": "vtt"}
    argv = [*FILES, "--checkpoint", "osum_model", "--task", task, "--format", ",".join(formats)]
    assert command(transcribe.main, *argv, "--output_dir", tmp_path) == 0
    words = {"timestamp_granularities[]": "word"} if task == "srwt" else {}
    for file in FILES:
        # Of two recordings of one name the outputs keep the suffix.
        name = file if Path(file).stem == "talk" else Path(file).stem
        for form, suffix in formats.items():
            if form == "text" and words:
                continue
            wanted = (tmp_path / f"{name}.{suffix}").read_bytes().decode()
            got = ask(server, file, model="osum_model", response_format=form, **words)
            assert got == wanted, (file, form)


def rounded(found: Any) -> Any:
    """Without the last digits of probabilities, which go by the recordings that are heard together."""
    if isinstance(found, dict):
        return {name: rounded(value) for name, value in found.items()}
    if isinstance(found, list):
        return [rounded(value) for value in found]
    return pytest.approx(found, abs=3e-6) if isinstance(found, float) else found


def test_http_equals_cli_in_json(
    server: Server, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(here)
    argv = [*FILES, "--checkpoint", "osum_model", "--task", "all", "--format", "json"]
    assert command(transcribe.main, *argv) == 0
    lines = capsys.readouterr().out.splitlines(keepends=True)
    for file, line in zip(FILES, lines, strict=True):
        got = ask(server, file, "/v1/understand")
        found, wanted = json.loads(got), rounded(json.loads(line))
        assert found == wanted | {"file": Path(file).name}
        assert list(found["tasks"]) == list(TASK_ORDER)
    sad = json.loads(
        ask(server, "talk.flac", "/v1/understand", tasks="ser", prompt="are you sad?", lang="en")
    )
    asked = ["--task", "ser", "--prompt", "are you sad?", "--lang", "en", "--format", "json"]
    assert command(transcribe.main, "talk.flac", "--checkpoint", "osum_model", *asked) == 0
    assert sad == json.loads(capsys.readouterr().out)


def test_the_page_and_its_rooms_are_there(server: Server):
    for path, kind in (("/", "text/html"), ("/docs", "text/html"), ("/openapi.json", "application/json")):
        with urllib.request.urlopen(server.url + path) as got:
            assert got.headers["content-type"].startswith(kind) and "server" not in got.headers
    facts = httpx.get(server.url + "/page/facts").json()
    assert facts["ready"] and facts["feedback"] and len(facts["examples"]) == 4
    assert (
        'osum_http_requests_total{method="GET",route="/docs",status="200"}'
        in httpx.get(server.url + "/metrics").text
    )


@pytest.mark.parametrize("name", ["../../x.wav", "/etc/passwd", "a|", "x.ark:0"])
def test_an_upload_is_what_was_sent_whatever_its_name(server: Server, here: Path, name: str):
    files = {"file": (name, (here / "calls/u01.wav").read_bytes())}
    got = httpx.post(server.url + "/v1/understand", files=files, data={"tasks": "asr"}, timeout=60)
    assert got.status_code == 200 and got.json()["file"] == name.rpartition("/")[2]
    broken = httpx.post(
        server.url + "/v1/understand", files={"file": (name, b"no audio" * 100_000)}, timeout=60
    )
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_audio")


@pytest.mark.parametrize("how", ["group", "twice"])
def test_its_end_leaves_nothing(here: Path, tmp_path: Path, how: str):
    """SIGTERM to the whole group of processes, as ``timeout`` sends it, drains all the same; a second one leaves no
    more behind than the first; and none of its processes has last words."""
    with served(here, TMPDIR=str(tmp_path)) as server, (here / "talk.flac").open("rb") as talk:
        before, after = (
            len(server.log),
            {p.name for p in tmp_path.iterdir() if not p.name.startswith("pymp-")},
        )
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(
                httpx.post, server.url + "/v1/understand", files={"file": ("a.flac", talk)}, timeout=60
            )
            while "osum_open_requests 1.0" not in httpx.get(server.url + "/metrics").text:
                assert not asked.done()
            if how == "group":
                os.killpg(server.process.pid, signal.SIGTERM)
                assert asked.result().status_code == 200 and server.process.wait(60) == 0
            else:
                server.process.send_signal(signal.SIGTERM)
                while not any("closing" in line for line in server.log):
                    time.sleep(0.01)
                time.sleep(TWICE)  # sooner it would be the first one's echo
                assert server.end(signal.SIGTERM) == 128 + signal.SIGTERM
                assert isinstance(asked.exception(), httpx.HTTPError)
        server.end(signal.SIGTERM)  # all that it says is read
        assert {p.name for p in tmp_path.iterdir()} == after
        said = [line.split(maxsplit=2)[2] for line in server.log[before:]]
        assert [line.split(":")[0] for line in said] == ["closing", "SIGTERM again"][: 1 + (how == "twice")]
        assert not any("Loading weights" in line for line in server.log)


def test_no_model_no_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert command(program.main, tmp_path / "none", "--port", 0) == 1
    assert "no such file or folder" in one_error_line(capsys.readouterr().err)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def test_the_page_of_docs_is_run(here: Path, server: Server):
    start, ask_it, keys = blocks("bash")
    assert start == "osum serve osum_model\n"  # as the fixture does
    port = server.url.rpartition(":")[2]
    heard = shell(ask_it.replace("localhost:8000", f"localhost:{port}"), here)
    first, _, heard = heard.partition("data: ")  # JSON has no line end
    *events, understood, chat = [line for line in heard.splitlines() if line]
    assert json.loads(first)["text"] == json.loads(events[-1].removeprefix("data: "))["text"]
    assert list(json.loads(understood)["tasks"]) == ["ser", "sgc", "sap"]
    assert json.loads(chat)["choices"][0]["message"]["content"].endswith(">")
    assert (here / "talk.srt").read_text(encoding="utf-8").startswith("1\n00:00:")
    [code] = blocks("python")
    script = f"python - <<'EOF'\n{code.replace('localhost:8000', f'localhost:{port}')}EOF\n"
    assert "transcript.text.done" in shell(script, here)

    make, serve = keys.splitlines()
    shell(make, here)
    flags = serve.removeprefix("osum serve osum_model ").split()
    with served(here, *flags) as own:
        key = (here / "keys.txt").read_text().strip()
        assert httpx.get(own.url + "/v1/models").status_code == 401
        headers = {"authorization": f"Bearer {key}", "origin": "https://speech.example"}
        assert httpx.get(own.url + "/v1/models", headers=headers).status_code == 200
        assert "anyone" not in "".join(own.log)
        assert own.end(signal.SIGINT) == 0


def test_flags_of_the_page_of_docs_are_flags():
    names = {f"--{name}" for name in vars(program.get_args(["x"]))}
    told = set(re.findall(r"--[a-z_]+", PAGE)) - {"--help", "--format"}
    assert told <= names, told - names
