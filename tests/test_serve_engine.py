"""The server's engine: batches across requests, fairness, bounds, crashes; and the answers of ``osum transcribe``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import command, write_random_model
from uploads import RATE, SHORT, encoded, talk, uploads

from wenet_osum.bin import transcribe as program
from wenet_osum.config import DATASET_DEFAULTS
from wenet_osum.decode.formats import Transcript, as_json
from wenet_osum.decode.load import LoadSpec
from wenet_osum.errors import OsumError
from wenet_osum.serve.decoders import LONG as LONG_UPLOAD
from wenet_osum.serve.decoders import Decoders, likely_seconds
from wenet_osum.serve.errors import (
    BadAudio,
    BadQuestion,
    Busy,
    Closing,
    TimedOut,
    WorkerLost,
)
from wenet_osum.serve.question import Question
from wenet_osum.serve.service import Piece, Service
from wenet_osum.serve.settings import Limits
from wenet_osum.serve.stats import Stats

ASR = Question(("asr",))
LIMITS = Limits(max_seconds=100, piece_seconds=2, batch_size=4, decoders=4)


LONG = encoded(talk(40, 2))


class Background:
    """An event loop in a thread, so that one service can serve many tests."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def begin(self, what: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(what, self.loop)

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return self.begin(what).result(60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model, and a place for temporary files of its own."""
    folder = tmp_path_factory.mktemp("serve")
    write_random_model(folder)
    return folder


@pytest.fixture(scope="module")
def temp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("temp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(path))
        patch.setattr(tempfile, "tempdir", str(path))
        yield path


def spec(folder: Path) -> LoadSpec:
    return LoadSpec(str(folder / "final.pt"), str(folder / "train.yaml"), num_threads=1)


@pytest.fixture(scope="module")
def background() -> Background:
    return Background()


@contextlib.contextmanager
def serving(folder: Path, background: Background, limits: Limits) -> Iterator[Service]:
    service = Service(spec(folder), limits)
    background.run(service.start())
    yield service
    background.run(service.stop(0))


@pytest.fixture(scope="module")
def service(folder: Path, background: Background, temp: Path) -> Iterator[Service]:
    with serving(folder, background, LIMITS) as service:
        yield service


def worker(service: Service) -> int:
    assert service._model._child is not None
    pid: int = service._model._child._process.pid
    return pid


@contextlib.contextmanager
def stopped(service: Service) -> Iterator[int]:
    """The model's process, idle, does nothing for a while; its id."""
    until(lambda: service.stats.in_hand == service.stats.queue == 0)
    pid = worker(service)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.005)


# ---- answers ----


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("recordings")
    for n, (name, form) in enumerate(
        [("a.wav", "WAV"), ("b.flac", "FLAC"), ("c d.ogg", "OGG"), ("e.mp3", "MP3"), ("f.wav", "WAV")]
    ):
        (folder / name).write_bytes(encoded(talk((0.7, 3.3, 1.2, 1.9, 7.9)[n], n), form))
    (folder / "silent.wav").write_bytes(encoded(np.zeros(RATE * 3)))
    (folder / "two.wav").write_bytes(encoded(np.stack([talk(2.5, 7)] * 2, 1), rate=22050))
    return sorted(folder.iterdir())


ASKED = {
    "asr": (Question(("asr",)), ["--task", "asr"]),
    "all": (
        Question(("asr", "srwt", "ved", "ser", "ssr", "sgc", "sap", "sttc")),
        ["--task", "asr,srwt,ved,ser,ssr,sgc,sap,sttc"],
    ),
    "drawn": (
        Question(("<TRANSCRIBE> <EMOTION>",), "what is it", "en", ("door", "hat"), 0.7, 3),
        [
            *("--task", "ser", "--lang", "en", "--hotwords", "door,hat", "--prompt", "what is it"),
            *("--do_sample", "--temperature", "0.7", "--seed", "3"),
        ],
    ),
}


def check_same(line: str, wanted: str) -> None:
    """Two lines of JSON: the last digit of a probability depends on the company in a batch, nothing else does."""
    rows = [json.loads(text) for text in (line, wanted)]
    shares = [[task.pop("probabilities") for task in row["tasks"].values()] for row in rows]
    flat = [[p for task in each for values in task.values() for p in values.values()] for each in shares]
    assert rows[0] == rows[1]
    assert flat[0] == pytest.approx(flat[1], abs=3e-6)


