"""local/prepare_*.py of the corpora of events, emotions and answers on miniatures of their official layouts."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import label_miniatures as mini
import pytest
from corpus_miniatures import assert_valid, dir_text, rows_of, write_lines
from label_miniatures import Refused, count_as, prepare, table

from wenet_osum.tasks import load_tasks

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "local"))
import prepare_air_bench
import prepare_crema_d
import prepare_esc50
import prepare_meld
import prepare_mer2023
import prepare_vocalsound
from corpora import Out, age_label, audio_of

from wenet_osum.errors import OsumError

SCRIPTS = [
    *(prepare_esc50, prepare_vocalsound, prepare_meld, prepare_mer2023, prepare_crema_d, prepare_air_bench),
]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mini.stand_in_ffmpeg(tmp_path / "bin", monkeypatch)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_corpus_layout_described(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    fields = load_tasks().fields
    for name, labels in script.CORPUS.labels.items():
        for value in labels.values():
            assert value.why if isinstance(value, Out) else value in fields[name].values
    doc = script.__doc__ or ""
    assert "Licence: " in doc and "Counts: " in doc and "could not" in doc
    assert f"python local/{script.__name__}.py " in doc
    with pytest.raises(SystemExit) as ended:
        script.main(["--help"])
    assert ended.value.code == 0 and "--allow_partial" in capsys.readouterr().out


# ESC-50


def test_corpus_layout_esc50(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = mini.esc50(tmp_path / "ESC-50-master")
    prepare(prepare_esc50, root, out)
    # nothing of fold 3 is used here
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["all", "fold1", "fold2", "fold4", "fold5"]
    assert table(out / "all/utt2event") == {
        "1-9020-A-20": "cry",
        "2-9021-A-21": "sneeze",
        "2-9026-A-26": "laugh",
        "4-9023-A-23": "other",
        "4-9028-A-28": "other",
        "5-9024-A-24": "cough",
    }
    assert dir_text(out / "fold2", root) == {
        "spk2utt": "2-9021-A-21 2-9021-A-21\n2-9026-A-26 2-9026-A-26\n",
        "text": "2-9021-A-21\n2-9026-A-26\n",
        "utt2event": "2-9021-A-21 sneeze\n2-9026-A-26 laugh\n",
        "utt2spk": "2-9021-A-21 2-9021-A-21\n2-9026-A-26 2-9026-A-26\n",
        "wav.scp": "2-9021-A-21 ROOT/audio/2-9021-A-21.wav\n2-9026-A-26 ROOT/audio/2-9026-A-26.wav\n",
    }
    rows = [row for row in rows_of(out / "left_out.tsv") if row[0] == "all"]
    assert len(rows) == 44 and rows[0] == ["all", "1-9000-A-0", "utterance", rows[0][3]]
    assert "no vocal event" in rows[0][3]
    used, left = set(table(out / "all/utt2event")), {row[1] for row in rows}
    assert not used & left
    assert {int(key.rpartition("-")[2]) for key in used | left} == set(range(50))  # every class
    assert set(prepare_esc50.CORPUS.labels["event"]) == set(mini.ESC50)
    for name in ("all", "fold2"):
        assert_valid(out / name)
    assert "all: 6 of 50 items used; 2000 are published" in capsys.readouterr().out


def test_corpus_layout_esc50_broken(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = mini.esc50(tmp_path / "esc50")
    refused = Refused(prepare_esc50, capsys, root, out)
    assert "all has 50 items, not 2000, fold1 has 10 items, not 400" in refused()
    assert "no subset 'fold6' in ESC-50" in refused("--subsets", "fold6")
    count_as(monkeypatch, prepare_esc50, all=50)
    (root / "audio/2-9021-A-21.wav").unlink()
    assert "esc50.csv:23: no audio file" in refused()
    prepare(prepare_esc50, root, out)
    assert ["all", "2-9021-A-21", "utterance", "no audio file"] in rows_of(out / "left_out.tsv")
    meta, header = root / "meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take"
    out = refused.out = tmp_path / "out2"
    write_lines(meta, header, "1-1-A-26.wav,1,26,giggling,False,1,A")
    assert "esc50.csv:2: unknown event 'giggling'; known are 'laughing'" in refused()
    write_lines(meta, header, "1-1-A-26.wav,6,26,laughing,False,1,A")
    assert "esc50.csv:2: fold '6'" in refused()
    write_lines(meta, header, "1-1-A-26.wav,1,26")
    assert "esc50.csv:2: 3 fields, and the first line has 7" in refused()
    write_lines(meta, "filename,fold,target", "1-1-A-26.wav,1,26")
    assert "esc50.csv:1: no column category" in refused()
    meta.unlink()
    assert "esc50.csv: no such file" in refused()


# VocalSound


def test_corpus_layout_vocalsound(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = mini.vocalsound(tmp_path / "vs_release_16k")
    prepare(prepare_vocalsound, root, out)
    keys = [f"f0011_0_{sound}" for sound in mini.VOCALSOUND]
    assert dir_text(out / "test", root) == {
        "spk2age": "f0011 old\n",
        "spk2gender": "f0011 female\n",
        "spk2utt": f"f0011 {' '.join(keys)}\n",
        "text": "".join(f"{key}\n" for key in keys),
        "utt2event": "f0011_0_cough cough\nf0011_0_laughter laugh\nf0011_0_sigh sigh\nf0011_0_sneeze sneeze\n"
        "f0011_0_sniff other\nf0011_0_throatclearing throat clearing\n",
        "utt2spk": "".join(f"{key} f0011\n" for key in keys),
        "wav.scp": "".join(f"{key} ROOT/audio_16k/{key}.wav\n" for key in keys),
    }
    assert (out / "train/spk2gender").read_text() == "m0012 male\n"
    assert not (out / "train/spk2age").exists()
    assert (out / "dev/spk2age").read_text() == "m0013 adult\n"
    assert rows_of(out / "left_out.tsv") == [["train", "m0012_1_cough", "age", "no age told, or two"]]
    assert set(prepare_vocalsound.CORPUS.labels["event"]) == set(mini.VOCALSOUND)
    for subset in ("train", "dev", "test"):
        assert_valid(out / subset)
    assert "test: 6 of 6 items used; 3594 are published" in capsys.readouterr().out


def test_corpus_layout_vocalsound_44k_and_two_ages(tmp_path: Path, out: Path) -> None:
    root = mini.vocalsound(tmp_path / "vs")
    (root / "audio_16k").rename(root / "audio_44k")
    # without a line of names, and with two ages of one speaker
    write_lines(
        root / "meta/all_meta.csv", "m0013,male,35,Here", "m0013,male,36,Here", "f0011,female,61,Here"
    )
    prepare(prepare_vocalsound, root, out)
    assert "/audio_44k/m0013_0_sigh.wav" in (out / "dev/wav.scp").read_text()
    assert not (out / "dev/spk2age").exists() and (out / "test/spk2age").read_text() == "f0011 old\n"


def test_corpus_layout_vocalsound_broken(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = mini.vocalsound(tmp_path / "vs")
    refused = Refused(prepare_vocalsound, capsys, root, out)
    assert "dev has 1 items, not 1860, test has 6 items, not 3594" in refused()
    count_as(monkeypatch, prepare_vocalsound, test=6)
    (root / "audio_16k/f0011_0_sigh.wav").unlink()
    assert "te.json: item 3: no audio file" in refused()
    meta, te = root / "meta/all_meta.csv", root / "datafiles/te.json"
    write_lines(meta, "f0011,female,unknown,Here")
    assert "all_meta.csv:1: age 'unknown'" in refused()
    write_lines(meta, "f0011,female,61,Here", "what is this")
    assert "all_meta.csv:2: cannot read 'what is this'" in refused()
    meta.unlink()
    assert "all_meta.csv: no such file" in refused()
    prepare(prepare_vocalsound, root, tmp_path / "ageless", "--subsets", "test")
    assert not (tmp_path / "ageless/test/spk2age").exists()
    write_lines(meta, "f0011,female,61,Here")
    for wav, said in (
        ("/d/f0011_0_hiccup.wav", "item 1: unknown event 'hiccup'; known are 'laughter'"),
        ("/d/x0011_0_sigh.wav", "item 1: unknown gender 'x'; known are 'f', 'm'"),
        ("/d/sigh.wav", "item 1: file name 'sigh.wav'"),
    ):
        mini.write_json(te, {"data": [{"wav": wav, "labels": "/m/0"}]})
        assert said in refused()
    mini.write_json(te, {"data": [{"labels": "/m/0"}]})
    assert 'te.json: item 1: no "wav"' in refused()
    mini.write_json(te, [])
    assert 'te.json: no list "data"' in refused()
    write_lines(te, "{")
    assert "te.json: no JSON" in refused()
    te.unlink()
    assert "te.json: no such file" in refused()


# MELD


@pytest.mark.usefixtures("ffmpeg")
def test_corpus_layout_meld(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = mini.meld(tmp_path / "MELD Raw")
    prepare(prepare_meld, root, out)
    keys = [f"train_dia0_utt{n}" for n in range(7)]
    command_ = (
        "ffmpeg -nostdin -loglevel error -i 'ROOT/train_splits/dia0_utt{}.mp4' -vn -ac 1 -ar 16000 -f wav - |"
    )
    assert dir_text(out / "train", root) == {
        "spk2utt": "".join(f"{key} {key}\n" for key in keys),
        "text": "train_dia0_utt0 You're late!\ntrain_dia0_utt1 Yes, I am.\ntrain_dia0_utt3 So sweet.\n"
        "train_dia0_utt4 What?!\ntrain_dia0_utt5 No…\ntrain_dia0_utt6 Eww.\n",
        "utt2emotion": "train_dia0_utt0 neutral\ntrain_dia0_utt1 happy\ntrain_dia0_utt2 sad\ntrain_dia0_utt3 anger\n"
        "train_dia0_utt4 surprise\ntrain_dia0_utt5 fear\ntrain_dia0_utt6 disgust\n",
        "utt2lang": "".join(f"{key} en\n" for key in keys),
        "utt2spk": "".join(f"{key} {key}\n" for key in keys),
        "wav.scp": "".join(f"{key} {command_.format(n)}\n" for n, key in enumerate(keys)),
    }
    assert (out / "test/wav.scp").read_text().replace(str(root), "ROOT") == (
        "test_dia0_utt0 ROOT/output_repeated_splits_test/dia0_utt0.wav\n"
    )
    assert table(out / "dev/utt2emotion") == {"dev_dia0_utt0": "fear"}
    assert Counter((row[0], row[2]) for row in rows_of(out / "left_out.tsv")) == {
        ("train", "utterance"): 1,
        ("train", "stage direction"): 2,
        ("train", "text"): 1,
        ("dev", "utterance"): 1,
    }
    assert ["train", "train_dia0_utt2", "text", "nothing but stage directions"] in rows_of(
        out / "left_out.tsv"
    )
    assert set(prepare_meld.CORPUS.labels["emotion"]) == set(mini.MELD)
    for subset in ("train", "dev", "test"):
        assert_valid(out / subset)
    printed = capsys.readouterr().out
    assert "train: 7 of 8 items used; 9989 are published" in printed
    assert "left out: 1: a clip known to be broken" in printed and "1: a clip known to be lacking" in printed


@pytest.mark.usefixtures("ffmpeg")
def test_corpus_layout_meld_broken(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = mini.meld(tmp_path / "meld")
    refused = Refused(prepare_meld, capsys, root, out)
    assert "train has 8 items, not 9989, dev has 2 items, not 1109, test has 1 items, not 2610" in refused()
    count_as(monkeypatch, prepare_meld, train=8)
    clip = root / "train_splits/dia0_utt3.mp4"
    clip.rename(clip.with_suffix(".mkv"))
    assert f"train_sent_emo.csv:5: no audio file {clip}" in refused()
    lines = (root / "train_sent_emo.csv").read_text(encoding="utf-8").splitlines()
    for wrong, said in (
        (
            lines[1].replace("neutral,neutral", "bored,neutral"),
            "csv:2: unknown emotion 'bored'; known are 'neutral'",
        ),
        (lines[1].replace(",0,0,", ",0,first,"), "csv:2: dialogue '0', utterance 'first'"),
        (lines[1].replace("You’re late!", '"You’re late!'), "csv:2: cannot read it"),
        (lines[1] + ",one more", "csv:2: 12 fields, and the first line has 11"),
    ):
        write_lines(root / "train_sent_emo.csv", lines[0], wrong)
        assert said in refused()
    (root / "train_splits").rename(root / "splits")
    assert "train_splits: not there; unpack train.tar.gz" in refused()
    (root / "train_sent_emo.csv").unlink()
    assert "train_sent_emo.csv: not there" in refused()


# MER2023


@pytest.mark.usefixtures("ffmpeg")
def test_corpus_layout_mer2023(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = mini.mer2023(tmp_path / "MER2023")
    prepare(prepare_mer2023, root, out)
    command_ = "ffmpeg -nostdin -loglevel error -i ROOT/{} -vn -ac 1 -ar 16000 -f wav - |"
    keys = [f"train_{n:08d}" for n in range(6) if n != 4]
    assert dir_text(out / "train", root) == {
        "spk2utt": "".join(f"{key} {key}\n" for key in keys),
        "utt2emotion": "train_00000000 neutral\ntrain_00000001 anger\ntrain_00000002 happy\ntrain_00000003 sad\n"
        "train_00000005 surprise\n",
        "utt2lang": "".join(f"{key} zh\n" for key in keys),
        "utt2spk": "".join(f"{key} {key}\n" for key in keys),
        "wav.scp": "".join(f"{key} {command_.format(f'mer2023train/train/{key}.avi')}\n" for key in keys),
    }
    assert dir_text(out / "test3", root)["wav.scp"] == (
        f"test3_00000000 {command_.format('mer2023train/test3/test3_00000000.mp4')}\n"
    )
    assert rows_of(out / "left_out.tsv") == [
        ["train", "train_00000004", "utterance", "worried, which is none of OSUM's emotions"]
    ]
    assert set(prepare_mer2023.CORPUS.labels["emotion"]) == set(mini.MER2023)
    for subset in ("train", "test1", "test3"):
        assert_valid(out / subset)
    printed = capsys.readouterr().out
    assert "train: 5 of 6 items used; 3373 are published" in printed and "test2: not there" in printed


@pytest.mark.usefixtures("ffmpeg")
def test_corpus_layout_mer2023_flat(tmp_path: Path, out: Path) -> None:
    root = mini.mer2023(tmp_path / "MER2023")
    for name in ("train", "test3", "train-label.csv"):
        (root / "mer2023train" / name).rename(root / name)
    (root / "test-labels/test3-label.csv").rename(root / "test3-label.csv")
    prepare(prepare_mer2023, root, out, "--subsets", "train,test3")
    assert f"-i {root}/train/train_00000000.avi " in (out / "train/wav.scp").read_text()
    assert table(out / "test3/utt2emotion") == {"test3_00000000": "neutral"}


@pytest.mark.usefixtures("ffmpeg")
def test_corpus_layout_mer2023_broken(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = mini.mer2023(tmp_path / "mer")
    refused = Refused(prepare_mer2023, capsys, root, out)
    assert "test2-label.csv: not there; get it from" in refused()
    assert "test1 has 2 items, not 411" in refused("--subsets", "test1")
    count_as(monkeypatch, prepare_mer2023, test1=2)
    labels = root / "test-labels/test1-label.csv"
    (root / "test1/test1_00000001.avi").unlink()
    assert "test1-label.csv:3: no audio file" in refused()
    write_lines(labels, "name,discrete,valence", "test1_00000000,bored,0.5")
    assert "test1-label.csv:2: unknown emotion 'bored'; known are 'neutral'" in refused()
    write_lines(labels, "name,discrete,valence", "test1_00000000")
    assert "test1-label.csv:2: 1 fields, and the first line has 3" in refused()
    write_lines(labels, "name,emotion", "test1_00000000,sad")
    assert "test1-label.csv:1: no column discrete" in refused()
    (root / "test1").rename(root / "test_1")
    assert "/test1: not there" in refused()


def test_corpus_layout_video_without_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = mini.write_clip(tmp_path / "a.mp4")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OsumError, match="a.mp4: no ffmpeg to decode it; install ffmpeg"):
        audio_of(tmp_path, "a")
    clip.rename(tmp_path / "a.flac")
    assert audio_of(tmp_path, "a") == str(tmp_path / "a.flac")
    assert audio_of(tmp_path, "b") == str(tmp_path / "b.mp4")  # which lacks


# CREMA-D


def test_corpus_layout_crema_d(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = mini.crema_d(tmp_path / "CREMA-D")
    prepare(prepare_crema_d, root, out)
    keys = [f"1014_TSI_{emotion}_XX" for emotion in mini.CREMA_D]
    assert dir_text(out / "test", root) == {
        "spk2age": "1014 adult\n",
        "spk2gender": "1014 male\n",
        "spk2utt": f"1014 {' '.join(keys)}\n",
        "text": "".join(f"{key} The surface is slick\n" for key in keys),
        "utt2emotion": "1014_TSI_ANG_XX anger\n1014_TSI_DIS_XX disgust\n1014_TSI_FEA_XX fear\n"
        "1014_TSI_HAP_XX happy\n1014_TSI_NEU_XX neutral\n1014_TSI_SAD_XX sad\n",
        "utt2lang": "".join(f"{key} en\n" for key in keys),
        "utt2spk": "".join(f"{key} 1014\n" for key in keys),
        "wav.scp": "".join(f"{key} ROOT/AudioWAV/{key}.wav\n" for key in keys),
    }
    assert (out / "dev/text").read_text() == "1020_IEO_ANG_HI It's eleven o'clock\n"
    assert (out / "dev/spk2age").read_text() == "1020 old\n"
    assert table(out / "train/utt2emotion") == {"1076_WSI_NEU_XX": "neutral"}
    assert rows_of(out / "left_out.tsv") == [
        ["train", "1076_MTI_SAD_XX", "utterance", "no sound in the file, as the makers tell"]
    ]
    assert set(prepare_crema_d.CORPUS.labels["emotion"]) == set(mini.CREMA_D)
    assert len(prepare_crema_d.SENTENCES) == 12
    for subset in ("train", "dev", "test"):
        assert_valid(out / subset)
    assert "train: 1 of 2 items used; 5966 are published" in capsys.readouterr().out


def test_corpus_layout_crema_d_split_by_actor() -> None:
    actors = [str(n) for n in range(1001, 1092)]
    subsets = Counter(map(prepare_crema_d.subset_of, actors))
    assert subsets == {"train": 73, "dev": 9, "test": 9}


def test_corpus_layout_crema_d_broken(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = mini.crema_d(tmp_path / "crema")
    refused = Refused(prepare_crema_d, capsys, root, out)
    assert "train has 2 items, not 5966, dev has 1 items, not 738, test has 6 items, not 738" in refused()
    count_as(monkeypatch, prepare_crema_d, dev=1)
    wav = root / "AudioWAV/1020_IEO_ANG_HI.wav"
    write_lines(wav, "version https://git-lfs.github.com/spec/v1", "oid sha256:0", "size 72862")
    assert "a note of Git LFS in place of the audio; run `git lfs pull`" in refused()
    wav.unlink()
    assert "SentenceFilenames.csv:8: no audio file" in refused()
    people, names = root / "VideoDemographics.csv", root / "SentenceFilenames.csv"
    header = "ActorID,Age,Sex,Race,Ethnicity"
    for row, said in (
        ("1020,61,X,A,B", "VideoDemographics.csv:2: unknown gender 'X'"),
        ("1020,old,Female,A,B", "VideoDemographics.csv:2: age 'old'"),
        ("1020,300,Female,A,B", "VideoDemographics.csv:2: age '300'"),
        ("1021,61,Female,A,B", "SentenceFilenames.csv:8: actor 1020 is not in VideoDemographics.csv"),
        ("1020,61", "VideoDemographics.csv:2: 2 fields, and the first line has 5"),
    ):
        write_lines(people, header, row)
        assert said in refused()
    write_lines(people, header, "1020,61,Female,A,B")
    for name, said in (
        ("1020_IEO_BOR_HI", "csv:2: unknown emotion 'BOR'; known are 'ANG'"),
        ("1020_XYZ_ANG_HI", "csv:2: file name '1020_XYZ_ANG_HI'"),
        ("1020-IEO", "csv:2: file name '1020-IEO'"),
    ):
        write_lines(names, "Stimulus_Number,Filename", f"1,{name}")
        assert said in refused()
    names.unlink()
    assert "SentenceFilenames.csv: no such file" in refused()


# AIR-Bench


def test_corpus_layout_air_bench(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = mini.air_bench(tmp_path / "AIR-Bench-Dataset")
    prepare(prepare_air_bench, root, out, "--subsets", "speech_QA,speech_dialogue_QA")
    files = dir_text(out / "speech_dialogue_QA", root)
    description = files.pop("utt2description")
    assert files == {
        "spk2utt": "fisher-2 fisher-2\n",
        "text": "fisher-2 is it yours no\n",
        "utt2lang": "fisher-2 en\n",
        "utt2question": "fisher-2 Whose is fisher?\n",
        "utt2reply": "fisher-2 It is not the second speaker's.\n",
        "utt2spk": "fisher-2 fisher-2\n",
        "wav.scp": "fisher-2 ROOT/Chat/speech_dialogue_QA_fisher/c.wav\n",
    }
    assert json.loads(description.removeprefix("fisher-2 "))[0]["speaker"] == "speaker 1"
    assert (out / "speech_QA/text").read_text() == "iemocap-0 I can't go.\n"
    assert rows_of(out / "left_out.tsv") == [
        ["speech_QA", "common_voice_en-1", "utterance", "no transcript in its description"],
        [
            *("speech_dialogue_QA", "spokenwoz-3", "utterance"),
            "no reference answer, or one with '<' or '>', which are kept for tags",
        ],
    ]
    for subset in ("speech_QA", "speech_dialogue_QA"):
        assert_valid(out / subset)
    assert "speech_QA: 1 of 2 items used; 400 are published" in capsys.readouterr().out
    again = tmp_path / "again"
    prepare(prepare_air_bench, root / "Chat", again)
    assert dir_text(again / "speech_QA", root) == dir_text(out / "speech_QA", root)
    both = "fisher-2 is it yours no\niemocap-0 I can't go.\n"
    assert (again / "speech/text").read_text() == both
    assert_valid(again / "speech")


def test_corpus_layout_air_bench_broken(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = mini.air_bench(tmp_path / "air")
    refused = Refused(prepare_air_bench, capsys, root, out)
    assert "speech has 4 items, not 800, speech_QA has 2 items, not 400, speech_dialogue_QA has" in refused()
    count_as(monkeypatch, prepare_air_bench, speech=4, speech_QA=2)
    (root / "Chat/speech_QA_iemocap/a.wav").unlink()
    assert "Chat_meta.json: item 1: no audio file" in refused()
    meta = root / "Chat/Chat_meta.json"
    mini.write_json(meta, [{"task_name": "speech_QA", "path": "a.wav"}])
    assert "Chat_meta.json: item 1: no dataset_name, question, answer_gt, meta_info, uniq_id" in refused()
    mini.write_json(meta, ["speech_QA"])
    assert "Chat_meta.json: item 1: no task_name" in refused()
    mini.write_json(meta, {})
    assert "Chat_meta.json: no list of items" in refused()
    write_lines(meta, "[")
    assert "Chat_meta.json: no JSON" in refused()
    meta.unlink()
    assert "Chat_meta.json: no such file" in refused()


@pytest.mark.parametrize(
    ("description", "text"),
    [
        ("rain", ""),
        ("{'a': ", ""),
        ("['x']", ""),
        ("[]", ""),
        ('[{"transcription": null}]', ""),
        ('{"transcription": "go  on"}', "go on"),
    ],
)
def test_corpus_layout_air_bench_description(description: str, text: str) -> None:
    assert prepare_air_bench.transcript_of(description) == text


@pytest.mark.parametrize(
    ("years", "group"), [("13", "child"), ("14", "adult"), ("59.5", "adult"), ("60", "old")]
)
def test_corpus_layout_ages(years: str, group: str) -> None:
    assert age_label(years, "here") == {"age": group}
    for wrong in ("", "nan", "-3", "1e1", "200", "adult"):
        with pytest.raises(OsumError, match="^here: age "):
            age_label(wrong, "here")
