"""The demo corpus: whole files, disjoint splits, the same bytes every time, and word times that fit the
sound."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "local"))

import make_tiny_corpus
from tiny_corpus.delivery import EMOTIONS, STYLES, Delivery
from tiny_corpus.effects import rms, tilt
from tiny_corpus.espeak import Espeak, copy_data
from tiny_corpus.sentences import EN_FACTS, PINYIN, SPLITS, make_sentence, split_of, words_of
from tiny_corpus.sounds import EVENTS, RATE
from tiny_corpus.speech import LONGEST, speak
from tiny_corpus.voices import make_voices

from wenet_osum.errors import OsumError

SIZES = {"train": 60, "dev": 10, "test": 160}
LABELS = {
    "utt2event": {"laugh", "cough", "cry", "screaming", "sigh", "throat clearing", "sneeze", "other"},
    "utt2emotion": {"sad", "anger", "neutral", "happy", "surprise", "fear", "disgust", "other"},
    "utt2style": {"新闻科普", "恐怖故事", "童话故事", "客服", "诗歌散文", "有声书", "日常口语", "其他"},
    "spk2gender": {"female", "male"},
    "spk2age": {"child", "adult", "old"},
    "utt2lang": {"en", "zh"},
}


def make(folder: Path, jobs: int, seed: int = 1, **sizes: int) -> Path:
    counts = [word for split in SPLITS for word in (f"--{split}", str({**SIZES, **sizes}[split]))]
    output = ["--output", str(folder), "--nj", str(jobs), "--seed", str(seed)]
    assert make_tiny_corpus.main([*output, *counts]) == 0
    return folder


def read(path: Path) -> dict[str, str]:
    rows = [line.split(" ", 1) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row[0] for row in rows] == sorted({row[0] for row in rows}), f"{path}: not sorted or not unique"
    return dict(rows)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("corpus") / "tiny", jobs=2)


@pytest.mark.parametrize("split", SPLITS)
def test_data_dir_is_whole(corpus: Path, split: str) -> None:
    folder = corpus / split
    text, speakers = read(folder / "text"), read(folder / "utt2spk")
    assert len(text) == SIZES[split]
    for name in ("wav.scp", "utt2spk", "utt2lang", "utt2dur"):
        assert read(folder / name).keys() == text.keys(), name
    for key, wav in read(folder / "wav.scp").items():
        info = soundfile.info(folder / wav)
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        assert 0.5 < info.duration <= LONGEST
        assert float(read(folder / "utt2dur")[key]) == pytest.approx(info.duration, abs=1e-4)
    assert all(key.startswith(speaker + "-") for key, speaker in speakers.items())
    listed = {key: name for name, keys in read(folder / "spk2utt").items() for key in keys.split()}
    assert listed == speakers
    assert read(folder / "spk2age").keys() == set(speakers.values())


def test_labels_are_valid_and_even(corpus: Path) -> None:
    for name, allowed in LABELS.items():
        found = Counter(value for split in SPLITS for value in read(corpus / split / name).values())
        assert found.keys() == allowed, name
    for name in ("utt2event", "utt2emotion", "utt2style"):
        assert set(Counter(read(corpus / "test" / name).values()).values()) == {4}
    folder = corpus / "test"
    labelled = [
        key for name in ("utt2event", "utt2emotion", "utt2style", "utt2reply") for key in read(folder / name)
    ]
    assert len(labelled) == len(set(labelled)) == SIZES["test"] * 4 // 5
    ages = read(folder / "spk2age")
    assert read(folder / "spk2gender").keys() == {name for name, age in ages.items() if age != "child"}


def test_splits_share_no_voice_and_no_sentence(corpus: Path) -> None:
    voices = {split: set(read(corpus / split / "utt2spk").values()) for split in SPLITS}
    texts = {split: set(read(corpus / split / "text").values()) for split in SPLITS}
    for name, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not voices[name] & voices[other]
        assert not texts[name] & texts[other]
        assert {v.variant for v in make_voices(name, 1)}.isdisjoint(v.variant for v in make_voices(other, 1))
    assert all(split_of(text) == split for split in SPLITS for text in texts[split])
    words = {split: {w for text in texts[split] for w in text.split()} for split in SPLITS}
    assert len(words["test"] - words["train"]) < len(words["test"])


def test_replies_follow_from_the_question(corpus: Path) -> None:
    for split in SPLITS:
        text = read(corpus / split / "text")
        for key, reply in read(corpus / split / "utt2reply").items():
            question = text[key]
            assert question.split()[0] in {"what", "where", "please", "so", "and"} or question[-2:] in {
                "什么",
                "哪里",
            }
            if question.isascii():
                animal = next(word for word in question.split() if word in EN_FACTS)
                food, place = EN_FACTS[animal]
                assert reply == f"the {animal} " + (
                    f"eats {food}" if "what" in question else f"lives near the {place}"
                )


@pytest.mark.parametrize("split", SPLITS)
def test_ctm_has_the_words_of_the_text_inside_the_utterance(corpus: Path, split: str) -> None:
    folder = corpus / split
    text, language, length = (read(folder / name) for name in ("text", "utt2lang", "utt2dur"))
    words: dict[str, list[str]] = {}
    last: dict[str, float] = {}
    for line in (folder / "ctm").read_text(encoding="utf-8").splitlines():
        key, channel, start, duration, word = line.split()
        assert channel == "1"
        assert float(duration) > 0.02
        assert last.get(key, 0.03) <= float(start) + 1e-9, line
        last[key] = float(start) + float(duration)
        words.setdefault(key, []).append(word)
    assert all(last[key] < float(length[key]) for key in text)
    assert words == {key: words_of(text[key], language[key]) for key in text}


def test_word_times_fit_the_sound(tmp_path: Path) -> None:
    """With long gaps between the words the sound itself shows where they are: through the melody, a child's
    faster playing, an event in front and the padding."""
    voices = make_voices("dev", 1)
    copy_data(tmp_path, {voice.name: voice.variant for voice in voices})
    engine = Espeak(tmp_path)
    bend = Delivery(
        gap=0.2, melody=lambda seconds, part, chance: 1 + 0.5 * part, treat=lambda x, r, g: tilt(x, r, 1.0)
    )
    for number, voice in enumerate(voices):
        for language, text in (("en", "my horse runs near the barn"), ("zh", "大狗在山里跑")):
            samples, words = speak(
                engine, text, language, voice, bend, "cough" if number % 2 else None, [number]
            )
            inner = [samples[round(w.start * RATE) : round(w.end * RATE)] for w in words]
            for before, after in itertools.pairwise(words):
                assert after.start - before.end > 0.06
                gap = samples[round((before.end + 0.012) * RATE) : round((after.start - 0.012) * RATE)]
                assert rms(gap) < 0.1 * rms(np.concatenate(inner)), (voice, before, after)
            for word, sound in zip(words, inner, strict=True):
                assert rms(sound[: int(0.06 * RATE)]) > 0.02 * rms(sound), word
                assert rms(sound[-int(0.03 * RATE) :]) > 0.02 * rms(sound), word


def test_same_seed_same_bytes_for_any_number_of_processes(tmp_path: Path) -> None:
    few = {"train": 24, "dev": 8, "test": 16}
    first = contents(make(tmp_path / "a", 1, **few))
    assert contents(make(tmp_path / "b", 3, **few)) == first
    assert contents(make(tmp_path / "c", 2, seed=2, **few)) != first


def test_existing_output_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(OsumError, match=f"{tmp_path}: exists already"):
        make_tiny_corpus.main(["--output", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(output: Path, *rest: object) -> None:
        (output / "half").write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(make_tiny_corpus, "make_corpus", fail)
    with pytest.raises(OSError, match="disk full"):
        make_tiny_corpus.main(["--output", str(tmp_path / "out")])
    assert list(tmp_path.iterdir()) == []


def test_vocabulary_and_labels() -> None:
    assert len({reading[:-1] for reading in PINYIN.values()}) == len(PINYIN)
    assert (set(EVENTS), set(EMOTIONS), set(STYLES)) == tuple(
        LABELS[name] for name in ("utt2event", "utt2emotion", "utt2style")
    )
    rng = np.random.default_rng(0)
    for language, question in (("en", False), ("en", True), ("zh", False), ("zh", True)):
        made = {make_sentence(rng, language, question, "train") for _ in range(1500)}
        assert len(made) > 300
        assert all((sentence.reply is not None) == question for sentence in made)
