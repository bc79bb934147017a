"""Kaldi data dirs: every file of theirs, and what the reader says of a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

from wenet_osum.bin import make_raw_list
from wenet_osum.dataset.kaldi import read_data_dir, read_scp
from wenet_osum.errors import OsumError
from wenet_osum.tasks import load_tasks

TASKS = load_tasks()


def make_dir(path: Path, **files: str) -> Path:
    """A data dir with these files; ``wav_scp`` stands for ``wav.scp``."""
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name.replace("_scp", ".scp")).write_text(content, encoding="utf-8")
    return path


def test_every_file(tmp_path: Path) -> None:
    data = make_dir(
        tmp_path / "d",
        wav_scp="b  sox b.sph -t wav - |\na\t/x/a.wav\nc /x/all.ark:17\nd /x/d.wav\n",
        text="a  Hello World \nb 你好 ok\nc\n",
        utt2spk="a s1\nb s2\nc s2\n",
        utt2dur="a 1.5 \n",
        utt2lang="a en-GB\n",
        utt2emotion="a HAPPY\nb sad\n",
        utt2style="b 客服\n",
        utt2event="c throat clearing\n",
        spk2gender="s1 f\ns2 m\n",
        utt2gender="c female\n",
        utt2age="a 30\nb child\n",
        utt2reply="a And hello to you.\n",
        utt2question="a Who greets?\n",
        ctm=";; made by hand\na 1 0.1 0.2 Hello\na 1 0.4 0.30 World 0.99\na 1 0.7 0.1 <eps>\n",
    )
    assert read_data_dir(data, TASKS) == [
        {
            "key": "b",
            "wav": "sox b.sph -t wav - |",
            "txt": "你好 ok",
            "lang": "zh",
            "speaker": "s2",
            "emotion": "sad",
            "style": "客服",
            "gender": "male",
            "age": "child",
        },
        {
            "key": "a",
            "wav": "/x/a.wav",
            "txt": "Hello World",
            "duration": 1.5,
            "lang": "en",
            "speaker": "s1",
            "emotion": "happy",
            "gender": "female",
            "age": "adult",
            "reply": "And hello to you.",
            "question": "Who greets?",
            "align": [[0.1, 0.3, "Hello"], [0.4, 0.7, "World"]],
        },
        # Nothing is said in c; the utterance's own label goes before its speaker's.
        {
            "key": "c",
            "wav": "/x/all.ark:17",
            "txt": "",
            "speaker": "s2",
            "event": "throat clearing",
            "gender": "female",
        },
        # Nobody wrote down what is said in d.
        {"key": "d", "wav": "/x/d.wav"},
    ]


def test_segments_and_spk2utt(tmp_path: Path) -> None:
    data = make_dir(
        tmp_path / "d",
        wav_scp="r1 /x/1.wav\nr2 /x/2.wav\n",
        segments="u2 r2 0 1.25\nu1 r1 0.1 0.4\nu3 r1 0.5 -1\n",
        text="u1 one\nu2 two\n",
        spk2utt="s u1 u3\n",
    )
    assert read_data_dir(data, TASKS) == [
        {
            "key": "u2",
            "wav": "/x/2.wav",
            "start": 0.0,
            "end": 1.25,
            "txt": "two",
            "duration": 1.25,
            "lang": "en",
        },
        {
            "key": "u1",
            "wav": "/x/1.wav",
            "start": 0.1,
            "end": 0.4,
            "txt": "one",
            "duration": 0.3,
            "lang": "en",
            "speaker": "s",
        },
        {"key": "u3", "wav": "/x/1.wav", "start": 0.5, "speaker": "s"},
    ]


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d" / "wav").mkdir(parents=True)
    for name in ("d/wav/a.wav", "d/b.ark", "here.wav"):
        (tmp_path / name).write_bytes(b"")
    data = make_dir(
        tmp_path / "d", wav_scp="a wav/a.wav\nb b.ark:5\nc here.wav\nd gone.wav\ne cat wav/a.wav |\n"
    )
    monkeypatch.chdir(tmp_path)
    for given, root in ((Path("d"), "d"), (data, str(data))):
        wavs = [s["wav"] for s in read_data_dir(given, TASKS)]
        assert wavs == [f"{root}/wav/a.wav", f"{root}/b.ark:5", "here.wav", "gone.wav", "cat wav/a.wav |"]


def test_other_white_space_belongs_to_the_text(tmp_path: Path) -> None:
    data = make_dir(tmp_path / "d", wav_scp="a\u3000b x.wav\r\n", text="a\u3000b 你\u3000好\u2028吗\r\n")
    (sample,) = read_data_dir(data, TASKS)
    assert sample["key"] == "a\u3000b" and sample["txt"] == "你\u3000好\u2028吗" and sample["wav"] == "x.wav"


def test_a_ninth_label_has_its_file(tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text(
        "room:\n"
        "  tag: <TRANSCRIBE> <ROOM>\n"
        "  label: {name: room, atom: ROOM, file: utt2room, spk_file: spk2room, values: [hall, car], "
        "aliases: {auto: car}}\n"
        "  prompts: {en: [a, b, c, d, e], zh: [一, 二, 三, 四, 五]}\n",
        encoding="utf-8",
    )
    files = {"wav_scp": "a x\nb y\n", "text": "a hi\nb ho\n", "utt2room": "a auto\n"}
    data = make_dir(tmp_path / "d", **files, spk2room="s hall\n", utt2spk="b s\n")
    tasks = load_tasks(more)
    first, second = read_data_dir(data, tasks)
    assert (first["room"], second["room"]) == ("car", "hall")
    assert [t.name for t in tasks.offered(first)] == ["asr", "room"]


def test_wenet_form_is_byte_for_byte_wenets(tmp_path: Path) -> None:
    data = make_dir(
        tmp_path / "d", wav_scp="r1 /x/1.wav\n", segments="u1 r1 0.1 0.4\nu2 r1 1 2\n", text="u2 你 好\nu1\n"
    )
    out = tmp_path / "out" / "data.list"
    paths = [str(data / "wav.scp"), str(data / "text"), str(out)]
    assert make_raw_list.main(["--segments", str(data / "segments"), *paths]) == 0
    assert out.read_text(encoding="utf-8") == (
        '{"key": "u2", "wav": "/x/1.wav", "txt": "你 好", "start": 1.0, "end": 2.0}\n'
        '{"key": "u1", "wav": "/x/1.wav", "txt": "", "start": 0.1, "end": 0.4}\n'
    )
    make_dir(tmp_path / "d", wav_scp="u1 /x/1.wav\nu2 /x/2.wav\n")
    assert make_raw_list.main(paths) == 0
    assert out.read_text(encoding="utf-8") == (
        '{"key": "u2", "wav": "/x/2.wav", "txt": "你 好"}\n{"key": "u1", "wav": "/x/1.wav", "txt": ""}\n'
    )


GOOD = {"wav_scp": "a x.wav\nb y.wav\n", "text": "a hi\nb ho\n"}


@pytest.mark.parametrize(
    ("files", "where", "what"),
    [
        ({"text": "a hi\nz ho\n"}, "text:2", "id z is not in"),
        ({"text": ""}, "text", "empty file"),
        ({"wav_scp": ""}, "wav.scp", "empty file"),
        ({"text": "a hi\n\nb ho\n"}, "text:2", "blank line"),
        ({"text": "a hi\na ho\n"}, "text:2", r"id a again \(first in line 1\)"),
        ({"wav_scp": "a x.wav\nb\n"}, "wav.scp:2", "no value after id b"),
        (
            {"utt2emotion": "a happy\nb furious\n"},
            "utt2emotion:2",
            "'furious' is no emotion; use one of: sad, ",
        ),
        ({"utt2age": "a nan\n"}, "utt2age:1", "'nan' is no age"),
        ({"utt2dur": "a nan\n"}, "utt2dur:1", "duration nan"),
        ({"utt2dur": "a 0\n"}, "utt2dur:1", "duration 0"),
        ({"utt2dur": "a 1.5s\n"}, "utt2dur:1", "duration 1.5s"),
        ({"utt2reply": "q Yes.\n"}, "utt2reply:1", "id q is not in"),
        ({"segments": "a x 0\n"}, "segments:1", "cannot read"),
        ({"segments": "a a 0 nan\n"}, "segments:1", "cannot read"),
        ({"segments": "u a 0 1\nv c 0 1\n"}, "segments:2", "id c is not in"),
        ({"segments": "u a 2 1\n"}, "segments:1", "from 2 s to 1 s"),
        ({"ctm": "a 1 0.1 hi\n"}, "ctm:1", "4 fields"),
        ({"ctm": "a 1 x 0.1 hi\n"}, "ctm:1", "start x"),
        ({"ctm": "a 1 -1 0.1 hi\n"}, "ctm:1", "start -1"),
        ({"ctm": "a 1 0 0.1 hi\nz 1 0 0.1 hi\n"}, "ctm:2", "id z is not in"),
        ({"spk2gender": "s f\n"}, "spk2gender", "no utt2spk"),
        ({"utt2spk": "a s\nb s\n", "spk2utt": "s a\nt b\n"}, "spk2utt:2", "b is said to be of t"),
        ({"spk2utt": "s a\nt q\n"}, "spk2utt:2", "id q is not in"),
        ({"utt2spk": "a s\n", "spk2gender": "s f\nt m\n"}, "spk2gender:2", "id t is not in"),
        ({"utt2dur": "a 1e308\n"}, "utt2dur:1", "duration 1e308"),
        ({"segments": "u a 0 1e300\n"}, "segments:1", "cannot read"),
        ({"utt2age": "a " + "9" * 5000 + "\n"}, "utt2age:1", "'9{79} is no age"),
    ],
)
def test_bad_input_data_dir(tmp_path: Path, files: dict[str, str], where: str, what: str) -> None:
    data = make_dir(tmp_path / "d", **{**GOOD, **files})
    with pytest.raises(OsumError, match=what) as e:
        read_data_dir(data, TASKS)
    assert e.value.where == f"{data}/{where}"
    assert e.value.mend


def test_bad_input_not_utf8_and_bom(tmp_path: Path) -> None:
    data = make_dir(tmp_path / "d", **GOOD)
    (data / "text").write_bytes("a hi\nb 你好\n".encode("gbk"))
    with pytest.raises(OsumError, match="text:2: not UTF-8"):
        read_data_dir(data, TASKS)
    (data / "text").write_bytes("a hi\nb 你好\n".encode("utf-8-sig"))
    with pytest.raises(OsumError, match="text:1: begins with a byte-order mark"):
        read_data_dir(data, TASKS)


def test_bad_input_missing_files(tmp_path: Path) -> None:
    with pytest.raises(OsumError, match="no such data dir"):
        read_data_dir(tmp_path / "none", TASKS)
    data = make_dir(tmp_path / "d", text="a hi\n")
    with pytest.raises(OsumError, match=r"wav\.scp: no such file"):
        read_data_dir(data, TASKS)
    make_dir(data, **GOOD)
    with pytest.raises(OsumError, match="nowhere: no such file"):
        read_scp(data / "wav.scp", data / "nowhere")
    (data / "text").write_text("q hi\n")
    with pytest.raises(OsumError, match="text:1: id q is not in"):
        read_scp(data / "wav.scp", data / "text")


def test_bad_input_folder_or_broken_link_for_a_file(tmp_path: Path) -> None:
    """Kaldi dirs are full of links; labels behind a broken one must not be left out in silence."""
    data = make_dir(tmp_path / "d", **GOOD)
    (data / "utt2emotion").symlink_to(tmp_path / "gone")
    with pytest.raises(OsumError, match="utt2emotion: a folder or a broken link"):
        read_data_dir(data, TASKS)
    (data / "utt2emotion").unlink()
    (data / "ctm").mkdir()
    with pytest.raises(OsumError, match="ctm: a folder or a broken link"):
        read_data_dir(data, TASKS)
