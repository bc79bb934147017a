"""ESPnet2's ``dump/raw/SET``, written as ESPnet writes it, and answers as ESPnet's and Kaldi's scoring read them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile as sf
from helpers import command, one_error_line, run_config, stage2_config, write_corpus

from wenet_osum.bin import make_raw_list, make_shard_list, train, validate
from wenet_osum.dataset.audio import load_audio
from wenet_osum.dataset.index import audio_source
from wenet_osum.dataset.index_build import Corpus, cut_corpus
from wenet_osum.dataset.index_parts import read_span
from wenet_osum.dataset.kaldi import read_data_dir
from wenet_osum.dataset.validate import survey_data_dir
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.tasks import load_tasks

ROOT = Path(__file__).resolve().parents[1]
TASKS = load_tasks()
RATE = 16000
TEXTS = {"s1-u1": "open the door", "s1-u2": "今天天气好", "s2-u3": "no", "s2-u4": "where is my blue hat"}
SECONDS = dict(zip(TEXTS, (0.5, 0.725, 0.3, 1.0), strict=True))
FORMATS = ["flac", "wav", "flac.ark", "wav.ark"]


def wave(key: str) -> np.ndarray:
    """16-bit samples as float64, which is what ESPnet's scripts hand to their writers."""
    rng = np.random.default_rng(list(TEXTS).index(key))
    return rng.integers(-9000, 9000, round(SECONDS[key] * RATE)) / 32768


def make_dump(recipe: Path, audio_format: str, name: str = "test") -> Path:
    """What stage 3 of ``asr.sh`` leaves of a data dir: audio in two parts, paths relative to the recipe."""
    data = recipe / "dump/raw" / name
    scp: list[str] = []
    for part in (1, 2):
        keys = list(TEXTS)[2 * part - 2 : 2 * part]
        out = Path("dump/raw") / name / f"data/format.{part}"
        (recipe / out).mkdir(parents=True)
        for key in keys:
            if audio_format.endswith("ark"):
                with (
                    open(recipe / out / "data_wav.ark", "ab") as ark,
                    open(recipe / out / "wav.scp", "a") as s,
                ):
                    kaldiio.save_ark(
                        ark,
                        {key: (wave(key), RATE)},
                        scp=s,
                        append=True,
                        write_function="soundfile",
                        write_kwargs={"format": audio_format.removesuffix(".ark"), "subtype": None},
                    )
            else:
                sf.write(recipe / out / f"{key}.{audio_format}", wave(key), RATE)
                scp.append(f"{key} {out / key}.{audio_format}\n")
        if audio_format.endswith("ark"):
            lines = (recipe / out / "wav.scp").read_text()
            scp.append(lines.replace(f"{recipe}/", ""))
    files = {
        "wav.scp": "".join(scp),
        "text": "".join(f"{key} {text}\n" for key, text in TEXTS.items()),
        "utt2spk": "".join(f"{key} {key[:2]}\n" for key in TEXTS),
        "spk2utt": "s1 s1-u1 s1-u2\ns2 s2-u3 s2-u4\n",
        "utt2num_samples": "".join(f"{key} {len(wave(key))}\n" for key in TEXTS) + "s9-without-text 8000\n",
        "reco2file_and_channel": "".join(f"{key} {key} A\n" for key in TEXTS),
        "feats_type": "raw\n",
        "audio_format": f"{audio_format}\n",
    }
    for file, content in files.items():
        (data / file).write_text(content, encoding="utf-8")
    return data


@pytest.mark.parametrize("where", ["the recipe", "elsewhere"])
@pytest.mark.parametrize("audio_format", FORMATS)
def test_dump_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, audio_format: str, where: str) -> None:
    data = make_dump(tmp_path / "asr1", audio_format)
    monkeypatch.chdir(tmp_path / "asr1" if where == "the recipe" else tmp_path)
    data = Path(os.path.relpath(data))
    survey = survey_data_dir(data, TASKS)
    assert survey.faults == []
    assert survey.seconds == pytest.approx(sum(SECONDS.values()))
    samples = read_data_dir(data, TASKS)
    assert {s["key"]: s["txt"] for s in samples} == TEXTS
    assert {s["key"]: s["duration"] for s in samples} == SECONDS
    assert [s["speaker"] for s in samples] == ["s1", "s1", "s2", "s2"]
    for sample in samples:
        assert (load_audio(sample["wav"], key=sample["key"]) == wave(sample["key"])).all()


