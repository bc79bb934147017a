"""Shards: round trips, WeNet's reader, same bytes from any number of threads, and broken tars."""

from __future__ import annotations

import errno
import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from wenet_osum.bin import make_shard_list
from wenet_osum.dataset import shards
from wenet_osum.dataset.audio import load_audio
from wenet_osum.dataset.parallel import ordered_map
from wenet_osum.dataset.shard_reader import index_shard, read_shard, read_tar_list
from wenet_osum.dataset.shards import skipped_path, write_shards
from wenet_osum.errors import BadUtterance, OsumError

RATE = 16000
FULL = {
    "lang": "zh",
    "speaker": "s 1",
    "task": "<TRANSCRIBE> <EMOTION>",
    "event": "throat clearing",
    "emotion": "happy",
    "style": "新闻科普",
    "gender": "female",
    "age": "old",
    "reply": "好的。",
    "align": [[0.0, 0.25, "你"], [0.25, 0.5, "好"]],
    "extra": {"question": "?"},
    "room": "hall",
    "snr": 3.5,
    "a.b": "dotted",
    "flac": "a field with the name of a format",
}


def make_wav(path: Path, seconds: float = 0.5, rate: int = RATE, hertz: float = 300) -> str:
    samples = (np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate) * 20000).astype(np.int16)
    sf.write(path, samples, rate, subtype="PCM_16")
    return str(path)


def some_samples(folder: Path, count: int = 7) -> list[dict[str, Any]]:
    wavs = [make_wav(folder / f"{n}.wav", 0.3 + 0.1 * n, hertz=200 + 50 * n) for n in range(3)]
    return [{"key": f"u{n}", "wav": wavs[n % 3], "txt": f"句子 {n}", "emotion": "sad"} for n in range(count)]


def wenet_reads(tar: str | Path) -> list[dict[str, Any]]:
    """What WeNet's reader makes of a tar: one pass, key up to the last dot, a new key ends the utterance."""
    utterances: list[dict[str, Any]] = []
    with open(tar, "rb") as raw, tarfile.open(fileobj=raw, mode="r|*") as stream:
        for member in stream:
            at = member.name.rfind(".")
            assert at > 0
            key, suffix = member.name[:at], member.name[at + 1 :]
            if not utterances or utterances[-1]["key"] != key:
                utterances.append({"key": key})
            content = stream.extractfile(member)
            assert content is not None
            data = content.read()
            if suffix == "txt":
                utterances[-1]["txt"] = data.decode("utf8").strip()
            else:
                utterances[-1]["wav" if suffix in shards.AUDIO_SUFFIXES else suffix] = data
    return utterances