@pytest.mark.parametrize("asked", ASKED)
def test_answers_are_those_of_transcribe(asked, recordings, service, background, folder, capsys):
    """Asked all at once: what the command writes."""
    question, flags = ASKED[asked]
    how = ["--checkpoint", folder / "final.pt", "--config", folder / "train.yaml", "--num_threads", 1]
    assert command(program.main, *recordings, *how, *flags, "--max_seconds", 2, "--format", "json") == 0
    wanted = capsys.readouterr().out.splitlines(keepends=True)

    async def all_at_once() -> list[Transcript]:
        return await asyncio.gather(*(service.hear(f.read_bytes(), question, str(f)) for f in recordings))

    found = background.run(all_at_once())
    for done, line in zip(found, wanted):
        check_same(as_json(done), line)


def test_a_stream_is_the_same_piece_by_piece(service: Service, background: Background):
    data = encoded(talk(7.9, 4))

    async def run() -> list[Any]:
        return [item async for item in service.stream(data, Question(("asr", "ser")), "f.wav")]

    *pieces, whole = background.run(run())
    assert len(pieces) > 3 and all(isinstance(p, Piece) and p.duration == 7.9 for p in pieces)
    heard = whole.tasks["ser"].segments
    assert [(round(p.start, 2), round(p.end, 2)) for p in pieces] == [(s.start, s.end) for s in heard]
    assert [p.answers["ser"].answer.labels for p in pieces] == [s.labels for s in heard]
    again = background.run(service.hear(data, Question(("asr", "ser")), "f.wav"))
    check_same(as_json(whole), as_json(again))


def test_what_is_known_of_the_model(service: Service):
    assert service.ready and service.failed is None and service.model_name == "final"
    assert list(service.tasks)[:2] == ["asr", "srwt"]
    ser = service.tasks["ser"]
    assert ser.tag == "<TRANSCRIBE> <EMOTION>" and ser.transcript and not ser.align and not ser.reply
    assert "happy" in ser.labels["emotion"]


@pytest.mark.parametrize(
    "where, question",
    [
        ("tasks", Question(())),
        ("tasks", Question(("asr", "sing"))),
        ("lang", Question(("asr",), lang="fr")),
        ("prompt", Question(("asr",), "x" * 2001)),
        ("prompt", Question(("asr",), "x" * 2000)),  # more tokens than the model has room for
        ("hotwords", Question(("asr",), hotwords=("y" * 300,) * 6)),
        ("prompt", Question(("asr",), "\ud800")),
        ("hotwords", Question(("asr",), hotwords=("\udc80",))),
        ("temperature", Question(("asr",), temperature=float("nan"))),
        ("temperature", Question(("asr",), temperature=2.5)),
        ("seed", Question(("asr",), temperature=1.0, seed=-1)),
    ],
)
def test_what_cannot_be_asked(where: str, question: Question, service: Service, background: Background):
    restarts = service.stats.restarts
    with pytest.raises(BadQuestion) as caught:
        background.run(service.hear(SHORT, question))
    assert caught.value.where == where and caught.value.mend
    assert service.stats.restarts == restarts


def test_any_name_will_do(service: Service, background: Background):
    for name in ("", "..", "/etc/passwd", "a\0b |", "\ud800.wav"):
        done = background.run(service.hear(SHORT, Question(("asr",), temperature=1.0), name))
        assert done.duration == 0.8 and done.file == name.replace("\ud800", "?")


def test_questions_are_equal_where_the_answers_are(service: Service):
    table = service._table
    same = [
        Question(("asr", "ASR", "<TRANSCRIBE>"), " ", None, (" ",), 0.0, 7),
        Question(("asr",), temperature=1e-9, seed=8),
    ]
    assert {question.checked(table, 9) for question in same} == {ASR}


# ---- many at a time ----


def test_requests_share_batches(service: Service, background: Background):
    before, answered = service.stats.batches.copy(), service.stats.requests["ok"]
    with stopped(service):
        requests = [background.begin(service.hear(SHORT, ASR))]
        until(lambda: service.stats.in_hand == 1)
        requests += [background.begin(service.hear(SHORT, ASR)) for _ in range(8)]
        until(lambda: service.stats.queue == 8)
    assert len({as_json(request.result(60)) for request in requests}) == 1
    assert service.stats.batches - before == {1: 1, 4: 2}
    assert service.stats.requests["ok"] == answered + 9 and service.stats.requests["error"] == 0


