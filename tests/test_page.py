"""The page's routes: its files, facts, examples and feedback."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from fastapi.testclient import TestClient
from page_stand_in import StandIn, feedback_of, stand_in

from wenet_osum.errors import OsumError
from wenet_osum.serve.page import feedback
from wenet_osum.serve.page.feedback import FeedbackFile
from wenet_osum.serve.page.routes import find_examples

STATIC = Path(feedback.__file__).parent / "static"
SAID: dict[str, Any] = {
    "task": "ser",
    "verdict": "wrong",
    "file": "a.wav",
    "duration": 1.5,
    "answer": {"text": "hello", "labels": {"emotion": "happy"}, "reply": None},
    "corrected": {"labels": {"emotion": "sad"}},
}


def client(server: StandIn) -> TestClient:
    return TestClient(server.app())


@pytest.fixture
def page(tmp_path: Path) -> TestClient:
    return client(stand_in(feedback=tmp_path / "feedback.jsonl"))


def test_every_file_of_the_page_is_served_from_the_page(page: TestClient) -> None:
    html = page.get("/").text
    wanted = set(re.findall(r'(?:src|href)="(page/static/[^"]+)"', html))
    seen: set[str] = set()
    while wanted - seen:  # modules import modules
        name = min(wanted - seen)
        seen.add(name)
        got = page.get(f"/{name}")
        assert got.status_code == 200, name
        if name.endswith(".js"):
            assert "javascript" in got.headers["content-type"], name
            imported = re.findall(r"(?:from '\./|new URL\(')([\w.-]+)'", got.text)
            wanted |= {f"page/static/{other}" for other in imported}
    assert {Path(name).name for name in seen} == {p.name for p in STATIC.iterdir()} - {"index.html"}


def test_nothing_inline_and_nothing_from_elsewhere(page: TestClient) -> None:
    got = page.get("/")
    policy = got.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", got.text)
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|innerHTML|eval\(", text), path.name


def test_an_unchanged_file_is_not_sent_again(page: TestClient) -> None:
    for address in ("/", "/page/static/app.js"):
        first = page.get(address)
        assert first.headers["cache-control"] == "no-cache"
        again = page.get(address, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_facts_name_the_tasks_the_eight_first(page: TestClient) -> None:
    facts = page.get("/page/facts").json()
    usual = [task["name"] for task in facts["tasks"] if task["usual"]]
    assert usual == ["asr", "srwt", "ved", "ser", "ssr", "sgc", "sap", "sttc"]
    assert [task["name"] for task in facts["tasks"][:8]] == usual and len(facts["tasks"]) > 8
    assert facts["tasks"][6]["fields"] == [{"name": "age", "values": ["child", "adult", "old"]}]
    assert facts["feedback"] and not facts["key"] and facts["limits"]["seconds"] > 0


def test_facts_of_a_server_that_loads_its_model() -> None:
    server = stand_in()
    server.ready = False
    facts = client(server).get("/page/facts").json()
    assert (facts["ready"], facts["tasks"], facts["feedback"]) == (False, [], False)


def test_examples_are_found_by_their_number_alone(tmp_path: Path) -> None:
    folder = tmp_path / "examples"
    folder.mkdir()
    for name in ("a_dog.wav", "你好.flac"):
        sf.write(folder / name, np.zeros(1600), 16000)
    (folder / "notes.txt").write_text("no audio")
    (tmp_path / "secret.wav").write_bytes(b"secret")
    page = client(stand_in(examples=folder))
    examples = page.get("/page/facts").json()["examples"]
    assert [e["title"] for e in examples] == ["a dog", "你好"]
    got = page.get(f"/{examples[1]['url']}")
    assert got.content == (folder / "你好.flac").read_bytes() and got.headers["content-type"] == "audio/flac"
    for wrong in ("2", "-1", "a_dog.wav", "..%2fsecret.wav", "%2e%2e%2fsecret.wav", "0%00"):
        assert page.get(f"/page/examples/{wrong}").status_code == 404, wrong
    assert page.get("/page/static/..%2froutes.py").status_code == 404
    (folder / "a_dog.wav").unlink()
    assert page.get("/page/examples/0").status_code == 404


def test_a_folder_without_examples_is_told(tmp_path: Path) -> None:
    with pytest.raises(OsumError, match="no such folder"):
        find_examples(tmp_path / "none")
    with pytest.raises(OsumError, match="no recording"):
        find_examples(tmp_path)


def test_feedback_is_stored_as_a_line(page: TestClient, tmp_path: Path) -> None:
    assert page.post("/page/feedback", json=SAID).status_code == 204
    reply = {**SAID, "task": "sttc", "verdict": "right", "answer": {"text": "什么", "reply": "肉\n<b>"}}
    assert page.post("/page/feedback", json={**reply, "corrected": {}}).status_code == 204
    rows = feedback_of(tmp_path / "feedback.jsonl")
    assert [(r["task"], r["verdict"], r["corrected"]["labels"]) for r in rows] == [
        ("ser", "wrong", {"emotion": "sad"}),
        ("sttc", "right", {}),
    ]
    assert rows[1]["answer"]["reply"] == "肉\n<b>" and rows[0]["model"] == "tiny" and "time" in rows[0]
    assert (tmp_path / "feedback.jsonl").stat().st_mode & 0o077 == 0


def test_the_line_of_the_docs_is_one(page: TestClient, tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs/page.md").read_text(encoding="utf-8")
    line = json.loads(re.findall(r"```json\n(.+)\n```", text)[0])
    sent = {k: v for k, v in line.items() if k not in ("time", "model")}
    assert page.post("/page/feedback", json=sent).status_code == 204
    (stored,) = feedback_of(tmp_path / "feedback.jsonl")
    assert stored == {**line, "time": stored["time"], "model": "tiny"} and list(stored) == list(line)


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"task": "nonesuch"}, "task"),
        ({"verdict": "perhaps"}, "verdict"),
        ({"corrected": {"labels": {"emotion": "blue"}}}, "corrected.labels"),
        ({"answer": {"labels": {"age": "old"}}}, "answer.labels"),
        ({"file": "x" * 201}, "file"),
        ({"duration": -1}, "duration"),
        ({"path": "/etc/passwd"}, "path"),
        ({"corrected": {"text": "x" * 200_001}}, "corrected.text"),
    ],
)
def test_feedback_that_is_wrong_is_refused_and_not_stored(
    page: TestClient, tmp_path: Path, wrong: dict[str, Any], param: str
) -> None:
    got = page.post("/page/feedback", json={**SAID, **wrong})
    assert got.status_code == 400 and got.json()["error"]["param"] == param
    assert feedback_of(tmp_path / "feedback.jsonl") == []


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "text/plain", 415),  # what a form of another site can send
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"\xff", "application/json", 400),
        (b" " * (feedback.MOST_BODY + 1), "application/json", 413),
    ],
)
def test_a_body_that_is_no_feedback(page: TestClient, body: bytes, kind: str, status: int) -> None:
    got = page.post("/page/feedback", content=body, headers={"Content-Type": kind})
    assert got.status_code == status and set(got.json()) == {"error"}


def test_without_a_file_there_is_no_feedback() -> None:
    assert client(stand_in()).post("/page/feedback", json=SAID).status_code == 404


def test_lines_of_many_at_a_time_stay_whole(tmp_path: Path) -> None:
    store = FeedbackFile(tmp_path / "new" / "feedback.jsonl")
    row = {"text": "很" * 5000}
    threads = [threading.Thread(target=lambda: [store.add(row) for _ in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r["text"] for r in feedback_of(store.path)] == [row["text"]] * 160


def test_a_full_file_takes_no_more(page: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert page.post("/page/feedback", json=SAID).status_code == 204
    monkeypatch.setattr(feedback, "MOST_FILE", (tmp_path / "feedback.jsonl").stat().st_size + 10)
    assert page.post("/page/feedback", json=SAID).status_code == 507
    assert len(feedback_of(tmp_path / "feedback.jsonl")) == 1


def test_a_line_cut_by_a_full_disk_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeedbackFile(tmp_path / "feedback.jsonl")
    store.add({"n": 1})
    write = feedback.os.write
    monkeypatch.setattr(feedback.os, "write", lambda file, line: write(file, line[:7]))
    with pytest.raises(Exception, match="disk is full"):
        store.add({"n": 2})
    monkeypatch.undo()
    store.add({"n": 3})
    assert [r["n"] for r in feedback_of(store.path)] == [1, 3]


def test_feedback_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OsumError, match="--feedback"):
        FeedbackFile(tmp_path)
