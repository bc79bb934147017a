"""Thousands of malformed requests to a real ``osum serve``: no 500, no crash, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from serve_fuzz import FORMS, Said, audio_request, broken_audio, requests, say
from served import Server, served, write_model

FLAGS = "--decoders 2 --decode_seconds 5 --max_audio_seconds 60 --max_upload 2 --body_seconds 0.2"
pytestmark = pytest.mark.integration


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for one in found:
        for thread in Path(f"/proc/{one}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


class Watched:
    """A server, and what it has left open since this was made.

    Attributes:
        statuses: of the answers.
    """

    def __init__(self, server: Server, temporary: Path):
        self.server, self.temporary = server, temporary
        self.port = int(server.url.rpartition(":")[2])
        self.statuses: Counter[int] = Counter()
        wav = broken_audio()["8_bit"]
        for path in FORMS * 2:  # all decoders are there
            assert say(self.port, audio_request(path, wav)).status == 200
        self.before = self.left()

    def left(self) -> dict[str, Any]:
        pid = self.server.process.pid
        return {
            "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": len(os.listdir(f"/proc/{pid}/task")),
            "files": sorted(str(p) for p in self.temporary.rglob("*")),
        }

    def look(self, said: Said) -> None:
        """An answer is no 500, and an error has OpenAI's shape."""
        self.statuses[said.status] += 1
        assert said.status < 500, (said, self.server.log[-30:])
        if said.status >= 400 and said.body:
            assert said.headers["content-type"] == "application/json"
            error = json.loads(said.body)["error"]
            assert set(error) == {"message", "type", "param", "code"} and error["message"]
            assert "Traceback" not in error["message"]

    def check(self) -> None:
        """Nothing is left of all that was asked, and the server still answers."""
        for _ in range(100):
            numbers = dict(
                re.findall(r"^(osum_\w+) ([\d.]+)$", httpx.get(self.server.url + "/metrics").text, re.M)
            )
            now = self.left()
            waits = [numbers[f"osum_{name}"] for name in ("open_requests", "queue_pieces", "in_hand_pieces")]
            if waits == ["0.0"] * 3 and now["descriptors"] <= self.before["descriptors"]:
                break
            time.sleep(0.1)
        assert waits == ["0.0"] * 3
        assert now["files"] == self.before["files"]
        assert now["descriptors"] <= self.before["descriptors"], (now, self.before)
        assert now["threads"] <= self.before["threads"] + 8  # pools of threads grow to their size
        assert len(tree(self.server.process.pid)) <= 6  # itself, fork server and tracker, model, two decoders
        assert numbers["osum_worker_restarts_total"] == "0.0"
        assert "Traceback" not in "".join(self.server.log)
        assert numbers["osum_decoder_losses_total"] == "0.0"
        print(sum(self.statuses.values()), "answers:", dict(sorted(self.statuses.items())))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    here, temporary = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("tmp")
    write_model(here)
    with served(here, *FLAGS.split(), TMPDIR=str(temporary)) as server:
        yield Watched(server, temporary)


def run(strategy: Any, count: int, what: Any) -> None:
    """``what`` of so many examples, the same every time."""

    @seed(8)
    @settings(max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def each(example: Any) -> None:
        what(example)

    each()


@pytest.mark.parametrize("kind", sorted(broken_audio()))
def test_fuzz_broken_audio(watched: Watched, kind: str):
    """Each is answered, or is an error of the client's."""
    for path in (*FORMS, "/v1/chat/completions"):
        said = say(watched.port, audio_request(path, broken_audio()[kind]))
        watched.look(said)
        # "declared" is what a program writes that does not know yet how long it will be.
        fine = kind in ("8_bit", "64_channels", "384_khz", "declared")
        assert (said.status == 200) == fine, said
        if not fine:
            code = json.loads(said.body)["error"]["code"]
            assert code == ("too_large" if kind == "silence" else "invalid_audio")


@pytest.mark.parametrize("count", [400, pytest.param(6000, marks=pytest.mark.soak)])
def test_fuzz_malformed_requests(watched: Watched, count: int):
    run(requests(), count, lambda raw: watched.look(say(watched.port, raw)))
    watched.check()


@pytest.mark.parametrize("count", [100, pytest.param(4000, marks=pytest.mark.soak)])
def test_fuzz_by_schemathesis(watched: Watched, count: int):
    """What our own OpenAPI says is right, and what it says is wrong."""
    schemathesis = pytest.importorskip("schemathesis", reason="the dev extra is not installed")
    import requests as http

    schema = schemathesis.openapi.from_dict(httpx.get(watched.server.url + "/openapi.json").json())
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    cases = st.one_of(schema.as_strategy(generation_mode=mode) for mode in modes)
    with http.Session() as session:

        def ask(case: Any) -> None:
            try:
                got = session.request(**case.as_transport_kwargs(base_url=watched.server.url), timeout=30)
            except (http.exceptions.InvalidHeader, http.exceptions.InvalidURL, UnicodeError):
                return  # requests sends no such thing
            headers = {name.lower(): value for name, value in got.headers.items()}
            watched.look(Said(got.status_code, headers, got.content))

        run(cases, count, ask)
    watched.check()