def test_a_short_recording_is_answered_before_a_long_one(service: Service, background: Background):
    long = background.begin(service.hear(LONG, ASR))
    until(lambda: service.stats.queue > 0)
    background.run(service.hear(SHORT, ASR))
    assert not long.done()
    assert len(long.result(60).tasks["asr"].segments) >= 20


def test_a_request_that_leaves_frees_its_place(service: Service, background: Background):
    with stopped(service):
        requests = [background.begin(service.hear(LONG, ASR)) for _ in range(3)]
        until(lambda: service.stats.queue == 3 * LIMITS.batch_size)
        gone = service.stats.requests["cancelled"]
        for request in requests:
            request.cancel()
        until(lambda: service.stats.open == service.stats.queue == 0)
        assert service.stats.requests["cancelled"] == gone + 3
    assert background.run(service.hear(SHORT, ASR)).duration == 0.8


def test_more_than_the_queue_holds_are_turned_away(folder: Path):
    """A service that has no model yet: its requests wait."""

    async def run() -> None:
        service = Service(spec(folder), Limits(max_queue=2, request_seconds=0.2))
        waiting = [asyncio.ensure_future(service.hear(SHORT, ASR)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Busy) as caught:
            await service.hear(SHORT, ASR)
        assert 1 <= caught.value.retry_after <= 120
        waiting.pop().cancel()
        await asyncio.sleep(0.01)
        waiting.append(asyncio.ensure_future(service.hear(SHORT, ASR)))
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(e) for e in ends] == [TimedOut, TimedOut]
        assert service.stats.requests == {"busy": 1, "cancelled": 1, "timed_out": 2}
        assert service.stats.open == 0 and not service.ready
        await service.stop()

    asyncio.run(run())


# ---- what strangers send ----


UPLOADS = uploads()


@pytest.mark.parametrize("name", UPLOADS)
def test_uploads_that_cannot_be_heard(name: str, service: Service, background: Background, temp: Path):
    data, kind, what = UPLOADS[name]
    with pytest.raises(kind) as caught:
        background.run(service.hear(data, ASR, f"{name} |"))
    assert type(caught.value) is kind and what in caught.value.what and caught.value.mend
    left = [
        path.name for path in temp.iterdir() if not path.name.startswith("pymp-")
    ]  # the fork server's socket
    assert left == [] and service.stats.restarts == 0
    background.run(service.hear(SHORT, ASR))


def test_decoding_is_bounded_in_time(background: Background, service: Service):
    """100 h at 10 Hz are 23 GB at 16 kHz."""
    limits = Limits(decode_seconds=0.1, max_seconds=1e9)
    stats = Stats()

    async def run() -> None:
        decoders = Decoders(DATASET_DEFAULTS, 30.0, limits, stats, service._threads)
        with pytest.raises(BadAudio, match=r"takes more than 0\.1 s to decode"):
            async with decoders.open(UPLOADS["hundred hours"][0], "a.flac") as decoding:
                await decoding.next()
        async with decoders.open(SHORT, "b.wav") as decoding:
            assert decoding.duration == 0.8 and await decoding.next() is not None
            assert await decoding.next() is None
        await decoders.close()

    background.run(run())
    assert stats.decoder_losses == 1


def test_long_uploads_leave_decoders_to_short_ones(service: Service, background: Background):
    """Two of the four decoders are all that long ones get."""
    minutes = encoded(talk(95, 3), "FLAC")
    assert likely_seconds(minutes) > LONG_UPLOAD
    with stopped(service):
        long = [background.begin(service.hear(minutes, ASR)) for _ in range(4)]
        until(lambda: service.stats.queue >= LIMITS.batch_size)
        short = background.begin(service.hear(SHORT, ASR))
        until(lambda: service.stats.queue == 2 * LIMITS.batch_size + 1)
    assert short.result(60).duration == 0.8
    for request in long:
        request.cancel()
    until(lambda: service.stats.open == 0)


# ---- ends ----


