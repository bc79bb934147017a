"""local/make_mini_corpus.py by espeak-ng alone, on a miniature of WordNet's files."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wenet_osum.bin import validate
from wenet_osum.errors import OsumError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "local"))
import make_mini_corpus
from mini_corpus import texts
from mini_corpus.prompts import PROMPTS, QUESTIONS, draw, spell
from mini_corpus.replies import first_sentence
from mini_corpus.texts import Held, readable, without

SIZES = ["--train", "36", "--dev", "4", "--test", "6"]


def make_wordnet(root: Path, count: int = 60) -> Path:
    folder = root / "usr/share/wordnet"
    folder.mkdir(parents=True)
    names = ["cat", "dog", "man", "bird", "horse", "tree", "ship", "child", "friend", "king"]
    verbs = ["sees", "hears", "follows", "finds", "likes", "knows"]
    sentences = [f"the {names[i % 10]} {verbs[i // 10]} the old {names[(i + 3) % 10]}" for i in range(count)]
    for name in texts.FILES:
        own = sentences if name == "data.noun" else []
        lines = [f'0000{i} 03 n 01 word 0 000 | a gloss; "{s}"; "H2 O, pp. 3"' for i, s in enumerate(own)]
        (folder / name).write_text("  1 licence of the file\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return root


def make(output: Path, root: Path, *more: str) -> Path:
    args = ["--output", output, "--root", root, "--engines", "espeak", *SIZES, *more]
    assert make_mini_corpus.main([str(a) for a in args]) == 0
    return output


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wordnet(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    held = tmp_path_factory.mktemp("held")
    (held / "text").write_text("u1 the cat sees the old bird\n", encoding="utf-8")
    return make(tmp_path_factory.mktemp("mini") / "corpus", root, "--held_out", str(held), "--nj", "2")


def table(path: Path) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in path.read_text(encoding="utf-8").splitlines())


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.suffix != ".scp" and p.is_file()
    }


def test_whole_dirs_without_shared_voices_or_sentences(corpus: Path):
    sentences, speakers = {}, {}
    for split in ("train", "dev", "test"):
        assert validate.main([str(corpus / split)]) == 0
        sentences[split] = set(table(corpus / split / "text").values())
        speakers[split] = table(corpus / split / "spk2gender")
        assert set(speakers[split].values()) <= {"female", "male"}
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert sentences[one].isdisjoint(sentences[other]) and speakers[one].keys().isdisjoint(
            speakers[other]
        )
    assert set(speakers["train"].values()) == {"female", "male"}
    assert "the cat sees the old bird" not in set().union(*sentences.values())


def test_word_times_lie_on_the_speech(corpus: Path):
    """Samples inside the words are louder than those before the first."""
    wavs = table(corpus / "train" / "wav.scp")
    words: dict[str, list[tuple[float, float, str]]] = {}
    for line in (corpus / "train" / "ctm").read_text(encoding="utf-8").splitlines():
        key, _, start, length, word = line.split()
        words.setdefault(key, []).append((float(start), float(length), word))
    text, rates = table(corpus / "train" / "text"), set()
    assert len(words) >= 30
    for key, row in words.items():
        assert [w for _, _, w in row] == text[key].split()
        samples, rate = soundfile.read(corpus / "train" / wavs[key])
        rates.add(rate)
        level = [np.abs(samples[int(s * rate) : int((s + n) * rate)]).mean() for s, n, _ in row]
        assert min(level) > 3 * np.abs(samples[: int(row[0][0] * rate) - 40]).mean()
        assert all(row[i][0] + row[i][1] <= row[i + 1][0] + 0.011 for i in range(len(row) - 1))
        assert row[-1][0] + row[-1][1] <= len(samples) / rate
    assert rates == {8000, 16000}


def test_noises_and_rooms_are_lists_that_training_reads(corpus: Path):
    from wenet_osum.dataset.augment_lists import AudioList

    for name, count in (("noise", 48), ("room", 24)):
        entries = AudioList(str(corpus / "sounds" / f"{name}.scp"), name).entries
        assert len(entries) == count
    assert np.argmax(np.abs(soundfile.read(corpus / "sounds" / "room" / "room00.wav")[0])) == 0


def test_goes_on_where_it_was_stopped(corpus: Path, root: Path, tmp_path: Path):
    copy, held = tmp_path / "corpus", tmp_path / "held"
    held.mkdir()
    (held / "text").write_text("u1 the cat sees the old bird\n", encoding="utf-8")
    shutil.copytree(corpus, copy)
    lost = sorted((copy / "parts").iterdir())[-1]
    shutil.move(str(lost), lost.with_name(f".{lost.name}.1.tmp"))
    shutil.rmtree(copy / "train")
    make(copy, root, "--held_out", str(held), "--nj", "1")
    assert contents(copy) == contents(corpus)
    with pytest.raises(OsumError, match="of another seed"):
        make(copy, root, "--seed", "2")


def test_bad_input_make_mini_corpus(root: Path, tmp_path: Path):
    with pytest.raises(OsumError, match="apt-get install wordnet-base"):
        make(tmp_path / "a", tmp_path)
    with pytest.raises(OsumError, match="too few for train"):
        make(tmp_path / "b", root, "--train", "5000")
    with pytest.raises(OsumError, match="have no voice for"):
        make(tmp_path / "c", root, "--engines", "hibari")
    with pytest.raises(OsumError, match="give Kaldi dirs to --held_out"):
        make(tmp_path / "d", root, "--held_out", str(tmp_path))


def test_what_is_held_out_and_what_is_readable():
    held = Held(["Please enter your agent number", "goodbye"])
    assert held.covers("please, enter your agent number now") and held.covers("Goodbye!")
    assert not held.covers("goodbye my friend") and not held.covers("please enter your number")
    used: set[str] = set()
    assert list(without(["Good morning.", "good morning", "goodbye"], held, used)) == ["Good morning."]
    assert readable("he left the house, didn't he?")
    for text in (
        "he left",
        "the BBC said so",
        "he lives at no. 3",
        "e.g. this one here",
        "vitamin B is good",
    ):
        assert not readable(text), text


def test_the_grammar_fills_every_slot_with_readable_words():
    rng = np.random.default_rng(0)
    for templates in (PROMPTS, QUESTIONS):
        drawn = draw(templates, 10 * len(templates), rng)
        assert len(set(drawn)) > 0.5 * len(drawn) or templates is QUESTIONS
        assert all("{" not in s and not any(c.isdigit() for c in s) for s in drawn)
    assert [spell(n) for n in (0, 19, 20, 45, 100, 311, 7000, 9999)] == [
        *(
            "zero",
            "nineteen",
            "twenty",
            "forty five",
            "one hundred",
            "three hundred eleven",
            "seven thousand",
        ),
        "nine thousand nine hundred ninety nine",
    ]


def test_answers_are_one_sentence_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert first_sentence("**Paris** is the capital. It is big.") == "Paris is the capital."
    assert first_sentence("It goes on without an end") == ""
    asked: list[list[str]] = []

    def answer(questions: list[str], llm: str) -> list[str]:
        asked.append(questions)
        return [f"Yes, {q}." for q in questions]

    monkeypatch.setattr(make_mini_corpus, "answer", answer)
    for questions in (["a", "b"], ["b", "c"]):
        found = make_mini_corpus.answered(questions, "llm", tmp_path / "replies.json")
        assert found == {q: f"Yes, {q}." for q in questions}
    assert asked == [["a", "b"], ["c"]]
    assert json.loads((tmp_path / "replies.json").read_text())["c"] == "Yes, c."