@pytest.mark.parametrize("data_type", ["raw", "shard", "shard_full_data"])
@pytest.mark.parametrize("audio_format", ["flac", "flac.ark"])
def test_lists_and_shards_of_a_dump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, audio_format: str, data_type: str
) -> None:
    data = make_dump(tmp_path / "asr1", audio_format)
    monkeypatch.chdir(tmp_path)
    if data_type == "raw":
        make_raw_list.main(["--data_dir", str(data), "data.list"])
    else:
        make_shard_list.main(["--data_dir", str(data), "--shard_type", data_type, "shards", "data.list"])
    spans = cut_corpus(Corpus("data.list", data_type), 0, "")
    samples = [sample for span in spans for _, sample in read_span(span)]
    assert {s["key"]: s["txt"] for s in samples} == TEXTS
    assert {s["key"]: s["duration"] for s in samples} == SECONDS
    for sample in samples:
        assert (load_audio(audio_source(sample)) == wave(sample["key"])).all()


def test_durations_come_from_utt2dur_then_segments_then_sample_counts(tmp_path: Path) -> None:
    sf.write(tmp_path / "r.wav", np.zeros(RATE), RATE)
    files = {
        "wav.scp": "r r.wav\n",
        "segments": "a r 0 0.5\nb r 0.5 0.75\nc r 0.25 -1\n",
        "text": "a x\nb x\nc x\n",
        "utt2num_samples": "a 1\nb 2\nc 12000\n",
        "utt2dur": "a 0.55\n",
    }
    for file, content in files.items():
        (tmp_path / file).write_text(content)
    assert [s["duration"] for s in read_data_dir(tmp_path, TASKS)] == [0.55, 0.25, 0.75]


def test_no_audio_is_opened_but_a_few_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sf.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    keys = [f"u{n:03}" for n in range(100)]
    (tmp_path / "wav.scp").write_text("".join(f"{key} a.wav\n" for key in keys))
    (tmp_path / "utt2num_samples").write_text("".join(f"{key} {RATE}\n" for key in keys))
    opened: list[object] = []
    monkeypatch.setattr(sf, "SoundFile", lambda f, real=sf.SoundFile: opened.append(f) or real(f))
    assert {s["duration"] for s in read_data_dir(tmp_path, TASKS)} == {1.0}
    assert 10 <= len(opened) <= 16


def test_pipes_are_not_run_for_their_rate(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text(f"a touch {tmp_path}/ran; cat a.wav |\n")
    (tmp_path / "utt2num_samples").write_text("a 16000\n")
    assert "duration" not in read_data_dir(tmp_path, TASKS)[0]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["fbank_pitch", "extracted", ""])
def test_bad_input_features_are_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    data = make_dump(tmp_path, "flac")
    (data / "feats_type").write_text(f"{kind}\n")
    (data / "wav.scp").write_text("s1-u1 <DUMMY>\n")
    what = f"{data}/feats_type:1: feats_type is {kind!r}: features, not audio; give a dir that ESPnet made"
    assert command(make_raw_list.main, "--data_dir", data, tmp_path / "x.list") == 1
    assert what in one_error_line(capsys.readouterr().err)
    assert not (tmp_path / "x.list").exists()
    assert command(validate.main, data) == 1
    out = capsys.readouterr().out
    assert what in out and "1 faults, 0 utterances" in out


