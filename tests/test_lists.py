"""Raw lists: what is written is read again, others' lists are read, bad lines are named."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenet_osum.dataset.lists import read_raw_list, write_raw_list
from wenet_osum.errors import OsumError

words = st.text(max_size=8)
names = st.text(min_size=1, max_size=8).filter(str.strip)
seconds = st.floats(0, 1e5)
SAMPLES = st.lists(
    st.fixed_dictionaries(
        {"key": names, "wav": names},
        optional={
            "txt": words,
            "start": seconds,
            "duration": seconds,
            "lang": words,
            "task": words,
            "emotion": words,
            "reply": words,
            "align": st.lists(st.tuples(seconds, seconds, words).map(list), max_size=3),
            "extra": st.dictionaries(names, words, max_size=2),
            "room": words,
        },
    ),
    unique_by=lambda s: s["key"],
    max_size=4,
)


@settings(deadline=None)
@given(SAMPLES)
def test_round_trip(samples: list[dict]) -> None:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.list"
        assert write_raw_list(samples, path) == len(samples)
        assert [s for _, s in read_raw_list(path)] == samples
        assert [w for w, _ in read_raw_list(path)] == [f"{path}:{n + 1}" for n in range(len(samples))]
        first = path.read_bytes()
        assert first.count(b"\n") == len(samples)
        write_raw_list([dict(reversed(s.items())) for s in samples], path)
        assert path.read_bytes() == first  # whatever the order of the keys


def test_untranscribed_is_not_silent(tmp_path: Path) -> None:
    path = tmp_path / "data.list"
    samples = [{"key": "a", "wav": "a.wav"}, {"key": "b", "wav": "b.wav", "txt": ""}]
    write_raw_list(samples, path)
    assert [s for _, s in read_raw_list(path)] == samples
    for line in path.read_text().splitlines():  # WeNet asserts these three
        assert {"key", "wav", "txt"} <= set(json.loads(line))
        assert json.loads(line)["txt"] == ""


def test_lists_of_wenet_and_osum(tmp_path: Path) -> None:
    path = tmp_path / "data.list"
    path.write_text(
        '{"key": "BAC009S0002W0122", "wav": "/d/a.wav", "txt": "而对楼市成交", "start": 0.5, "end": 2}\n'
        "\n"
        '{"task":"<TRANSCRIBE> <EMOTION>","wav":"w.wav","key":"0001","txt":"你好<anger>","gender":null,'
        '"extra":{"question":"?"},"speaker":"<NONE>"}\r\n',
        encoding="utf-8",
    )
    (at1, first), (at2, second) = read_raw_list(path)
    assert (at1, at2) == (f"{path}:1", f"{path}:3")
    assert first == {
        "key": "BAC009S0002W0122",
        "wav": "/d/a.wav",
        "txt": "而对楼市成交",
        "start": 0.5,
        "end": 2,
    }
    assert second == {
        "task": "<TRANSCRIBE> <EMOTION>",
        "wav": "w.wav",
        "key": "0001",
        "txt": "你好<anger>",
        "extra": {"question": "?"},
        "speaker": "<NONE>",
    }


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"key": "a", "wav": "a.wav", "txt": "hi"', "malformed JSON at column"),
        ("a a.wav hi", "malformed JSON at column 1"),
        ("[" * 100_000, "malformed JSON"),
        ('["a", "a.wav"]', "not a JSON object"),
        ('{"wav": "a.wav", "txt": "hi"}', "key is missing"),
        ('{"key": "a", "txt": "hi"}', "wav is missing"),
        ('{"key": "a", "wav": "a.wav"}', "txt is missing"),
        ('{"key": 1, "wav": "a.wav", "txt": "hi"}', "key is 1 and should be a string"),
        ('{"key": "", "wav": "a.wav", "txt": "hi"}', "key is empty"),
        ('{"key": "a", "wav": " ", "txt": "hi"}', "wav is empty"),
        ('{"key": "a", "wav": "a.wav", "txt": null}', "txt is None and should be a string"),
        ('{"key": "a", "wav": "a.wav", "txt": "", "start": "0"}', "start is '0' and should be seconds"),
        ('{"key": "a", "wav": "a.wav", "txt": "", "start": -1}', "start is -1 and should be seconds"),
        ('{"key": "a", "wav": "a.wav", "txt": "", "end": NaN}', "end is nan and should be seconds"),
        ('{"key": "a", "wav": "a.wav", "txt": "", "duration": true}', "duration is True"),
        ('{"key": "a", "wav": "a.wav", "txt": "", "start": 2, "end": 1}', "end is 1 and should be after"),
        (
            '{"key": "a", "wav": "a.wav", "txt": "", "emotion": ["sad"]}',
            "emotion is .* and should be a string",
        ),
        ('{"key": "a", "wav": "a.wav", "txt": "", "task": 3}', "task is 3 and should be a string"),
        ('{"key": "a", "wav": "a.wav", "txt": "", "align": [[0, 1]]}', "align should be a list of"),
        ('{"key": "a", "wav": "a.wav", "txt": "", "align": {"0": 1}}', "align should be a list of"),
        ('{"key": "a", "wav": "a.wav", "txt": "", "duration": 1e308}', "duration is 1e[+]308 and"),
        ('{"key": "a", "wav": "a.wav", "txt": "", "duration": 1' + "0" * 400 + "}", "duration is 10*0 and"),
        ('{"key": "a", "wav": "a.wav", "txt": "", "duration": 1' + "0" * 5000 + "}", "malformed JSON"),
        ('{"key": "\\ud800", "wav": "a.wav", "txt": ""}', "half a surrogate pair"),
        ('{"key": "a", "wav": "a.wav", "txt": "x", "own": ["\\udfff"]}', "half a surrogate pair"),
        ('\ufeff{"key": "a", "wav": "a.wav", "txt": ""}', "byte-order mark"),
    ],
)
def test_bad_input_lines(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "data.list"
    path.write_text('{"key": "0", "wav": "0.wav", "txt": ""}\n' + line + "\n", encoding="utf-8")
    rows = read_raw_list(path)
    assert next(rows)[1]["key"] == "0"
    with pytest.raises(OsumError, match=what) as e:
        next(rows)
    assert e.value.where == f"{path}:2" and e.value.mend


def test_bad_input_files(tmp_path: Path) -> None:
    with pytest.raises(OsumError, match="no such file"):
        list(read_raw_list(tmp_path / "none"))
    (tmp_path / "gbk").write_bytes('{"key": "a", "wav": "a.wav", "txt": "你好"}\n'.encode("gbk"))
    with pytest.raises(OsumError, match="gbk:1: not UTF-8"):
        list(read_raw_list(tmp_path / "gbk"))


@pytest.mark.parametrize(
    "bad",
    [
        {"key": "b", "wav": "b.wav", "txt": "", "extra": float("nan")},
        {"key": "b", "wav": "b.wav", "txt": "\ud800"},
        {"key": "b", "wav": b"RIFF", "txt": ""},
        {"key": "a", "wav": "again.wav", "txt": ""},
        {"key": "b", "wav": "b.wav", "txt": "", "start": 1, "end": 1},
    ],
)
def test_bad_input_leaves_the_old_list(tmp_path: Path, bad: dict) -> None:  # type: ignore[type-arg]
    path = tmp_path / "data.list"
    good = {"key": "a", "wav": "a.wav", "txt": "hi"}
    write_raw_list([good], path)
    before = path.read_bytes()
    with pytest.raises(OsumError, match=f"data.list: {bad['key']}"):
        write_raw_list([good, bad], path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["data.list"]
