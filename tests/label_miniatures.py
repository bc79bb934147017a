"""The official layouts in small of the corpora of events, emotions and answers; ``corpus_miniatures.py`` has more."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from corpus_miniatures import write_audio, write_lines
from helpers import command, one_error_line

ESC50 = (
    *("dog", "rooster", "pig", "cow", "frog", "cat", "hen", "insects", "sheep", "crow"),
    *("rain", "sea_waves", "crackling_fire", "crickets", "chirping_birds"),
    *("water_drops", "wind", "pouring_water", "toilet_flush", "thunderstorm"),
    *("crying_baby", "sneezing", "clapping", "breathing", "coughing"),
    *("footsteps", "laughing", "brushing_teeth", "snoring", "drinking_sipping"),
    *("door_wood_knock", "mouse_click", "keyboard_typing", "door_wood_creaks", "can_opening"),
    *("washing_machine", "vacuum_cleaner", "clock_alarm", "clock_tick", "glass_breaking"),
    *("helicopter", "chainsaw", "siren", "car_horn", "engine"),
    *("train", "church_bells", "airplane", "fireworks", "hand_saw"),
)
VOCALSOUND = ("cough", "laughter", "sigh", "sneeze", "sniff", "throatclearing")
MELD = ("neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust")
MER2023 = ("neutral", "angry", "happy", "sad", "worried", "surprise")
CREMA_D = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")


class Refused:
    """Runs a script that must end on one error line and leave nothing behind; gives that line."""

    def __init__(self, script: ModuleType, capsys: pytest.CaptureFixture[str], root: Path, out: Path):
        self.script, self.capsys, self.root, self.out = script, capsys, root, out

    def __call__(self, *more: str) -> str:
        assert command(self.script.main, self.root, self.out, *more) == 1
        assert not self.out.exists() and not list(self.out.parent.glob(".out*"))
        return one_error_line(self.capsys.readouterr().err)


def prepare(script: ModuleType, root: Path, out: Path, *more: str) -> None:
    assert command(script.main, root, out, "--allow_partial", *more) == 0


def table(path: Path) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in path.read_text(encoding="utf-8").splitlines())


def count_as(monkeypatch: pytest.MonkeyPatch, script: ModuleType, **published: int) -> None:
    """Let the miniature's counts be the published ones."""
    monkeypatch.setattr(script, "CORPUS", dataclasses.replace(script.CORPUS, published=published))


def write_json(path: Path, content: Any) -> Path:
    return write_lines(path, json.dumps(content))