def test_bad_input_sample_counts_of_other_audio(tmp_path: Path) -> None:
    data = make_dump(tmp_path, "flac")
    scp = (data / "wav.scp").read_text()
    (data / "wav.scp").write_text(scp.replace("dump/", f"{tmp_path}/dump/"))
    (data / "utt2num_samples").write_text("s1-u1 16000\ns1-u2 eleven\ns2-u3 4800\ns2-u4 0\n")
    faults = survey_data_dir(data, TASKS).faults
    assert [str(f).removeprefix(f"{data}/") for f in faults] == [
        "utt2num_samples:2: 'eleven' is no number of samples; give a whole number above 0",
        "utt2num_samples:4: '0' is no number of samples; give a whole number above 0",
        "utt2num_samples:1: s1-u1 is said to have 16000 samples and has 8000; "
        "make utt2num_samples anew, or remove it",
    ]
    with pytest.raises(OsumError, match="utt2num_samples:2: 'eleven'"):
        read_data_dir(data, TASKS)


def test_bad_input_sample_count_that_no_probe_met(tmp_path: Path) -> None:
    """The second of thirty recordings is at half the rate; its header is not among those that are read."""
    keys = [f"u{n:03}" for n in range(30)]
    for key in keys:
        sf.write(tmp_path / f"{key}.wav", np.zeros(8000), 8000 if key == "u001" else RATE)
    (tmp_path / "wav.scp").write_text("".join(f"{key} {key}.wav\n" for key in keys))
    (tmp_path / "text").write_text("".join(f"{key} x\n" for key in keys))
    (tmp_path / "utt2num_samples").write_text("".join(f"{key} 8000\n" for key in keys))
    (fault,) = survey_data_dir(tmp_path, TASKS).faults
    assert fault.where == f"{tmp_path}/utt2num_samples:2"
    assert fault.what == "u001 is said to have 8000 samples, 0.5 s, and has 1.000 s"


def test_bad_input_several_rates(tmp_path: Path) -> None:
    for key, rate in (("a", 8000), ("b", RATE)):
        sf.write(tmp_path / f"{key}.wav", np.zeros(8000), rate)
    (tmp_path / "wav.scp").write_text("a a.wav\nb b.wav\n")
    (tmp_path / "text").write_text("a x\nb x\n")
    (tmp_path / "utt2num_samples").write_text("a 8000\nb 8000\n")
    with pytest.raises(OsumError, match="a has 8000 samples a second and b 16000, so .*; give utt2dur, or"):
        read_data_dir(tmp_path, TASKS)
    assert survey_data_dir(tmp_path, TASKS).seconds == 1.5  # by the audio


def test_bad_input_cut_ark(tmp_path: Path) -> None:
    data = make_dump(tmp_path, "flac.ark")
    ark = data / "data/format.2/data_wav.ark"
    ark.write_bytes(ark.read_bytes()[:-100])
    last = (data / "wav.scp").read_text().split()[-1]
    with pytest.raises(BadUtterance, match="truncated: .*the ark ends inside it"):
        load_audio(str(tmp_path / last))
    with pytest.raises(BadUtterance, match="unreadable: .*no audio at this offset"):
        load_audio(f"{ark}:3")


# ---- answers ------------------------------------------------------------------------------------


def read_as_kaldi(text: str) -> dict[str, list[str]]:
    """Kaldi's token vectors in an ``ark``: an id, one blank, tokens between white space, a line end."""
    table: dict[str, list[str]] = {}
    for line in text.splitlines(keepends=True):
        match = re.fullmatch(r"(\S+)[ \t]([^\n]*)\n", line)
        assert match and match[1] not in table
        table[match[1]] = match[2].split()
    return table


def read_as_espnet(text: str, utt2spk: str) -> list[tuple[str, str]]:
    """``cut -d" " -f2-`` of every line, pasted beside the ids of ``utt2spk`` line by line."""
    shell = "set -euo pipefail; printf '%s' \"$TEXT\" | cut -d' ' -f2-"
    env = {**os.environ, "TEXT": text}
    out = subprocess.run(["bash", "-c", shell], env=env, capture_output=True, text=True, check=True).stdout
    keys = [line.split()[0] for line in utt2spk.splitlines()]
    return list(zip(keys, out.splitlines(), strict=True))