@pytest.mark.parametrize("shard_type", ["shard", "shard_full_data"])
def test_round_trip_of_every_field(tmp_path: Path, shard_type: str) -> None:
    wav = make_wav(tmp_path / "a.wav")
    samples = [
        {"key": "a.b/c d", "wav": wav, "txt": "你好 world", **FULL},
        {"key": "说话人-" + "x" * 200, "wav": wav, "txt": ""},
        {"key": "c", "wav": wav},
        {"key": "d", "wav": wav, "txt": "half", "start": 0.125, "end": 0.25, "duration": 9.0},
    ]
    report = write_shards(samples, tmp_path / "tars", tmp_path / "data.list", shard_type)
    assert (report.utterances, report.seconds, report.skipped) == (4, 1.625, [])
    assert [t for _, t in read_tar_list(tmp_path / "data.list")] == report.tars
    assert report.tars == [str(tmp_path / "tars" / "shards_000000000.tar")]

    back = list(read_shard(report.tars[0]))
    for sample, again in zip(samples, back, strict=True):
        audio = load_audio(again.pop("wav"))
        assert (audio == load_audio(wav, sample.get("start"), sample.get("end"))).all()
        if shard_type == "shard_full_data":
            assert again.pop("duration") == len(audio) / RATE
        assert again == {k: v for k, v in sample.items() if k not in ("wav", "start", "end", "duration")}

    raw = Path(report.tars[0]).read_bytes()
    for sample, row in zip(samples, index_shard(report.tars[0]), strict=True):
        audio = load_audio(wav, sample.get("start"), sample.get("end"))
        assert row.pop("tar") == report.tars[0]
        offset, size = row.pop("offset"), row.pop("size")
        assert (load_audio(raw[offset : offset + size]) == audio).all()
        assert row.pop("duration") == len(audio) / RATE
        assert row == {k: v for k, v in sample.items() if k not in ("wav", "start", "end", "duration")}

    seen = wenet_reads(report.tars[0])
    assert [(u["key"], u["txt"]) for u in seen] == [(s["key"], s.get("txt", "")) for s in samples]
    assert all(sf.info(io.BytesIO(u["wav"])).subtype == "PCM_16" for u in seen)
    if shard_type == "shard":
        assert set(seen[0]) == {"key", "txt", "wav", "json"}
        assert set(seen[1]) == {"key", "txt", "wav"}  # nothing but what WeNet knows
    else:  # OSUM's reader takes these as text
        assert seen[0]["emotion"] == b"happy" and seen[0]["task"] == b"<TRANSCRIBE> <EMOTION>"
        assert float(seen[0]["duration"]) == 0.5


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), unique=True
    ),
    st.sampled_from(["shard", "shard_full_data"]),
)
def test_any_key_round_trips(keys: list[str], shard_type: str) -> None:
    if not keys:
        return
    with tempfile.TemporaryDirectory() as folder:
        wav = make_wav(Path(folder) / "a.wav", 0.01)
        samples = [{"key": key, "wav": wav, "txt": f"text {n}"} for n, key in enumerate(keys)]
        report = write_shards(samples, folder, Path(folder) / "l.list", shard_type)
        back = [(s["key"], s["txt"]) for s in read_shard(report.tars[0])]
        assert back == [(s["key"], s["txt"]) for s in samples]
        assert [(u["key"], u["txt"]) for u in wenet_reads(report.tars[0])] == back


@pytest.mark.parametrize("shard_type", ["shard", "shard_full_data"])
def test_same_bytes_from_any_number_of_threads(tmp_path: Path, shard_type: str) -> None:
    samples = some_samples(tmp_path, 11)
    samples[4] = {**samples[4], "wav": "gone.wav"}
    written = []
    for workers in (1, 2, 5):
        folder = tmp_path / f"w{workers}"
        report = write_shards(iter(samples), folder, folder / "data.list", shard_type, 2, workers)
        assert (report.utterances, len(report.tars)) == (10, 6)
        assert [s["key"] for s in report.skipped] == ["u4"]
        files = {p.name: p.read_bytes() for p in folder.iterdir()}
        files["data.list"] = files["data.list"].replace(str(folder).encode(), b"")
        written.append(files)
    assert written[0] == written[1] == written[2]
    assert set(written[0]) == {"data.list", "data.skipped.jsonl", *(f"shards_{n:09d}.tar" for n in range(6))}


def test_audio_is_mono_16_bit_at_the_rate_asked_for(tmp_path: Path) -> None:
    loud = np.stack([np.full(4410, 1.0), np.full(4410, 1.5)], 1)  # beyond 16 bits: clipped, not wrapped
    sf.write(tmp_path / "a.wav", loud, 44100, subtype="FLOAT")
    sample = {"key": "a", "wav": str(tmp_path / "a.wav"), "txt": ""}
    (tar,) = write_shards([sample], tmp_path, tmp_path / "l", sample_rate=8000).tars
    (back,) = read_shard(tar)
    info = sf.info(io.BytesIO(back["wav"]))
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (8000, 1, "PCM_16", 800)
    assert sf.read(io.BytesIO(back["wav"]))[0][50:-50].min() > 0.99