def test_a_killed_worker_is_replaced(service: Service, background: Background):
    """What it had in hand is lost and told so; what waits is answered by the next one."""
    restarts = service.stats.restarts
    with stopped(service) as pid:
        lost = background.begin(service.hear(SHORT, ASR))
        until(lambda: service.stats.in_hand == 1)
        kept = background.begin(service.hear(SHORT, Question(("ser",))))
        until(lambda: service.stats.queue == 1)
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerLost, match="SIGKILL"):
        lost.result(60)
    assert kept.result(60).tasks["ser"].answer.labels
    assert service.stats.restarts == restarts + 1 and worker(service) != pid
    os.kill(worker(service), signal.SIGKILL)  # nobody is waiting
    until(lambda: service.stats.restarts == restarts + 2 and service.ready)
    background.run(service.hear(SHORT, ASR))


def test_a_worker_that_hangs_is_replaced_and_a_stop_drains(folder: Path, background: Background):
    with serving(folder, background, Limits(batch_seconds=3, batch_size=2)) as service:
        with stopped(service), pytest.raises(WorkerLost, match="no answer within 3 s"):
            background.run(service.hear(SHORT, ASR))
        until(lambda: service.ready)
        with stopped(service) as pid:
            open_ = [background.begin(service.hear(SHORT, ASR)) for _ in range(3)]
            until(lambda: service.stats.open == 3 and service.stats.queue >= 1)
            stopping = background.begin(service.stop())
            until(lambda: not service.ready)
            with pytest.raises(Closing):
                background.run(service.hear(SHORT, ASR))
            assert not stopping.done()
        assert [request.result(60).duration for request in open_] == [0.8] * 3
        stopping.result(60)
        until(lambda: not alive(pid))


def test_a_stop_does_not_wait_for_ever(folder: Path, background: Background):
    with serving(folder, background, Limits(batch_size=2)) as service, stopped(service):
        open_ = [background.begin(service.hear(SHORT, ASR)) for _ in range(3)]
        until(lambda: service.stats.open == 3 and service.stats.queue >= 1)
        background.run(service.stop(0.01))
        assert [type(request.exception(60)) for request in open_] == [Closing] * 3


def test_a_model_that_cannot_be_loaded(folder: Path, background: Background, tmp_path: Path):
    async def run() -> None:
        service = Service(LoadSpec(str(tmp_path / "none.pt")))
        waiting = asyncio.ensure_future(service.hear(SHORT, ASR))
        with pytest.raises(OsumError, match="no such file or folder"):
            await service.start()
        with pytest.raises(WorkerLost, match="no such file or folder"):
            await waiting
        await service.stop()
        early = Service(spec(folder))
        starting = asyncio.ensure_future(early.start())
        await asyncio.sleep(0)
        await early.stop()
        await early.stop(0)
        with pytest.raises(OsumError):
            await starting
        assert not early.ready

    background.run(run())
    home = shutil.copytree(folder, tmp_path / "copy")
    with serving(home, background, Limits(restarts=1)) as service:
        (home / "final.pt").unlink()
        os.kill(worker(service), signal.SIGKILL)
        until(lambda: service.failed is not None)
        with pytest.raises(WorkerLost, match="given up after 1 attempts"):
            background.run(service.hear(SHORT, ASR))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


PARENT = """
import asyncio, sys
from wenet_osum.decode.load import LoadSpec
from wenet_osum.serve.service import Question, Service

async def main():
    service = Service(LoadSpec(sys.argv[1], sys.argv[2], num_threads=1))
    await service.start()
    await service.hear(open(sys.argv[3], "rb").read(), Question(("asr",)))
    from multiprocessing import forkserver
    pids = [service._model._child._process.pid, *(c._process.pid for c in service._decoders._all)]
    print(*pids, forkserver._forkserver._forkserver_pid, flush=True)
    await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.integration
def test_nothing_outlives_a_killed_parent(folder: Path, tmp_path: Path):
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "a.wav").write_bytes(SHORT)
    argv = [tmp_path / "parent.py", folder / "final.pt", folder / "train.yaml", tmp_path / "a.wav"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, *map(str, argv)], stdout=subprocess.PIPE, text=True, env=env
    ) as parent:
        try:
            assert parent.stdout is not None
            pids = list(map(int, parent.stdout.readline().split()))
            assert len(pids) == 3 and all(map(alive, pids))
            # A SIGTERM to its group is the parent's affair: they live until it has answered.
            for pid in pids:
                os.kill(pid, signal.SIGTERM)
            time.sleep(0.3)
            assert all(map(alive, pids))
        finally:
            parent.kill()
    until(lambda: not any(map(alive, pids)))
