"""``osum transcribe``: what goes in, how it is batched, what comes out and in which order, and how it ends."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers import build, command, one_error_line, run_config, stage2_config, write_wav
from hypothesis import given, settings
from hypothesis import strategies as st

from wenet_osum.bin import transcribe as program
from wenet_osum.checkpoint.assemble import leave_room
from wenet_osum.config import DATASET_DEFAULTS
from wenet_osum.dataset.audio import load_audio
from wenet_osum.dataset.batch import Batch
from wenet_osum.dataset.features import log_mel_spectrogram
from wenet_osum.dataset.filter import WIDE_OPEN
from wenet_osum.decode import hearing as ends
from wenet_osum.decode import transcribe as loop
from wenet_osum.decode.answer import Answered
from wenet_osum.decode.cut import Piece
from wenet_osum.decode.recordings import Recording, find_recordings
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.tasks import load_tasks

TASKS = load_tasks()
RATE = 16000
MODEL = Path()


class FakeAnswerer:
    """Says of every utterance how many frames it has, so that an answer in the wrong place shows."""

    table = TASKS

    def __init__(self) -> None:
        self.model = build(stage2_config())
        self.batches: list[list[int]] = []

    def answer(self, batch: Batch, tasks: Sequence[str]) -> dict[str, list[Answered]]:
        lengths = batch["feats_lengths"].tolist()
        assert len(batch["keys"]) == len(batch["langs"]) == len(batch["feats"]) == len(lengths)
        assert batch["feats"].size(1) == max(lengths)
        self.batches.append(lengths)
        out: dict[str, list[Answered]] = {}
        for name in tasks:
            out[name] = [self.one(TASKS[name], key, n) for key, n in zip(batch["keys"], lengths)]
        return out

    @staticmethod
    def one(task: Any, key: str, frames: int) -> Answered:
        labels = "".join(f"<{f.values[0]}>" for f in task.fields)
        raw = (f"<0.00>frames<0.01><0.01>{frames}<0.02>" if task.align else f"frames {frames}") + labels
        raw += "<开始回答>yes" if task.reply else ""
        chances = {f.name: {v: 1 / len(f.values) for v in f.values} for f in task.fields}
        return Answered(key, task.name, raw, task.parse(raw), chances)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> FakeAnswerer:
    """Answers in place of the model that ``osum`` names."""
    answerer = FakeAnswerer()

    def load_model(args: Any) -> Any:
        conf = {**DATASET_DEFAULTS, "filter_conf": WIDE_OPEN}
        return SimpleNamespace(conf=leave_room(answerer.model, conf, TASKS, list))

    monkeypatch.setattr(program, "load_model", load_model)
    monkeypatch.setattr(program, "load_answerer", lambda args, loaded, mode: answerer)
    folder = tmp_path_factory.mktemp("model")
    run_config(folder, stage2_config()).rename(folder / "config.yaml")
    monkeypatch.setattr(sys.modules[__name__], "MODEL", folder)
    return answerer


def osum(*argv: object) -> int:
    return command(program.main, "--checkpoint", MODEL, *argv)


# ---- the loop ------------------------------------------------------------------------------------


@contextlib.contextmanager
def hearing(lengths: list[list[int | str]]) -> Iterator[tuple[list[Recording], list[int]]]:
    """Recordings whose pieces have so many 10 ms frames, where a word is a cause that ends one badly; beside
    them, which of them was read at each piece."""
    reads: list[int] = []

    def pieces(path: str, key: str, max_seconds: float, **how: Any) -> Iterator[Piece]:
        at = 0.0
        for frames in lengths[int(path)]:
            reads.append(int(path))
            if isinstance(frames, str):
                raise BadUtterance(key, frames, "told so")
            yield Piece(at, at + frames / 100, np.full(frames * 160, 0.1, np.float32))
            at += frames / 100

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ends, "pieces", pieces)
        patch.setattr(loop, "audio_duration", lambda path, key: 1.0)
        patch.setattr(loop, "on_disk", lambda r: contextlib.nullcontext(r.path))
        yield [Recording(f"{i}.wav", str(i), str(i)) for i in range(len(lengths))], reads


def run_loop(recordings: list[Recording], answerer: FakeAnswerer, size: int, *tasks: str) -> Iterator[Any]:
    asked = [TASKS[name] for name in tasks or ("asr",)]
    return loop.transcribe(recordings, answerer, asked, DATASET_DEFAULTS, batch_size=size)  # type: ignore[arg-type]


some_frames = st.integers(2, 60)
some_recordings = st.lists(st.lists(some_frames | st.just("nan"), max_size=9), max_size=9)


@given(some_recordings, st.integers(1, 5))
@settings(deadline=None, max_examples=60)
def test_answers_come_back_to_their_recordings_in_order(lengths: list[list[int | str]], size: int):
    answerer = FakeAnswerer()
    with hearing(lengths) as (recordings, _):
        found = list(run_loop(recordings, answerer, size, "srwt", "ser"))
    assert [t.file for t in found] == [r.file for r in recordings]
    for done, frames in zip(found, lengths):
        if "nan" in frames:
            assert str(done.error) == f"{done.file}: nan: told so; make the file again" and not done.tasks
            continue
        assert done.error is None and list(done.tasks) == ["srwt", "ser"]
        segments = done.tasks["ser"].segments
        assert [s.text for s in segments] == [f"frames {n}" for n in frames]
        edges = np.cumsum([0, *frames]) / 100
        assert [s.start for s in segments] == pytest.approx(edges[:-1])
        assert [s.end for s in segments] == pytest.approx(edges[1:])
        starts = [w.start for w in done.tasks["srwt"].answer.words or []]
        assert starts == pytest.approx([at for edge in edges[:-1] for at in (edge, edge + 0.01)])
    # Pieces of bad recordings may have been answered before the fault was met; no other is answered twice.
    good = [n for frames in lengths if "nan" not in frames for n in frames]
    assert sum(map(len, answerer.batches)) >= len(good)
    assert all(len(batch) <= size for batch in answerer.batches)


def test_batches_are_filled_across_recordings_by_length():
    lengths: list[list[int | str]] = [[10, 50], [11], [51, 12], [52], [53], [13]]
    answerer = FakeAnswerer()
    with hearing(lengths) as (recordings, _):
        assert len(list(run_loop(recordings, answerer, 4))) == 6
    assert [sorted(batch) for batch in answerer.batches] == [[10, 11, 12, 13], [50, 51, 52, 53]]


def test_few_pieces_are_held_and_results_stream():
    """One recording of 1,000 pieces, then 1,000 of one: never more than the look-ahead is read, not answered."""
    answerer, size = FakeAnswerer(), 3
    with hearing([[4] * 1000, *[[4]] * 1000]) as (recordings, reads):
        held = 0
        for n, _ in enumerate(run_loop(recordings, answerer, size)):
            held = max(held, len(reads) - sum(map(len, answerer.batches)))
            assert len(reads) <= 1000 + n + loop.LOOK_AHEAD * size
    assert n == 1000 and 0 < held <= loop.LOOK_AHEAD * size


def test_nothing_but_the_pieces_in_hand_is_kept(monkeypatch: pytest.MonkeyPatch):
    """The features of a long recording are let go as they are answered."""
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0
    real = ends.features

    def features(*args: Any) -> Any:
        nonlocal most
        feats = real(*args)
        alive.add(feats)
        gc.collect(0)
        most = max(most, len(alive))
        return feats

    monkeypatch.setattr(ends, "features", features)
    with hearing([[4] * 200]) as (recordings, _):
        list(run_loop(recordings, FakeAnswerer(), 2))
    assert most <= loop.LOOK_AHEAD * 2 + 2


def test_features_are_those_of_a_list(tmp_path: Path):
    """A recording that is one piece gives the model what ``osum recognize`` would."""
    wave = load_audio(str(write_wav(tmp_path / "a.wav", 0.5)))
    mel = DATASET_DEFAULTS["log_mel_spectrogram_conf"]
    assert ends.features(wave, DATASET_DEFAULTS).equal(log_mel_spectrogram(wave, RATE, **mel))
    eight = {**DATASET_DEFAULTS, "resample_conf": {"resample_rate": 8000}}
    assert len(ends.features(wave, eight)) == 25


@pytest.mark.parametrize("channel", [0, 1, None])
def test_the_configs_channel_is_heard(tmp_path: Path, channel: int | None):
    left, right = np.zeros(RATE), 0.5 * np.sin(np.arange(RATE) / 9)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    recording = Recording("a.wav", str(tmp_path / "a.wav"), "a")
    conf = {**DATASET_DEFAULTS, "singal_channel_conf": {"channel": channel}}
    (piece,) = loop._listen(loop._Open(recording), conf, 30.0, "energy")
    wave = {0: left, 1: right, None: right / 2}[channel]
    assert (piece.feats - ends.features(wave.astype(np.float32), conf)).abs().max() < 1e-5


# ---- what goes in --------------------------------------------------------------------------------


def test_folders_are_walked_and_other_files_counted(tmp_path: Path):
    for name in ("b/2.flac", "b/10.WAV", "a.mp3", "notes.txt", "b/x.json", "b/y.json", "README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    found, lines = find_recordings([str(tmp_path), "elsewhere.wav", "-"])
    assert [r.name for r in found] == ["a", "b/10", "b/2", "elsewhere", "stdin"]
    assert [Path(r.file).name for r in found] == ["a.mp3", "10.WAV", "2.flac", "elsewhere.wav", "-"]
    said = f"{tmp_path}: left out, no audio by their names: .json (2), "
    assert len(lines) == 1 and lines[0].startswith(said)
    assert all(kind in lines[0] for kind in (".txt (1)", "README (1)", "links to folders (1)"))


def test_bad_input_no_recordings(tmp_path: Path):
    with pytest.raises(OsumError, match=r"no audio file in it; known: aac"):
        find_recordings([str(tmp_path)])
    with pytest.raises(OsumError, match="standard input is named twice"):
        find_recordings(["-", "a.wav", "-"])


def bad_files(folder: Path) -> dict[str, str]:
    """A file for each fault -> the beginning of what is said of it."""
    tone = 0.5 * np.sin(np.arange(RATE) / 9)
    soundfile.write(folder / "nan.wav", np.where(np.arange(RATE) == 99, np.nan, tone), RATE, subtype="FLOAT")
    soundfile.write(folder / "loud.wav", tone * 3e4, RATE, subtype="FLOAT")
    soundfile.write(folder / "none.wav", tone[:0], RATE)
    soundfile.write(folder / "blip.wav", tone[:160], RATE)
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is no audio\n" * 99)
    whole = write_wav(folder / "cut.wav", 1.0)
    whole.write_bytes(whole.read_bytes()[:9000])
    (folder / "run.wav|").write_text("touch here")
    return {
        "nan.wav": "nan: samples that are not finite numbers; make the file again",
        "loud.wav": "too loud: float samples up to 15000",
        "none.wav": "empty: no samples; leave it out",
        "blip.wav": "too short: 0.0100 s of audio, at least 0.0126 s; leave it out",
        "empty.wav": "empty: zero bytes; leave it out",
        "text.wav": "unreadable: not a known audio format",
        "cut.wav": "truncated: ",
        "run.wav|": "unreadable: its name ends like a command, in '|'",
        "gone.wav": "no such file; check the path",
        "touch here |": "unreadable: its name ends like a command, in '|'",
    }


def odd_files(folder: Path) -> list[str]:
    """Recordings that are answered all the same."""
    tone = 0.5 * np.sin(np.arange(RATE) / 9)
    soundfile.write(folder / "silent.wav", 0 * tone, RATE)
    soundfile.write(folder / "clipped.wav", np.clip(tone * 9, -1, 1), RATE)
    soundfile.write(folder / "short.wav", tone[:800], RATE)
    soundfile.write(folder / "stereo.flac", np.stack([tone, -tone], 1), 44100)
    soundfile.write(folder / "hot.wav", tone * 3, RATE, subtype="FLOAT")
    return ["silent.wav", "clipped.wav", "short.wav", "stereo.flac", "hot.wav"]


def test_bad_input_each_file_has_its_line(tmp_path: Path, fake: FakeAnswerer, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    faults, odd = bad_files(tmp_path), odd_files(tmp_path)
    files = [name for pair in zip(faults, odd + odd) for name in pair]
    assert osum(*files, "--format", "json") == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == len(faults) and "Traceback" not in err
    for line, (name, what) in zip(lines, faults.items()):
        assert line.startswith(f"error: {name}: {what}"), line
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["file"] for row in rows] == files
    for row in rows[::2]:
        assert list(row) == ["file", "error"] and faults[row["file"]].startswith(row["error"]["what"][:9])
    for row in rows[1::2]:
        assert row["tasks"]["asr"]["text"] == f"frames {row['tasks']['asr']['text'].split()[1]}"
        assert row["duration"] == pytest.approx(
            {"short.wav": 0.05, "stereo.flac": 0.363}.get(row["file"], 1), abs=1e-3
        )
    assert not (tmp_path / "here").exists()


def test_silence_is_no_error(tmp_path: Path, fake: FakeAnswerer, capsys):
    soundfile.write(tmp_path / "silent.wav", np.zeros(3 * RATE), RATE)
    assert osum(tmp_path / "silent.wav", "--max_seconds", 1, "--task", "srwt,ser", "--format", "json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["duration"] == 3 and row["tasks"]["srwt"]["words"] == []
    assert all(t["text"] == "" and t["problems"] == ["nothing but silence"] for t in row["tasks"].values())
    assert osum(tmp_path / "silent.wav", "--max_seconds", 1) == 0
    assert capsys.readouterr().out == "\n" and fake.batches == []


def test_standard_input_and_pipes(tmp_path: Path, fake: FakeAnswerer, capsys, monkeypatch):
    audio = write_wav(tmp_path / "a.wav", 0.5).read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(audio)))
    assert osum("-") == 0
    assert capsys.readouterr().out == "frames 50\n"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
    assert osum("-") == 2
    assert "error: -: empty: zero bytes; leave it out" in capsys.readouterr().err
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cp", tmp_path / "a.wav", tmp_path / "pipe"]):
        assert osum(tmp_path / "pipe", "--output_dir", tmp_path / "out") == 0
    assert (tmp_path / "out/pipe.txt").read_text() == "frames 50\n"


# ---- what comes out ------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path) -> Path:
    folder = tmp_path / "calls"
    (folder / "b").mkdir(parents=True)
    for name, seconds in (("a 1", 0.3), ("b/x", 2.5), ("c", 0.5)):
        write_wav(folder / f"{name}.wav", seconds)
    return folder


def test_text_has_the_columns_that_tell_rows_apart(three: Path, fake: FakeAnswerer, capsys):
    one = three / "c.wav"
    assert osum(one) == 0
    assert capsys.readouterr().out == "frames 50\n"
    assert osum(one, "--task", "asr,<TRANSCRIBE><EMOTION>") == 0
    assert capsys.readouterr().out == "asr\tframes 50\nser\tframes 50<sad>\n"
    assert osum(three, "--max_seconds", 1, "--vad", "none") == 0
    names = [str(three / f"{name}.wav") for name in ("a 1", "b/x", "c")]
    texts = ["frames 30", "frames 100 frames 100 frames 50", "frames 50"]
    assert capsys.readouterr().out == "".join(f"{n}\t{t}\n" for n, t in zip(names, texts))
    assert osum(one, names[0], "--task", "asr,sttc") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1] == f"{one}\tsttc\tframes 50<开始回答>yes" and len(out) == 4


def test_all_tasks_and_formats_into_a_folder(three: Path, fake: FakeAnswerer, tmp_path: Path, capsys):
    out = tmp_path / "out"
    write_wav(three / "bad.wav", 1.0).write_text("no audio")
    asked = ["--task", "all", "--format", "text,json,srt,vtt,ctm", "--output_dir", out]
    assert osum(three, *asked, "--max_seconds", 1, "--vad", "none") == 2
    printed = capsys.readouterr()
    assert printed.out == "" and one_error_line(printed.err).startswith(f"error: {three}/bad.wav: unreadable")
    found = sorted(str(p.relative_to(out)) for p in out.rglob("*.*"))
    suffixes = ("ctm", "json", "srt", "txt", "vtt")
    assert found == sorted(["bad.json", *(f"{n}.{s}" for n in ("a 1", "b/x", "c") for s in suffixes)])
    row = json.loads((out / "b/x.json").read_text())
    assert list(row["tasks"]) == ["asr", "srwt", "ved", "ser", "ssr", "sgc", "sap", "sttc"]
    assert row["duration"] == 2.5 and len(row["tasks"]["asr"]["segments"]) == 3
    assert all(
        sum(p.values()) == pytest.approx(1, abs=1e-4) for p in row["tasks"]["sgc"]["probabilities"].values()
    )
    assert (out / "b/x.ctm").read_text().splitlines()[2:4] == [
        "b/x 1 1.00 0.01 frames",
        "b/x 1 1.01 0.01 100",
    ]
    assert (out / "a 1.ctm").read_text().startswith("a_1 1 0.00 0.01 frames\n")
    assert (out / "c.vtt").read_text() == "WEBVTT\n\n00:00:00.000 --> 00:00:00.020\nframes 50\n"
    assert (out / "c.txt").read_text().splitlines()[1] == "srwt\t<0.00>frames<0.01><0.01>50<0.02>"


def test_a_name_that_is_no_utf8(fake: FakeAnswerer, tmp_path: Path, capsys):
    strange = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.wav")
    write_wav(tmp_path / "a.wav", 0.3).rename(strange)
    asked = ["--format", "json,ctm,text", "--task", "srwt", "--output_dir", tmp_path / "out"]
    assert osum(strange, *asked) == 0
    assert [p.suffix for p in sorted((tmp_path / "out").iterdir())] == [".ctm", ".json", ".txt"]
    assert osum(strange, "--format", "json") == 0
    assert Path(json.loads(capsys.readouterr().out)["file"]).name == "caf\ufffd.wav"


def test_results_are_on_standard_output_before_the_next_file_is_read(three, fake, monkeypatch):
    printed = io.StringIO()
    monkeypatch.setattr(sys, "stdout", printed)
    seen = []
    read = ends.pieces

    def pieces(path: str, *args: Any, **how: Any) -> Iterator[Piece]:
        seen.append((Path(path).stem, printed.getvalue().count("\n")))
        return read(path, *args, **how)

    monkeypatch.setattr(ends, "pieces", pieces)
    monkeypatch.setattr(loop, "LOOK_AHEAD", 1)
    assert osum(three, "--batch_size", 1) == 0
    assert seen == [("a 1", 0), ("x", 1), ("c", 2)]


def test_an_interrupted_write_leaves_no_file(three: Path, fake: FakeAnswerer, tmp_path: Path, monkeypatch):
    def broken(done: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setitem(program.FORMATS, "json", (broken, "json"))
    assert osum(three / "c.wav", "--format", "json", "--output_dir", tmp_path / "out") == 130
    assert list((tmp_path / "out").iterdir()) == []


# ---- how it ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--format", "ctm"], "--format ctm: needs the times of words; ask for them: --task srwt"),
        (["--format", "doc"], "--format doc: unknown format; choose among text, json, srt, vtt, ctm"),
        (["--format", "text,json"], "--format: standard output takes one format; give --output_dir"),
        (["--format", "srt"], "--format: 3 recordings in one srt file; give --output_dir"),
        (["--task", "sing"], "sing: "),
        (
            ["--max_seconds", "0"],
            "osum transcribe: argument --max_seconds: '0' is no number of seconds from 1 up",
        ),
        (["--max_seconds", "nan"], "osum transcribe: argument --max_seconds: 'nan' is no number of seconds"),
        (["--vad", "ears"], "osum transcribe: argument --vad: invalid choice: 'ears'"),
        (
            ["--batch_size", "0"],
            "osum transcribe: argument --batch_size: '0' is not a whole number from 1 up",
        ),
        (["--walk"], "osum transcribe: unrecognized arguments: --walk"),
    ],
)
def test_bad_input_command_line(three: Path, fake: FakeAnswerer, capsys, more, said):
    assert osum(three, *more) == 1
    printed = capsys.readouterr()
    assert one_error_line(printed.err).startswith(f"error: {said}") and printed.out == ""
    assert fake.batches == []


def test_bad_input_two_files_of_one_name(three: Path, fake: FakeAnswerer, tmp_path: Path, capsys):
    write_wav(tmp_path / "c.wav", 0.3)
    assert osum(three, tmp_path / "c.wav", "--output_dir", tmp_path / "out") == 1
    said = f"error: --output_dir: {three}/c.wav and {tmp_path}/c.wav would both be c; "
    assert one_error_line(capsys.readouterr().err).startswith(said)
    assert not (tmp_path / "out").exists()


def test_pieces_are_no_longer_than_the_model_has_room_for(three: Path, fake: FakeAnswerer, capsys):
    fake.model = build(stage2_config(encoder_conf={**stage2_config()["encoder_conf"], "max_positions": 60}))
    assert osum(three / "b/x.wav", "--vad", "none") == 0
    assert capsys.readouterr().out.startswith("frames 120 frames ")
    assert 248 <= sum(map(sum, fake.batches)) <= 250 and max(map(max, fake.batches)) == 120


def test_two_formats_of_one_name_keep_their_suffix(three: Path, fake: FakeAnswerer, tmp_path: Path):
    (tmp_path / "both").mkdir()
    write_wav(tmp_path / "both" / "c.wav", 0.3)
    soundfile.write(tmp_path / "both" / "c.flac", np.random.default_rng(0).standard_normal(4800) * 0.1, 16000)
    assert osum(tmp_path / "both", "--output_dir", tmp_path / "out", "--format", "text") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["c.flac.txt", "c.wav.txt"]