def test_shards_of_shards(tmp_path: Path) -> None:
    first = write_shards(some_samples(tmp_path), tmp_path / "1", tmp_path / "1.list", num_utts_per_shard=3)
    again = (sample for tar in first.tars for sample in read_shard(tar))
    second = write_shards(again, tmp_path / "2", tmp_path / "2.list", num_utts_per_shard=3)
    assert [Path(t).read_bytes() for t in first.tars] == [Path(t).read_bytes() for t in second.tars]


def test_shards_of_others(tmp_path: Path) -> None:
    """Other audio formats, fields as OSUM writes them, members without txt or without audio, folders."""
    flac = io.BytesIO()
    sf.write(flac, np.zeros(8000), RATE, format="FLAC")
    with tarfile.open(tmp_path / "o.tar", "w") as tar:
        folder = tarfile.TarInfo("d")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in (
            ("d/a.flac", flac.getvalue()),
            ("d/a.txt", "你好\n".encode()),
            ("d/a.duration", b"0"),
            ("d/a.emotion", b"happy\n"),
            ("d/a.speech_token", b"\xff\x00\x01"),
            ("d/a.extra", b'{"question": "?"}'),
            ("b.flac", flac.getvalue()),
            ("c.txt", b"no audio"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    a, b, c = read_shard(tmp_path / "o.tar")
    assert len(load_audio(a.pop("wav"))) == 8000
    assert a == {
        "key": "d/a",
        "txt": "你好",
        "emotion": "happy",
        "speech_token": b"\xff\x00\x01",
        "extra": {"question": "?"},
    }
    assert b["txt"] == "" and b["key"] == "b"
    with pytest.raises(BadUtterance, match="empty"):
        load_audio(c["wav"], key="c")
    index = index_shard(tmp_path / "o.tar")
    assert [row.get("duration") for row in index] == [0.5, 0.5, None]
    assert index[2]["size"] == 0


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_wav(tmp_path / "a.wav")
    (tmp_path / "wav.scp").write_text("a a.wav\nb b.wav\n")
    (tmp_path / "text").write_text("a hi\nb ho\n")
    (tmp_path / "utt2emotion").write_text("a happy\n")
    out = [str(tmp_path / "shards"), str(tmp_path / "data.list")]
    args = ["--data_dir", str(tmp_path), "--shard_type", "shard_full_data", "--prefix", "x", *out]
    assert make_shard_list.main(args) == 0
    printed = capsys.readouterr().out
    assert "1 utterances, 0.000 h, 1 tars\n1 set aside (missing 1): " in printed
    row = json.loads(skipped_path(out[1]).read_text())
    assert (row["key"], row["cause"]) == ("b", "missing") and "b.wav" in row["detail"]
    (sample,) = read_shard(tmp_path / "shards" / "x_000000000.tar")
    assert sample["emotion"] == "happy"

    (tmp_path / "text").write_text("a hi\n")  # WeNet's own form of the command
    args = [str(tmp_path / "wav.scp"), str(tmp_path / "text"), *out]
    assert make_shard_list.main(["--num_threads", "2", "--resample", "8000", *args]) == 0
    assert wenet_reads(tmp_path / "shards" / "shards_000000000.tar")[0]["txt"] == "hi"
    assert not skipped_path(out[1]).exists()  # it was of the run before


def test_ordered_map_stops_at_an_error_and_takes_little_ahead() -> None:
    taken = []

    def items():  # type: ignore[no-untyped-def]
        for n in range(1000):
            taken.append(n)
            yield n

    def work(n: int) -> float:
        return 1 / (n - 20)

    results = ordered_map(work, items(), 3)
    with pytest.raises(ZeroDivisionError):
        for n, result in enumerate(results):
            assert result == 1 / (n - 20)
    assert n == 19 and len(taken) < 50


def test_bad_input_cut_off_tar(tmp_path: Path) -> None:
    (tar,) = write_shards(some_samples(tmp_path, 3), tmp_path, tmp_path / "l").tars
    whole = Path(tar).read_bytes()
    with tarfile.open(tar) as t:
        members = t.getmembers()
        end = members[-1].offset_data + (members[-1].size + 511) // 512 * 512
    cut = tmp_path / "cut.tar"
    borders = [m.offset for m in members[1:]] + [end]
    for size in sorted({*range(1, end, 1777), *borders, *(b + 100 for b in borders[:-1])}):
        cut.write_bytes(whole[:size])
        for read in (lambda p: list(read_shard(p)), index_shard):
            with pytest.raises(OsumError, match=r"cut-off tar|not a tar") as e:
                read(cut)
            assert e.value.where == str(cut) and e.value.mend
    cut.write_bytes(whole[: end + 1024])
    assert len(index_shard(cut)) == 3


def test_bad_input_no_tar(tmp_path: Path) -> None:
    with pytest.raises(OsumError, match="no such file"):
        index_shard(tmp_path / "none.tar")
    for content in (b"", b"words " * 1000, bytes.fromhex("1f8b0800") + bytes(600)):
        (tmp_path / "x.tar").write_bytes(content)
        with pytest.raises(OsumError, match="not a tar"):
            index_shard(tmp_path / "x.tar")


@pytest.mark.parametrize(
    ("member", "content", "what"),
    [
        ("a.txt", "你好".encode("gbk"), "a.txt: not UTF-8"),
        ("a.json", b"{", "a.json: malformed JSON"),
        ("a.json", b"[1]", "a.json: malformed JSON"),
        ("a.align", b"x", "a.align: malformed JSON"),
        ("README", b"hello", "README: not named KEY.suffix"),
        ("a.json", b'{"txt": 7}', "'a': txt is 7 and should be a string"),
        ("a.json", b'{"duration": "x"}', "'a': duration is 'x' and should be seconds"),
        ("a.json", b'{"duration": 1e308}', "duration is 1e[+]308"),
        ("a.json", b'{"speaker": "\\ud800"}', "a.json: half a surrogate pair"),
        ("a.align", b"[[0, 1, 5]]", "align should be a list of"),
        ("a.task", b"\xff", "task is .* and should be a string"),
        ("\udcff.txt", b"hi", "half a surrogate pair"),
    ],
)
def test_bad_input_members(tmp_path: Path, member: str, content: bytes, what: str) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    for read in (lambda p: list(read_shard(p)), index_shard):
        with pytest.raises(OsumError, match=what):
            read(tmp_path / "x.tar")


def test_bad_input_utterances_are_set_aside(tmp_path: Path) -> None:
    samples = some_samples(tmp_path, 4)
    data = Path(samples[0]["wav"]).read_bytes()
    sf.write(tmp_path / "nan.wav", np.full(99, np.nan), RATE, subtype="FLOAT")
    bad = {
        "truncated": {"wav": data[:-10]},
        "empty": {"wav": b""},
        "nan": {"wav": str(tmp_path / "nan.wav")},
        "missing": {"wav": str(tmp_path / "none.wav")},
        "unreadable": {"wav": b"hello"},
        "pipe_failed": {"wav": "false |"},
        "segment_out_of_range": {"wav": data, "start": 5.0, "end": 6.0},
    }
    rows = [*samples, *({"key": cause, "txt": "", **fields} for cause, fields in bad.items())]
    report = write_shards(rows, tmp_path / "out", tmp_path / "data.list", num_utts_per_shard=4, num_workers=2)
    assert report.utterances == 4
    assert [(r["key"], r["cause"]) for r in report.skipped] == [(cause, cause) for cause in bad]
    lines = (tmp_path / "data.skipped.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == report.skipped
    # The second and third tar would be empty: they are not there.
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["shards_000000000.tar"]
    with pytest.raises(OsumError, match="no utterance can be used; the first: truncated: truncated"):
        write_shards(rows[4:], tmp_path / "out2", tmp_path / "data2.list")
    assert not (tmp_path / "data2.list").exists()


def test_bad_input_arguments_and_samples(tmp_path: Path) -> None:
    samples = some_samples(tmp_path, 3)
    with pytest.raises(OsumError, match="use one of shard, shard_full_data"):
        write_shards(samples, tmp_path / "s", tmp_path / "l", "raw")
    with pytest.raises(OsumError, match="num_utts_per_shard: is 0"):
        write_shards(samples, tmp_path / "s", tmp_path / "l", num_utts_per_shard=0)
    with pytest.raises(OsumError, match="u1: this key comes twice"):
        write_shards(
            [*samples, samples[1]], tmp_path / "s", tmp_path / "l", num_utts_per_shard=1, num_workers=2
        )
    with pytest.raises(OsumError, match="u0: cannot be written"):
        write_shards([{**samples[0], "snr": float("nan")}], tmp_path / "s", tmp_path / "l")
    with pytest.raises(OsumError, match="no utterance can be used"):
        write_shards([], tmp_path / "s", tmp_path / "l")
    assert not (tmp_path / "l").exists()


@pytest.mark.parametrize("workers", [1, 3])
def test_bad_input_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    samples = some_samples(tmp_path, 9)
    out = tmp_path / "out"
    write_shards(samples, out, out / "data.list", num_utts_per_shard=3)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    written = 0
    add = shards._add

    def add_until_full(*args: Any) -> None:
        nonlocal written
        written += 1
        if written > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(*args)

    monkeypatch.setattr(shards, "_add", add_until_full)
    changed = [{**s, "txt": "changed"} for s in samples]
    with pytest.raises(OSError, match="No space left"):
        write_shards(changed, out, out / "data.list", num_utts_per_shard=3, num_workers=workers)
    after = {p.name: p.read_bytes() for p in out.iterdir()}
    assert set(after) == set(before)  # no temporary file is left
    assert after["data.list"] == before["data.list"]
    for path in out.glob("*.tar"):
        assert len(index_shard(path)) == 3  # each is whole, old or new


def tar_of(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_bad_input_an_utterance_twice_in_a_row(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "x.tar", [("a.txt", b"hi"), ("a.wav", b"1"), ("a.txt", b"ho"), ("a.wav", b"2")])
    for read in (lambda p: list(read_shard(p)), index_shard):
        with pytest.raises(OsumError, match="a.txt: comes twice"):
            read(tar)


def test_bad_input_json_does_not_take_the_place_of_the_tars_own(tmp_path: Path) -> None:
    own = json.dumps({"key": "z", "wav": "/x", "start": 1, "end": 9, "tar": "/y", "offset": 3, "size": 4})
    tar = tar_of(tmp_path / "x.tar", [("a.txt", b"hi"), ("a.json", own.encode()), ("a.wav", b"12345")])
    sample = index_shard(tar)[0]
    assert (sample["key"], sample["tar"], sample["size"]) == ("a", str(tar), 5)
    assert not {"wav", "start", "end"} & sample.keys()
    assert [(s["key"], s["wav"]) for s in read_shard(tar)] == [("a", b"12345")]


@pytest.mark.parametrize(
    "line, what",
    [
        ('{"key": "a"}', r"x\.list:1: a line of a raw list; give --data_type raw"),
        ("\ufeffx.tar", r"x\.list:1: begins with a byte-order mark"),
        ("a\0b", "null byte"),
        ("x" * 5000, "name too long"),
    ],
)
def test_bad_input_tar_list(tmp_path: Path, line: str, what: str) -> None:
    (tmp_path / "x.list").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(OsumError, match=what) as e:
        for _, tar in read_tar_list(tmp_path / "x.list"):
            index_shard(tar)
    assert len(str(e.value)) < 400


def test_bad_input_sample_rate(tmp_path: Path) -> None:
    with pytest.raises(OsumError, match="sample_rate: is 3000000000"):
        write_shards(some_samples(tmp_path, 1), tmp_path / "s", tmp_path / "l", sample_rate=3_000_000_000)
