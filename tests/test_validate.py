"""The validator finds every fault at once, says where and what to do, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from wenet_osum.bin import validate
from wenet_osum.dataset.validate import survey_data_dir, validate_data_dir
from wenet_osum.tasks import load_tasks

TASKS = load_tasks()


def wav(path: Path, seconds: float = 1.0) -> Path:
    sf.write(
        path, np.sin(np.arange(round(seconds * 8000)) / 10).astype(np.float32) / 2, 8000, subtype="PCM_16"
    )
    return path


def make_dir(path: Path, **files: str) -> Path:
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name.replace("_scp", ".scp")).write_text(content, encoding="utf-8")
    return path


def good_dir(path: Path) -> Path:
    data = make_dir(
        path,
        wav_scp="a a.wav\nb cat " + str(path / "b.wav") + " |\n",
        text="a 你好 world\nb hello\n",
        ctm="a 1 0 0.3 你好\na 1 0.3 0.71 World\n",
        utt2emotion="a happy\nb other\n",
        utt2dur="a 1.0\n",
        utt2spk="a s\nb t\n",
        spk2gender="s f\nt m\n",
    )
    wav(data / "a.wav")
    wav(data / "b.wav", 2.0)
    return data


def lines(data: Path, faults: list) -> list[str]:  # type: ignore[type-arg]
    return [f"{f.where.removeprefix(f'{data}/')}: {f.what}" for f in faults]


def test_good_dir(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = good_dir(tmp_path / "d")
    survey = survey_data_dir(data, TASKS, num_workers=2)
    assert survey.faults == []
    assert (survey.utterances, survey.seconds) == (2, 3.0)
    names = ("asr", "srwt", "ser", "ser_only", "sgc", "sgc_only")
    assert {n: survey.offered[n] for n in names} == dict(zip(names, (2, 1, 2, 2, 2, 2), strict=True))
    assert validate.main([str(data)]) == 0
    assert "0 faults, 2 utterances, 0.001 h; tasks: asr 2, srwt 1" in capsys.readouterr().out


def test_bad_input_all_faults_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = good_dir(tmp_path / "d")
    make_dir(
        data,
        wav_scp="a a.wav\nb false |\nc c.wav\nd d.wav\ne e.wav\nf f.wav\ng a.wav\na a.wav\n",
        text="a 你好 world\nb hello\ng x < y\nz who\n",
        utt2emotion="a furious\nq happy\n",
        utt2dur="a 3.0\ng inf\n",
        ctm="a 1 0 0.3 你好\na 1 0.8 0.71 Word\n",
    )
    (data / "utt2reply").write_bytes(b"a \xff\xfe\n")
    (data / "utt2event").write_bytes(b"")
    (data / "d.wav").write_bytes((data / "a.wav").read_bytes()[:-100])
    (data / "e.wav").write_bytes(b"")
    sf.write(data / "f.wav", np.full(100, np.nan, np.float32), 8000, subtype="FLOAT")
    before = {p: p.read_bytes() for p in data.iterdir()}
    faults = validate_data_dir(data, TASKS)
    known = f"is not in {data}/wav.scp"
    assert lines(data, faults) == [
        "wav.scp:8: id a again (first in line 1)",
        "utt2event: empty file",
        "utt2reply:1: not UTF-8 (byte 3)",
        f"text:4: id z {known}",
        f"utt2emotion:2: id q {known}",
        "utt2dur:2: duration inf",
        "utt2emotion:1: 'furious' is no emotion",
        "wav.scp:2: audio of b: pipe failed: false |: exit status 1",
        "wav.scp:3: audio of c: missing: c.wav: no such file",
        "wav.scp:4: audio of d: truncated: 7950 samples where 8000 are declared; cut off or corrupt",
        "wav.scp:5: audio of e: empty: zero bytes",
        "wav.scp:6: audio of f: nan: samples that are not finite numbers",
        "utt2dur:1: a is said to have 3 s and has 1.000 s",
        "ctm:2: a: Word ends at 1.51 s and the utterance at 1.000 s",
        "ctm:1: a: word 3 is word, and in text world",
        "text:3: g: '<' or '>' in 'x<y'",
    ]
    assert all(f.mend for f in faults)
    assert validate.main([str(data), "--num_threads", "3"]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[:-1] == [str(f) for f in faults]
    assert {p: p.read_bytes() for p in data.iterdir()} == before


def test_bad_input_segments(tmp_path: Path) -> None:
    data = make_dir(
        tmp_path / "d",
        wav_scp="r r.wav\n",
        segments="u r 0 0.5\nv r 0.5 1.3\nw r 0.5 1.6\nx r 1.5 2\ny r 0.9 0.2\nz r 0.5 -1\n",
        text="u one\nv two\nw three\nx four\nz six\n",
    )
    wav(data / "r.wav")
    survey = survey_data_dir(data, TASKS)
    assert lines(data, survey.faults) == [
        "segments:5: segment from 0.9 s to 0.2 s",
        "segments:3: segment from 0.5 s to 1.6 s of a recording that has 1.000 s",
        "segments:4: segment from 1.5 s to 2 s of a recording that has 1.000 s",
    ]
    assert survey.utterances == 5


def test_bad_input_words_out_of_order_or_missing(tmp_path: Path) -> None:
    data = good_dir(tmp_path / "d")
    make_dir(data, ctm="a 1 0.5 0.2 你好\na 1 0.1 0.2 world\nb 1 0 0.1 hello\nb 1 0.1 0.1 you\n")
    assert lines(data, validate_data_dir(data, TASKS)) == [
        "ctm:2: a: world at 0.1 s comes before 你好 in line 1",
        "ctm:3: b: word 2 is you, and in text the end",
    ]


def test_bad_input_without_audio_check(tmp_path: Path) -> None:
    data = good_dir(tmp_path / "d")
    (data / "a.wav").unlink()
    assert validate.main([str(data), "--no_audio"]) == 0
    assert [f.where for f in validate_data_dir(data, TASKS)] == [f"{data}/wav.scp:1"]


def test_bad_input_dirs_with_nothing_to_learn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_dir(tmp_path / "d", wav_scp="a a.wav\n")
    wav(data / "a.wav")
    assert lines(data, validate_data_dir(data, TASKS)) == [f"{data}: no transcripts and no labels"]
    assert validate.main([str(tmp_path / "none")]) == 1
    assert "none: no such data dir; check the path" in capsys.readouterr().out