def test_answers_are_read_by_kaldis_and_espnets_rules(tmp_path: Path) -> None:
    from wenet_osum.decode.results import answer_files, answer_row

    texts = {"b": "hello  world\n", "a": "你好\u3000吗", "c": "", "d": " a\u2028b\t"}
    with answer_files(tmp_path / "llm_greedy") as add:
        for key, answer in texts.items():
            add(answer_row(key, TASKS["asr"], answer))
    text = (tmp_path / "llm_greedy/text").read_text(encoding="utf-8")
    assert text == "b hello world\na 你好 吗\nc \nd a b\n"  # the order of the list
    assert read_as_kaldi(text) == {"b": ["hello", "world"], "a": ["你好", "吗"], "c": [], "d": ["a", "b"]}
    by_key = subprocess.run(
        ["sort", "-k1,1"], input=text, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True
    ).stdout
    assert list(read_as_kaldi(by_key)) == ["a", "b", "c", "d"]  # for readers that want ark,s,cs
    assert read_as_espnet(text, "b s\na s\nc s\nd s\n") == [
        ("b", "hello world"),
        ("a", "你好 吗"),
        ("c", ""),
        ("d", "a b"),
    ]


# ---- docs/from-espnet.md -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.integration
def test_commands_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs/from-espnet.md").read_text(encoding="utf-8")
    commands = re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S)
    assert len(commands) == 3
    egs = tmp_path / "espnet/egs2/aishell/asr1"
    data = make_dump(egs, "flac.ark")
    corpus = write_corpus(tmp_path / "corpus")
    config = run_config(tmp_path, stage2_config())
    trained = tmp_path / "examples/osum/exp/tiny"
    args = ["--train_data", corpus, "--cv_data", corpus, "--tensorboard_dir", tmp_path / "tensorboard"]
    assert command(train.main, "--config", config, "--model_dir", trained, "--num_threads", 1, *args) == 0
    recipe = tmp_path / "examples/osum"
    for name in ("run.sh", "path.sh", "parse_options.sh", "stoppable.sh"):
        (recipe / name).symlink_to(ROOT / "examples/osum" / name)
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "ESPNET": str(egs),
    }
    for block in commands:
        shell = ["bash", "-euo", "pipefail", "-c", block]
        done = subprocess.run(shell, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    decoded = recipe / "exp/tiny/decode_test"
    assert json.loads((decoded / "scores.json").read_text())["asr"]["counts"]["utterances"] == len(TEXTS)

    # What ESPnet pairs line by line: every id of utt2spk, in its order.
    there = (egs / "exp/osum/llm_greedy/test/text").read_text(encoding="utf-8")
    assert list(read_as_kaldi(there)) == list(TEXTS)
    answers = (tmp_path / "decode/llm_greedy/text").read_text(encoding="utf-8")
    assert read_as_kaldi(there) == read_as_kaldi(answers)

    # In upper case, as the page says it for such references.
    fold = re.findall(r"put `(.*?)` in the place of `\$0`", page)[0]
    folded = commands[2].replace("= $0;", f"= {fold};")
    assert folded != commands[2]
    subprocess.run(["bash", "-euc", folded], cwd=tmp_path, env=env, check=True)
    upper = (egs / "exp/osum/llm_greedy/test/text").read_text(encoding="utf-8")
    assert read_as_kaldi(upper) == {k: [w.upper() for w in v] for k, v in read_as_kaldi(there).items()}

    # An utterance that was set aside has an empty line there, whatever the order of the answers.
    lines = answers.splitlines(keepends=True)
    (tmp_path / "decode/llm_greedy/text").write_text("".join(reversed(lines[1:])), encoding="utf-8")
    subprocess.run(["bash", "-euc", commands[2]], cwd=tmp_path, env=env, check=True)
    there = (egs / "exp/osum/llm_greedy/test/text").read_text(encoding="utf-8")
    assert there.splitlines(keepends=True) == [f"{next(iter(TEXTS))} \n", *lines[1:]]
    read_as_espnet(there, (data / "utt2spk").read_text())
