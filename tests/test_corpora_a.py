"""local/prepare_*.py of the speech corpora on miniatures of their official layouts."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from corpus_miniatures import (
    aishell1,
    aishell2,
    assert_valid,
    common_voice,
    dir_text,
    kaggle_common_voice,
    librispeech,
    rows_of,
    wenetspeech,
    write_lines,
)
from helpers import command, one_error_line

from wenet_osum.tasks import load_tasks

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "local"))
import prepare_aishell1
import prepare_aishell2
import prepare_common_voice
import prepare_librispeech
import prepare_wenetspeech
from corpora import Corpus, Found, Out, Utterance, half_width
from corpora.kaldi_dir import write_kaldi_dir

from wenet_osum.errors import OsumError

LOCAL = Path(prepare_librispeech.__file__).parent
SCRIPTS = [
    prepare_librispeech,
    prepare_aishell1,
    prepare_aishell2,
    prepare_wenetspeech,
    prepare_common_voice,
]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def prepare(script: ModuleType, root: Path, out: Path, *more: str) -> None:
    assert command(script.main, root, out, *more) == 0


def refused(script: ModuleType, capsys: pytest.CaptureFixture[str], root: Path, out: Path, *more: str) -> str:
    """The error line of a script that ends on one; it leaves nothing behind."""
    assert command(script.main, root, out, *more) == 1
    assert not out.exists() and not list(out.parent.glob(".out*"))
    return one_error_line(capsys.readouterr().err)


# LibriSpeech


def test_corpus_layout_librispeech(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = librispeech(tmp_path / "LibriSpeech")
    prepare(prepare_librispeech, root, out, "--allow_partial")
    assert [p.name for p in sorted(out.iterdir())] == ["left_out.tsv", "test-clean", "test-other"]
    assert dir_text(out / "test-clean", root) == {
        "spk2gender": "1089 male\n121 female\n",
        "spk2utt": "1089 1089-134686-0000 1089-134686-0001\n121 121-123852-0000\n",
        "text": "1089-134686-0000 HE HOPED THERE WOULD BE STEW\n1089-134686-0001 NO\n"
        "121-123852-0000 THOSE PRETTY WRONGS\n",
        "utt2lang": "1089-134686-0000 en\n1089-134686-0001 en\n121-123852-0000 en\n",
        "utt2spk": "1089-134686-0000 1089\n1089-134686-0001 1089\n121-123852-0000 121\n",
        "wav.scp": "1089-134686-0000 ROOT/test-clean/1089/134686/1089-134686-0000.flac\n"
        "1089-134686-0001 ROOT/test-clean/1089/134686/1089-134686-0001.flac\n"
        "121-123852-0000 ROOT/test-clean/121/123852/121-123852-0000.flac\n",
    }
    assert (out / "left_out.tsv").read_text() == ""
    for subset in ("test-clean", "test-other"):
        assert_valid(out / subset)
    printed = capsys.readouterr().out
    assert "test-clean: 3 of 3 items used; 2620 are published" in printed
    assert "train-clean-100: not there" in printed


def test_corpus_layout_librispeech_broken(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = librispeech(tmp_path / "LibriSpeech")
    chapter = root / "test-clean/1089/134686"
    one = ("--subsets", "test-clean")
    line = refused(prepare_librispeech, capsys, root, out, *one)
    assert "other counts than published: test-clean has 3 items, not 2620; get the whole" in line
    line = refused(prepare_librispeech, capsys, root, out, "--subsets", "dev-clean")
    assert "dev-clean: no such folder; unpack dev-clean.tar.gz" in line
    line = refused(prepare_librispeech, capsys, root, out, "--subsets", "test")
    assert "no subset 'test' in LibriSpeech; take some of test-clean," in line
    assert "no such folder; get LibriSpeech from" in refused(
        prepare_librispeech, capsys, tmp_path / "none", out
    )
    assert "no utterance of LibriSpeech in it" in refused(
        prepare_librispeech, capsys, tmp_path, out, "--allow_partial"
    )

    write_lines(root / "SPEAKERS.TXT", "1089 | M | test-clean | 8.03 | Peter", "121 | X | test-clean | 8 | N")
    assert "SPEAKERS.TXT:2: unknown gender 'X'; known are 'F', 'M'" in refused(
        prepare_librispeech, capsys, root, out, *one
    )
    write_lines(root / "SPEAKERS.TXT", "1089 | M")
    assert "SPEAKERS.TXT:1: cannot read '1089 | M'" in refused(prepare_librispeech, capsys, root, out, *one)
    write_lines(root / "SPEAKERS.TXT", "1 | M | test-clean | 8.03 | Peter")
    assert "134686.trans.txt:1: reader 1089 is not in SPEAKERS.TXT" in refused(
        prepare_librispeech, capsys, root, out, *one
    )

    librispeech(root)
    (chapter / "1089-134686-0001.flac").unlink()
    line = refused(prepare_librispeech, capsys, root, out, *one)
    assert "1089-134686.trans.txt:2: no audio file" in line and "by --allow_partial" in line
    write_lines(chapter / "1089-134686.trans.txt", "1089-134686-0000 HE", "1089-134686-0001")
    line = refused(prepare_librispeech, capsys, root, out, *one)
    assert "1089-134686.trans.txt:2: cannot read '1089-134686-0001'" in line


def test_corpus_layout_partial_lists_missing_audio(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = librispeech(tmp_path / "LibriSpeech")
    (root / "test-clean/1089/134686/1089-134686-0001.flac").unlink()
    chapter = root / "test-clean/121/123852"
    write_lines(chapter / "121-123852.trans.txt", "121-123852-0000 A <TAG>")
    prepare(prepare_librispeech, root, out, "--allow_partial", "--subsets", "test-clean")
    assert rows_of(out / "left_out.tsv") == [
        ["test-clean", "1089-134686-0001", "utterance", "no audio file"],
        ["test-clean", "121-123852-0000", "utterance", "'<' or '>' in the text, which are kept for tags"],
    ]
    assert (out / "test-clean/text").read_text() == "1089-134686-0000 HE HOPED THERE WOULD BE STEW\n"
    assert "left out: 1: no audio file" in capsys.readouterr().out


def test_corpus_layout_full_count_passes(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = librispeech(tmp_path / "LibriSpeech")
    monkeypatch.setitem(prepare_librispeech.CORPUS.published, "test-clean", 3)
    prepare(prepare_librispeech, root, out, "--subsets", "test-clean")
    assert_valid(out / "test-clean")
    assert command(prepare_librispeech.main, root, out, "--subsets", "test-clean") == 1  # there already


# AISHELL-1


def test_corpus_layout_aishell1(tmp_path: Path, out: Path) -> None:
    root = aishell1(tmp_path / "aishell")
    prepare(prepare_aishell1, root, out, "--allow_partial")
    assert [p.name for p in sorted(out.iterdir())] == ["left_out.tsv", "test", "train"]
    assert dir_text(out / "test", root) == {
        "spk2gender": "S0764 female\nS0765 male\n",
        "spk2utt": "S0764 BAC009S0764W0121\nS0765 BAC009S0765W0129\n",
        "text": "BAC009S0764W0121 甚至 出现 atm 交易\nBAC009S0765W0129 一二 线 城市\n",
        "utt2lang": "BAC009S0764W0121 zh\nBAC009S0765W0129 zh\n",
        "utt2spk": "BAC009S0764W0121 S0764\nBAC009S0765W0129 S0765\n",
        "wav.scp": "BAC009S0764W0121 ROOT/data_aishell/wav/test/S0764/BAC009S0764W0121.wav\n"
        "BAC009S0765W0129 ROOT/data_aishell/wav/test/S0765/BAC009S0765W0129.wav\n",
    }
    assert rows_of(out / "left_out.tsv") == [["test", "BAC009S0765W0999", "utterance", "no transcript"]]
    assert_valid(out / "test")


def test_corpus_layout_aishell1_broken(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = aishell1(tmp_path / "aishell")
    one = ("--subsets", "test")
    line = refused(prepare_aishell1, capsys, root, out, *one)
    assert "test has 3 items, not 7176" in line
    assert "wav/dev: no such folder; unpack data_aishell.tgz" in refused(
        prepare_aishell1, capsys, root, out, "--subsets", "dev"
    )
    (root / "data_aishell/wav/test/S0764/BAC009S0764W0121.wav").unlink()
    assert "v0.8.txt:2: no audio file" in refused(prepare_aishell1, capsys, root, out, *one)
    info = root / "resource_aishell/speaker.info"
    write_lines(info, "0764 W", "0765 M")
    assert "speaker.info:1: unknown gender 'W'" in refused(prepare_aishell1, capsys, root, out, *one)
    write_lines(info, "0764")
    assert "speaker.info:1: cannot read '0764'" in refused(prepare_aishell1, capsys, root, out, *one)
    write_lines(info, "0002 F")
    assert "v0.8.txt:2: speaker S0764 is not in speaker.info" in refused(
        prepare_aishell1, capsys, root, out, *one
    )
    info.unlink()
    assert "speaker.info: no such file" in refused(prepare_aishell1, capsys, root, out, *one)


# AISHELL-2


@pytest.mark.parametrize("short", [False, True])
def test_corpus_layout_aishell2(tmp_path: Path, out: Path, short: bool) -> None:
    root = aishell2(tmp_path / "aishell2")
    if short:  # the folder of the tests themselves
        root = root / "AISHELL-DEV-TEST-SET"
    prepare(prepare_aishell2, root, out, "--allow_partial")
    assert [p.name for p in sorted(out.iterdir())] == ["left_out.tsv", "test-android", "test-ios", "test-mic"]
    base = "ROOT/iOS/test" if short else "ROOT/AISHELL-DEV-TEST-SET/iOS/test"
    assert dir_text(out / "test-ios", root) == {
        "spk2utt": "T0011 IT0011W0001 IT0011W0002\n",
        "text": "IT0011W0001 换一首歌\nIT0011W0002 ATM在哪里\n",
        "utt2lang": "IT0011W0001 zh\nIT0011W0002 zh\n",
        "utt2spk": "IT0011W0001 T0011\nIT0011W0002 T0011\n",
        "wav.scp": f"IT0011W0001 {base}/wav/T0011/IT0011W0001.wav\n"
        f"IT0011W0002 {base}/wav/T0011/IT0011W0002.wav\n",
    }
    for channel in ("ios", "android", "mic"):
        assert_valid(out / f"test-{channel}")


def test_corpus_layout_aishell2_training_data_and_lost_texts(tmp_path: Path, out: Path) -> None:
    root = aishell2(tmp_path / "aishell2")
    data = root / "AISHELL-2/iOS/data"
    data.parent.mkdir(parents=True)
    (root / "AISHELL-DEV-TEST-SET/iOS/test").rename(data)
    write_lines(data / "trans.txt", "IT0011W0001\t换一首歌")
    prepare(prepare_aishell2, root, out, "--subsets", "train")  # no number of it is published
    assert (out / "train/text").read_text("utf-8") == "IT0011W0001 换一首歌\n"
    assert rows_of(out / "left_out.tsv") == [["train", "IT0011W0002", "utterance", "no transcript"]]


def test_corpus_layout_aishell2_broken(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = aishell2(tmp_path / "aishell2")
    one = ("--subsets", "test-mic")
    folder = root / "AISHELL-DEV-TEST-SET/Mic/test"
    assert "test-mic has 2 items, not 5000" in refused(prepare_aishell2, capsys, root, out, *one)
    assert "Mic/dev: no such folder" in refused(prepare_aishell2, capsys, root, out, "--subsets", "dev-mic")
    (folder / "wav/T0011/MT0011W0002.wav").unlink()
    assert "wav.scp:2: no audio file" in refused(prepare_aishell2, capsys, root, out, *one)
    (folder / "wav.scp").write_bytes(b"MT0011W0001 wav/\xff.wav\n")
    assert "wav.scp:1: not UTF-8" in refused(prepare_aishell2, capsys, root, out, *one)
    (folder / "trans.txt").unlink()
    assert "trans.txt: no such file" in refused(prepare_aishell2, capsys, root, out, *one)


# WenetSpeech


def test_corpus_layout_wenetspeech(tmp_path: Path, out: Path) -> None:
    root = wenetspeech(tmp_path / "wenetspeech")
    prepare(prepare_wenetspeech, root, out, "--allow_partial")
    assert [p.name for p in sorted(out.iterdir())] == ["TEST_MEETING", "TEST_NET", "left_out.tsv"]
    a = "Y0000000001_a"
    assert dir_text(out / "TEST_NET", root) == {
        "segments": f"{a}_S00000 {a} 0.100 0.600\n{a}_S00001 {a} 0.600 1.100\n",
        "spk2utt": f"{a}_S00000 {a}_S00000\n{a}_S00001 {a}_S00001\n",
        "text": f"{a}_S00000 今天天气\n{a}_S00001 很好\n",
        "utt2lang": f"{a}_S00000 zh\n{a}_S00001 zh\n",
        "utt2spk": f"{a}_S00000 {a}_S00000\n{a}_S00001 {a}_S00001\n",
        "wav.scp": f"{a} ROOT/audio/test_net/Y00000/{a}.opus\n",
    }
    assert rows_of(out / "left_out.tsv") == [
        ["TEST_NET", f"{a}_S00002", "utterance", "a segment that ends where it begins"],
        ["TEST_NET", f"{a}_S00003", "utterance", "no transcript"],
    ]
    for subset in ("TEST_NET", "TEST_MEETING"):
        assert_valid(out / subset)


def test_corpus_layout_wenetspeech_broken(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = wenetspeech(tmp_path / "wenetspeech")
    one = ("--subsets", "TEST_NET")
    path = root / "WenetSpeech.json"

    def failing() -> str:
        prepare_wenetspeech.read_audios.cache_clear()
        return refused(prepare_wenetspeech, capsys, root, out, *one)

    assert "TEST_NET has 4 items, not 24774" in failing()
    assert "no segment of L in it" in refused(prepare_wenetspeech, capsys, root, out, "--subsets", "L")
    (root / "audio/test_net/Y00000/Y0000000001_a.opus").unlink()
    assert "WenetSpeech.json: Y0000000001_a_S00000: no audio file" in failing()
    content = json.loads(path.read_text("utf-8"))
    del content["audios"][0]["segments"][0]["text"]
    write_lines(path, json.dumps(content))
    assert "WenetSpeech.json: audio 1: malformed (KeyError('text'))" in failing()
    write_lines(path, "[]")
    assert "has no list 'audios'" in failing()
    write_lines(path, '{"audios": [')
    assert "WenetSpeech.json: no JSON" in failing()
    path.unlink()
    assert "WenetSpeech.json: no such file" in failing()


# Common Voice


def test_corpus_layout_common_voice(tmp_path: Path, out: Path) -> None:
    root = common_voice(tmp_path / "en")
    prepare(prepare_common_voice, root, out, "--allow_partial")
    keys = [f"{0:016d}-common_voice_en_{n}" for n in range(9)] + [f"{'f' * 16}-common_voice_en_98"]
    assert dir_text(out / "test", root) == {
        "spk2utt": f"{0:016d} {' '.join(keys[:9])}\n{'f' * 16} {keys[9]}\n",
        "text": "".join(f"{keys[n]} Sentence {'abcdefghi'[n]}.\n" for n in range(9))
        + f'{keys[9]} "Don\'t," he said.\n',
        "utt2age": "".join(f"{k} {'adult' if n < 5 else 'old'}\n" for n, k in enumerate(keys[:9]) if n),
        "utt2gender": "".join(f"{keys[n]} {('female', 'male')[n % 2]}\n" for n in range(4)),
        "utt2lang": "".join(f"{k} en\n" for k in keys),
        "utt2spk": "".join(f"{k} {k[:16]}\n" for k in keys),
        "wav.scp": "".join(f"{k} ROOT/clips/{k[17:]}.mp3\n" for k in keys),
    }
    neither, told = "neither female nor male", "not told"
    assert rows_of(out / "left_out.tsv") == [
        ["test", keys[0], "age", "teens are 13 to 19: both child and adult"],
        *(["test", keys[n], "gender", neither] for n in (4, 5, 6)),
        ["test", keys[7], "gender", told],
        ["test", keys[8], "gender", neither],
        ["test", keys[9], "age", told],
        ["test", keys[9], "gender", told],
        ["test", f"{'f' * 16}-common_voice_en_99", "utterance", "no sentence"],
    ]
    assert_valid(out / "test")


@pytest.mark.parametrize("deep", [True, False])
def test_corpus_layout_common_voice_of_kaggle(tmp_path: Path, out: Path, deep: bool) -> None:
    root = kaggle_common_voice(tmp_path / "kaggle", deep)
    prepare(prepare_common_voice, root, out, "--allow_partial")
    keys = [f"sample-{n:06d}" for n in range(4)]
    folder = "ROOT/cv-valid-test/cv-valid-test" if deep else "ROOT/cv-valid-test"
    assert dir_text(out / "cv-valid-test", root) == {
        "spk2utt": "".join(f"{k} {k}\n" for k in keys),
        "text": "".join(f"{keys[n]} he said, go {'abcd'[n]}\n" for n in range(4)),
        "utt2age": "sample-000000 adult\nsample-000001 old\n",
        "utt2gender": "sample-000000 male\nsample-000001 female\n",
        "utt2lang": "".join(f"{k} en\n" for k in keys),
        "utt2spk": "".join(f"{k} {k}\n" for k in keys),
        "wav.scp": "".join(f"{k} {folder}/{k}.mp3\n" for k in keys),
    }
    assert len(rows_of(out / "left_out.tsv")) == 4
    assert_valid(out / "cv-valid-test")


def test_corpus_layout_common_voice_broken(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = kaggle_common_voice(tmp_path / "kaggle")
    table = root / "cv-valid-test.csv"
    assert "cv-valid-test has 4 items, not 3995" in refused(prepare_common_voice, capsys, root, out)
    assert "test.tsv: no such file" in refused(prepare_common_voice, capsys, root, out, "--subsets", "test")
    assert "neither a *.tsv of a release nor" in refused(prepare_common_voice, capsys, tmp_path, out)
    good = table.read_text()
    table.write_text(good.replace("sixties", "six"))
    assert "cv-valid-test.csv:3: unknown age 'six'" in refused(prepare_common_voice, capsys, root, out)
    table.write_text(good.replace("gender,", "sex,"))
    assert "cv-valid-test.csv:1: no column gender" in refused(prepare_common_voice, capsys, root, out)
    table.write_text(good + "sample,one\n")
    assert "cv-valid-test.csv:6: 2 fields, and the first line has 8" in refused(
        prepare_common_voice, capsys, root, out
    )
    table.write_text(good + '"sample')
    assert "cv-valid-test.csv:6: cannot read it" in refused(prepare_common_voice, capsys, root, out)
    table.write_text("")
    assert "cv-valid-test.csv: empty file" in refused(prepare_common_voice, capsys, root, out)
    table.write_text(good)
    (root / "cv-valid-test/cv-valid-test/sample-000001.mp3").unlink()
    assert "cv-valid-test.csv:3: no audio file" in refused(prepare_common_voice, capsys, root, out)


# What all share


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_corpus_layout_every_official_label_has_a_value_or_a_cause(script: ModuleType) -> None:
    fields = load_tasks().fields
    for name, table in script.CORPUS.labels.items():
        for official, value in table.items():
            assert value.why if isinstance(value, Out) else value in fields[name].values, official


PAGE = (Path(__file__).resolve().parents[1] / "docs/corpora.md").read_text(encoding="utf-8")
ALL_SCRIPTS = sorted({path.stem for path in LOCAL.glob("prepare_*.py")} - {"prepare_asterisk"})


@pytest.mark.parametrize("name", ALL_SCRIPTS)
def test_corpus_layout_page_tells_what_the_script_knows(name: str) -> None:
    corpus = importlib.import_module(name).CORPUS
    (line,) = (line for line in PAGE.splitlines() if f"`{name}.py`" in line)
    assert line.startswith(f"| {corpus.name.split(' (')[0]}") and "http" in line
    for subset, count in corpus.published.items():
        assert count is None or f"{count:,}" in line, subset


OFFICIAL = {
    prepare_librispeech: {"gender": {"F", "M"}},
    prepare_aishell1: {"gender": {"F", "M"}},
    prepare_aishell2: {},
    prepare_wenetspeech: {},
    prepare_common_voice: {
        "gender": {
            *("female", "male", "other"),  # until release 17
            *("female_feminine", "male_masculine", "intersex", "transgender", "non-binary"),
            *("do_not_wish_to_say", ""),
        },
        "age": {
            *("teens", "twenties", "thirties", "fourties", "fifties"),
            *("sixties", "seventies", "eighties", "nineties", ""),
        },
    },
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_corpus_layout_tables_hold_the_official_labels(script: ModuleType) -> None:
    assert {name: set(table) for name, table in script.CORPUS.labels.items()} == OFFICIAL[script]


def test_corpus_layout_writer_refuses_what_kaldi_cannot_hold(tmp_path: Path) -> None:
    tasks = load_tasks()

    def refuse(match: str, *utterances: Utterance) -> None:
        with pytest.raises(OsumError, match=match):
            write_kaldi_dir(tmp_path, utterances, tasks)

    refuse("a: two utterances have this id", Utterance("a", "a.wav"), Utterance("a", "b.wav"))
    refuse("a b: an id with a blank", Utterance("a b", "a.wav"))
    refuse("'joy' is no emotion", Utterance("a", "a.wav", labels={"emotion": "joy"}))
    refuse(
        "speaker s is both male and female",
        Utterance("a", "a.wav", speaker="s", of_speaker={"gender": "male"}),
        Utterance("b", "b.wav", speaker="s", of_speaker={"gender": "female"}),
    )
    refuse("a whole recording among", Utterance("a", "r", recording="r", end=1.0), Utterance("b", "b.wav"))
    assert list(tmp_path.iterdir()) == []


def test_corpus_layout_writer_keeps_empty_transcripts_and_labels(tmp_path: Path) -> None:
    rows = [
        Utterance("é", "cat x |", "", labels={"event": "cough"}),
        Utterance("b", "b.wav", " what \n now ", "s", "en", reply="ask  again", of_speaker={"age": "old"}),
    ]
    write_kaldi_dir(tmp_path, rows, load_tasks())
    assert dir_text(tmp_path, tmp_path) == {
        "spk2age": "s old\n",
        "spk2utt": "s b\né é\n",
        "text": "b what now\né\n",
        "utt2event": "é cough\n",
        "utt2lang": "b en\n",
        "utt2reply": "b ask again\n",
        "utt2spk": "b s\né é\n",
        "wav.scp": "b b.wav\né cat x |\n",
    }


def test_corpus_layout_half_width() -> None:
    assert half_width("ＡＴＭ１，ｚ 你好！") == "ATM1，z 你好！"


def test_corpus_layout_label_without_value_of_an_utterance_left_out_is_not_told_twice() -> None:
    corpus = Corpus("C", "u", "l", {"x": None}, {"age": {"": Out("not told")}})
    found = Found(corpus, "x", partial=True)
    assert found.label("age", "", "k", "f:1") == {}
    found.add(Utterance("k", "/nowhere.wav"), "f:1")
    assert found.items == 1
    assert found.rows() == [("k", "utterance", "no audio file")]