def stand_in_ffmpeg(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts an ``ffmpeg`` on the path that gives its input as it is: the clips in these layouts are wavs."""
    program = write_lines(folder / "ffmpeg", "#!/bin/sh", 'while [ "$1" != -i ]; do shift; done', 'cat "$2"')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def write_clip(path: Path) -> Path:
    """A "video" that the stand-in for ffmpeg can decode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_audio(path.with_suffix(".wav")).rename(path)


def esc50(root: Path) -> Path:
    """A clip of each of the 50 classes, the folds by turns."""
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for target, category in enumerate(ESC50):
        fold = target % 5 + 1
        name = f"{fold}-{9000 + target}-A-{target}.wav"
        rows.append(f"{name},{fold},{target},{category},False,{9000 + target},A")
        write_audio(root / "audio" / name)
    write_lines(root / "meta/esc50.csv", *rows)
    return root


def vocalsound(root: Path) -> Path:
    """A woman's six sounds in test, one of a man's each in train and dev."""
    lists: dict[str, list[str]] = {
        "te": [f"f0011_0_{sound}" for sound in VOCALSOUND],
        "tr": ["m0012_1_cough"],
        "val": ["m0013_0_sigh"],
    }
    for name, stems in lists.items():
        data = [{"wav": f"/data/vs/{stem}.wav", "labels": "/m/0"} for stem in stems]
        write_json(root / f"datafiles/{name}.json", {"data": data})
        for stem in stems:
            write_audio(root / f"audio_16k/{stem}.wav")
    write_lines(
        root / "meta/all_meta.csv",
        "spk_id,gender,age,country,native language,health",
        'f0011,female,61,"Here, there",English,no',
        "m0012,male,,Here,English,no",
        "m0013,male,35,Here,English,cold",
    )
    return root


def meld(root: Path) -> Path:
    """Every emotion in train; dev in a folder of its own, as its archive may be unpacked."""
    header = (
        "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
    )
    tail = '1,2,"00:00:01,000","00:00:02,500"'
    texts = (
        "You’re late!",
        '"Yes, (looks away) I am."',
        "(Singing to the",
        "[They hug] So sweet.",
        "What?!",
        "No…",
        "Eww.",
    )
    rows = [header]
    for n, (text, emotion) in enumerate(zip(texts, MELD)):
        rows.append(f"{n + 1},{text},The Cook,{emotion},neutral,0,{n},{tail}")
        write_clip(root / f"train_splits/dia0_utt{n}.mp4")
    rows.append(f"8,Hm.,All,neutral,neutral,125,3,{tail}")
    write_lines(root / "train_sent_emo.csv", *rows)
    write_lines(
        root / "dev/dev_sent_emo.csv",
        header,
        f"1,Well?,Ann,joy,positive,110,7,{tail}",
        f"2,Ok.,Ann,fear,negative,0,0,{tail}",
    )
    write_clip(root / "dev/dev_splits_complete/dia0_utt0.mp4")
    write_lines(root / "test_sent_emo.csv", header, f"1,Over there.,Bo,anger,negative,0,0,{tail}")
    write_clip(root / "output_repeated_splits_test/dia0_utt0.mp4")
    write_audio(root / "output_repeated_splits_test/dia0_utt0.wav")  # extracted
    return root


def mer2023(root: Path) -> Path:
    """Every emotion in train; of test3 one clip of two has a label."""
    for subset, clips, table, suffix in (
        ("train", "mer2023train/train", "mer2023train", "avi"),
        ("test1", "test1", "test-labels", "avi"),
        ("test3", "mer2023train/test3", "test-labels", "mp4"),
    ):
        names = [f"{subset}_{n:08d}" for n in range(len(MER2023) if subset == "train" else 2)]
        labels = list(zip(names, MER2023))[: 1 if subset == "test3" else None]
        rows = [f"{name},{emotion},{n - 1.5}" for n, (name, emotion) in enumerate(labels)]
        write_lines(root / table / f"{subset}-label.csv", "name,discrete,valence", *rows)
        for name in names:
            write_clip(root / clips / f"{name}.{suffix}")
    return root


def crema_d(root: Path) -> Path:
    """An actor of each subset, one of them in every emotion; the silent file."""
    names = [f"1014_TSI_{emotion}_XX" for emotion in CREMA_D]
    names += ["1020_IEO_ANG_HI", "1076_MTI_SAD_XX", "1076_WSI_NEU_XX"]
    rows = [f'{n},"{name}"' for n, name in enumerate(names, 1)]
    write_lines(root / "SentenceFilenames.csv", '"Stimulus_Number","Filename"', *rows)
    write_lines(
        root / "VideoDemographics.csv",
        '"ActorID","Age","Sex","Race","Ethnicity"',
        '1014,24,"Male","Unknown","Unknown"',
        '1020,61,"Female","Unknown","Unknown"',
        '1076,25,"Female","Unknown","Unknown"',
    )
    for name in names:
        write_audio(root / f"AudioWAV/{name}.wav")
    return root


def air_bench(root: Path) -> Path:
    """Both forms of a description, one that tells no transcript, and a task about sounds."""
    turns = [
        {"speaker": "speaker 1", "speaking time": "(0.0,1.2)", "transcription": "is it [laughter] yours"},
        {"speaker": "speaker 2", "speaking time": "(1.1,2.0)", "transcription": "no"},
    ]
    said = "{'emotion': 'sad', 'gender': 'male', 'transcription': \"I can't go.\"}"
    items = []
    for uniq_id, (task, corpus, path, description, answer) in enumerate(
        (
            ("speech_QA", "iemocap", "a.wav", said, "He cannot go."),
            ("speech_QA", "common_voice_en", "b.mp3", "{'gender': 'female'}", "A woman."),
            ("speech_dialogue_QA", "fisher", "c.wav", json.dumps(turns), "It is not the\nsecond speaker's."),
            ("speech_dialogue_QA", "spokenwoz", "d.wav", json.dumps(turns), " "),
            ("sound_QA", "clotho", "e.wav", "rain", "Rain."),
        )
    ):
        write_audio(root / f"Chat/{task}_{corpus}" / path)
        item = {"uniq_id": uniq_id, "task_name": task, "dataset_name": corpus, "path": path}
        items.append(
            {**item, "question": f"Whose is {corpus}?", "answer_gt": answer, "meta_info": description}
        )
    write_json(root / "Chat/Chat_meta.json", items)
    return root
