"""The official layouts of corpora in small, for the tests of ``local/prepare_*.py`` and of the evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from wenet_osum.dataset.validate import validate_data_dir
from wenet_osum.tasks import load_tasks


def write_audio(path: Path, seconds: float = 0.4) -> Path:
    """A quiet tone in the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    form = {".opus": {"format": "OGG", "subtype": "OPUS"}}.get(path.suffix, {})
    wave = 0.1 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * 16000)) / 16000)
    soundfile.write(path, wave, 16000, **form)
    return path


def write_lines(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def dir_text(path: Path, root: Path) -> dict[str, str]:
    """File name -> all that is in it, ``root`` written as ROOT."""
    return {
        file.name: file.read_text(encoding="utf-8").replace(str(root), "ROOT")
        for file in sorted(path.iterdir())
    }


def rows_of(path: Path) -> list[list[str]]:
    """The lines of ``left_out.tsv``."""
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def assert_valid(path: Path) -> None:
    """What ``osum validate`` finds in it is nothing, audio included."""
    assert validate_data_dir(path, load_tasks()) == []


def librispeech(root: Path) -> Path:
    write_lines(
        root / "SPEAKERS.TXT",
        ";ID  |SEX| SUBSET           |MINUTES| NAME",
        "1089 | M | test-clean       | 8.03  | Peter Bobbe",
        "121  | F | test-clean       | 8.13  | Nikolle Doolin",
        "367  | F | test-other       | 8.05  | Kathy | Caver",
    )
    for subset, chapter, lines in (
        (
            "test-clean",
            "1089/134686",
            ["1089-134686-0000 HE HOPED THERE WOULD BE STEW", "1089-134686-0001 NO"],
        ),
        ("test-clean", "121/123852", ["121-123852-0000 THOSE PRETTY WRONGS"]),
        ("test-other", "367/130732", ["367-130732-0000 LOBSTERS AND LOBSTERS"]),
    ):
        reader, number = chapter.split("/")
        write_lines(root / subset / chapter / f"{reader}-{number}.trans.txt", *lines)
        for line in lines:
            write_audio(root / subset / chapter / f"{line.split()[0]}.flac")
    return root


def aishell1(root: Path) -> Path:
    data = root / "data_aishell"
    write_lines(
        data / "transcript/aishell_transcript_v0.8.txt",
        "BAC009S0002W0122 而 对 楼市 成交",
        "BAC009S0764W0121 甚至 出现 ａｔｍ 交易",
        "BAC009S0765W0129 一二 线 城市",
    )
    write_lines(root / "resource_aishell/speaker.info", "0002 F", "0764 F", "0765 M")
    write_audio(data / "wav/train/S0002/BAC009S0002W0122.wav")
    write_audio(data / "wav/test/S0764/BAC009S0764W0121.wav")
    write_audio(data / "wav/test/S0765/BAC009S0765W0129.wav")
    write_audio(data / "wav/test/S0765/BAC009S0765W0999.wav")  # nobody wrote it down
    return root


def aishell2(root: Path) -> Path:
    for channel, letter in (("iOS", "I"), ("Android", "A"), ("Mic", "M")):
        folder = root / "AISHELL-DEV-TEST-SET" / channel / "test"
        names = [f"{letter}T0011W0001", f"{letter}T0011W0002"]
        write_lines(folder / "wav.scp", *(f"{n}\twav/T0011/{n}.wav" for n in names))
        write_lines(folder / "trans.txt", f"{names[0]}\t换一首歌", f"{names[1]}\tＡＴＭ在哪里")
        for name in names:
            write_audio(folder / f"wav/T0011/{name}.wav")
    return root


def wenetspeech(root: Path) -> Path:
    audios: list[dict[str, Any]] = []
    for aid, subset, segments in (
        (
            "Y0000000001_a",
            "TEST_NET",
            [(0.1, 0.6, "今天天气"), (0.6, 1.1, "很好"), (1.1, 1.1, "好"), (1.1, 1.3, " ")],
        ),
        ("Y0000000002_b", "TEST_MEETING", [(0.0, 0.85, "开会了")]),
    ):
        path = f"audio/{subset.lower()}/Y00000/{aid}.opus"
        write_audio(root / path, 1.4)
        said = [
            {
                "sid": f"{aid}_S{n:05d}",
                "begin_time": b,
                "end_time": e,
                "text": t,
                "confidence": 1.0,
                "subsets": [subset],
            }
            for n, (b, e, t) in enumerate(segments)
        ]
        audios.append({"aid": aid, "path": path, "duration": 1.4, "segments": said})
    write_lines(root / "WenetSpeech.json", json.dumps({"audios": audios}, ensure_ascii=False))
    return root


RELEASE_HEADER = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\tsegment"


def common_voice(root: Path) -> Path:
    """A release's language folder, with every gender and age that there are."""
    genders = ("female_feminine", "male_masculine", "female", "male", "intersex", "transgender", "non-binary")
    ages = (
        "teens",
        "twenties",
        "thirties",
        "fourties",
        "fifties",
        "sixties",
        "seventies",
        "eighties",
        "nineties",
    )
    rows = [RELEASE_HEADER]
    for n, age in enumerate(ages):
        gender = (*genders, "do_not_wish_to_say", "other")[n]
        name = f"common_voice_en_{n}.mp3"
        write_audio(root / "clips" / name)
        rows.append(f"{n:0128d}\t{name}\tSentence {'abcdefghi'[n]}.\t2\t0\t{age}\t{gender}\t\ten\t")
    write_audio(root / "clips/common_voice_en_98.mp3")
    rows.append(f"{'f' * 128}\tcommon_voice_en_98.mp3\t" + '"""Don’t,"" he said."' + "\t2\t0\t\t\t\ten\t")
    rows.append(f"{'f' * 128}\tcommon_voice_en_99.mp3\t\t2\t0\t\t\t\ten\t")
    write_lines(root / "test.tsv", *rows)
    return root


def kaggle_common_voice(root: Path, deep: bool = True) -> Path:
    rows = ["filename,text,up_votes,down_votes,age,gender,accent,duration"]
    told = [("twenties", "male", "us"), ("sixties", "female", ""), ("", "other", ""), ("teens", "", "")]
    for n, labels in enumerate(told):
        name = f"cv-valid-test/sample-{n:06d}.mp3"
        write_audio(root / "cv-valid-test" / name if deep else root / name)
        rows.append(f'{name},"he said, go {"abcd"[n]}",1,0,{",".join(labels)},')
    write_lines(root / "cv-valid-test.csv", *rows)
    return root
