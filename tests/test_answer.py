"""Answers of whole questions: in any company, with labels and their probabilities, all tasks at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence

from tests.helpers import build, stage2_config
from wenet_osum.config import DEFAULTS, fill
from wenet_osum.decode.answer import Answered, Answerer
from wenet_osum.errors import OsumError
from wenet_osum.models.generation import OSUM_RELEASE, Search
from wenet_osum.tasks import load_tasks
from wenet_osum.text.base import BaseTokenizer
from wenet_osum.text.char import CharTokenizer

TABLE = load_tasks()
EIGHT = ["asr", "srwt", "ved", "ser", "ssr", "sgc", "sap", "sttc"]
LABELLED = ["age_gender", "style_age_gender", "ved_only", "style_age_gender_only"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BaseTokenizer:
    folder = tmp_path_factory.mktemp("units")
    marks = TABLE.marks()
    marks += [f"<{n / 25:.2f}>" for n in range(800)]
    units = ["<blank>", "<unk>", "<sos/eos>", "▁", *"abcdefghijklmnopqrstuvwxyz", *"今天气好", *marks]
    (folder / "units.txt").write_text("".join(f"{u} {n}\n" for n, u in enumerate(units)))
    return CharTokenizer(folder / "units.txt")


CONF = {**fill({}, DEFAULTS, "test")["dataset_conf"], "time_step": 0.04}
CONF["prompt_conf"] = {"style": "words", "lang": "en", "number": 1}


@pytest.fixture(scope="module")
def model(tokenizer: BaseTokenizer) -> Any:
    config = stage2_config()
    config["encoder_conf"] = {**config["encoder_conf"], "max_positions": 1500}
    config["model_conf"] = {**config["model_conf"], "max_new_tokens": 40}
    made = build(config, tokenizer.vocab_size(), seed=3, scale=3)
    made.eos = tokenizer.eos_id
    return made


def batch_of(frames: list[int], seed: int) -> dict[str, Any]:
    feats = [
        torch.randn(n, 80, generator=torch.Generator().manual_seed(seed + i)) for i, n in enumerate(frames)
    ]
    return {
        "keys": [f"u{i}" for i in range(len(frames))],
        "feats": pad_sequence(feats, batch_first=True, padding_value=7.0),
        "feats_lengths": torch.tensor(frames),
        "langs": ["en", "zh"] * (len(frames) // 2) + ["en"] * (len(frames) % 2),
    }


def one(batch: dict[str, Any], i: int) -> dict[str, Any]:
    n = int(batch["feats_lengths"][i])
    row = {name: batch[name][i : i + 1] for name in ("keys", "feats_lengths", "langs")}
    return {**row, "feats": batch["feats"][i : i + 1, :n]}


def answerer(model: Any, tokenizer: BaseTokenizer, **how: Any) -> Answerer:
    return Answerer(model, tokenizer, TABLE, CONF, CPU, **how)


def check(answer: Answered) -> None:
    """It parses, and each label is one that no other beats, of probabilities that sum to 1."""
    assert not [p for p in answer.answer.problems if "repeats itself" not in p and "cut at" not in p], answer
    task = TABLE[answer.task]
    assert set(answer.probabilities) == {f.name for f in task.fields}
    for name, shares in answer.probabilities.items():
        assert sum(shares.values()) == pytest.approx(1, abs=1e-6)
        assert tuple(shares) == TABLE.fields[name].values
    if len(task.fields) == 1:
        (name,) = answer.probabilities
        shares = answer.probabilities[name]
        assert shares[answer.answer.labels[name]] == max(shares.values())


# 0.3 s to 30 s
FRAMES = st.one_of(st.integers(30, 120), st.integers(120, 700), st.integers(700, 3000))
HOWS: list[dict[str, Any]] = [
    {},
    {"draft": "exact"},
    {"mode": "llm_beam", "search": Search(beam_size=3)},
    {"mode": "llm_beam", "search": OSUM_RELEASE},
    {"search": Search(do_sample=True, seed=5, top_p=0.9)},
    {"constrain": False},
    {"constrain": False, "draft": "exact"},
]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([1, 2, 7, 16]), st.data(), st.integers(0, 10**6), st.sampled_from(HOWS),
    st.sampled_from(["asr", "srwt", "ser", "style_age_gender", "sttc", "ved_only"]),
)  # fmt: skip
def test_batch_equals_single_answers(
    model: Any, tokenizer: BaseTokenizer, count: int, data: Any, seed: int, how: dict[str, Any], task: str
) -> None:
    """200 random batches of 1, 2, 7 or 16 utterances of 0.3 to 30 s."""
    frames = [data.draw(FRAMES if count < 16 or n < 2 else st.integers(30, 300)) for n in range(count)]
    batch = batch_of(frames, seed)
    asked = answerer(model, tokenizer, **how)
    together = asked.answer(batch, [task])[task]
    rows = range(count) if count < 16 else data.draw(st.permutations(range(count)))[:4]
    for i in rows:
        alone = asked.answer(one(batch, i), [task])[task][0]
        assert together[i].text == alone.text
        for name, shares in alone.probabilities.items():
            assert together[i].probabilities[name] == pytest.approx(shares, abs=1e-4)


@pytest.mark.parametrize("how", HOWS[:5])
def test_all_tasks_at_once_answer_as_each_alone_does(
    model: Any, tokenizer: BaseTokenizer, how: dict[str, Any]
) -> None:
    batch = batch_of([60, 150, 400], 1)
    asked = answerer(model, tokenizer, **how)
    together = asked.answer(batch, [*EIGHT, *LABELLED])
    assert list(together) == [*EIGHT, *LABELLED]
    for name, answers in together.items():
        assert [a.key for a in answers] == batch["keys"]
        alone = asked.answer(batch, [name])[name]
        for a, b in zip(answers, alone):
            check(a)
            if name in ("asr", "srwt") or not TABLE[name].transcript:
                assert a.text == b.text, name
            elif TABLE[name].transcript:  # the first task's transcript
                assert a.answer.text == together["asr"][batch["keys"].index(a.key)].answer.text


def test_constrained_always_parses_from_a_random_model(tokenizer: BaseTokenizer) -> None:
    """2,000 answers of random models to every task with a form."""
    count = 0
    for seed in range(9):
        config = stage2_config()
        config["model_conf"] = {**config["model_conf"], "max_new_tokens": 12}
        made = build(config, tokenizer.vocab_size(), seed=seed, scale=1 + seed)
        made.eos = tokenizer.eos_id
        how = HOWS[seed % 5]
        asked = answerer(made, tokenizer, **how)
        for part in range(3):
            batch = batch_of([30 + 17 * n + part for n in range(7)], 100 * seed + part)
            for answers in asked.answer(batch, list(TABLE)).values():
                for answer in answers:
                    check(answer)
                    count += 1
    assert count >= 2000


def test_draft_equals_greedy_answers(model: Any, tokenizer: BaseTokenizer) -> None:
    """A CTC head's text that is near the LLM's saves passes and changes nothing."""
    batch = batch_of([80, 200, 333, 500], 4)
    greedy = answerer(model, tokenizer)
    plain = greedy.answer(batch, EIGHT)
    truth = {a.key: tokenizer.encode(a.answer.text or "") for a in plain["asr"]}
    drafted = answerer(model, tokenizer, draft="exact")
    near = [[t for n, t in enumerate(truth[key]) if n % 7 != 3] for key in batch["keys"]]
    drafted.ctc_drafts = lambda heard: near  # type: ignore[method-assign]
    found = drafted.answer(batch, EIGHT)
    assert {t: [a.text for a in of] for t, of in found.items()} == {
        t: [a.text for a in of] for t, of in plain.items()
    }
    assert sum(a.accepted for a in found["asr"]) > 0.5 * sum(map(len, truth.values()))
    assert sum(a.accepted for a in found["srwt"]) > 0


def test_a_question_has_hotwords_a_language_and_other_words(model: Any, tokenizer: BaseTokenizer) -> None:
    ser = TABLE["ser"]

    def words(**how: Any) -> str:
        return tokenizer.decode(answerer(model, tokenizer, **how).prompt_ids(ser, "en").tolist())

    def letters(text: str) -> str:
        return tokenizer.decode(tokenizer.encode(text))

    asked = ser.prompt("en", 0)
    assert words() == letters(asked)
    assert words(hotwords=["ada", "bob"]) == letters(asked + " Hotwords: ada, bob.")
    assert words(lang="zh", hotwords=["天气"]) == letters(ser.prompt("zh", 0) + "热词：天气。")
    assert words(prompt="what is it") == letters("what is it")
    assert words(prompt="what is it", hotwords=["ada"]) == letters("what is it Hotwords: ada.")


def test_an_utterance_has_a_question_of_its_own(model: Any, tokenizer: BaseTokenizer) -> None:
    """It stands in place of the task's where the task has a reply, and nowhere else."""
    batch, own = batch_of([60, 60], 5), "what does ada say"
    plain = answerer(model, tokenizer).answer(batch, ["ser", "sttc"])
    asked = answerer(model, tokenizer, prompt=own).answer(batch, ["sttc"])["sttc"]
    found = answerer(model, tokenizer).answer({**batch, "questions": [None, own]}, ["ser", "sttc"])
    assert [a.text for a in found["ser"]] == [a.text for a in plain["ser"]]
    assert found["sttc"][0].text == plain["sttc"][0].text
    alone = answerer(model, tokenizer).answer({**batch, "questions": [own, own]}, ["sttc"])["sttc"]
    assert [a.text for a in alone] == [a.text for a in asked]


def test_what_does_not_go_with_a_draft_is_said(model: Any, tokenizer: BaseTokenizer) -> None:
    for how in ({"mode": "llm_beam"}, {"search": Search(do_sample=True)}):
        with pytest.raises(OsumError, match="greedy"):
            answerer(model, tokenizer, draft="exact", **how)
    silent = build(stage2_config(ctc="none"), tokenizer.vocab_size())
    with pytest.raises(OsumError, match="CTC"):
        answerer(silent, tokenizer, draft="exact")


def test_timed_words_stay_as_they_are_beside_labels_behind_timed_words(
    model: Any, tokenizer: BaseTokenizer, tmp_path: Any
) -> None:
    (tmp_path / "tasks.yaml").write_text(
        'srwt_ser: {tag: <TRANSCRIBE> <ALIGN> <EMOTION>, prompts: {en: ["When and how?"]}}\n'
    )
    table = load_tasks(tmp_path / "tasks.yaml")
    asked = Answerer(model, tokenizer, table, CONF, CPU)
    batch = batch_of([60, 150, 400], 1)
    together = asked.answer(batch, ["asr", "srwt", "srwt_ser"])
    for name in ("srwt", "srwt_ser"):
        assert [a.text for a in together[name]] == [a.text for a in asked.answer(batch, [name])[name]]
        assert all(
            not a.answer.problems or "cut" in a.answer.problems[0] or "repeats" in a.answer.problems[0]
            for a in together[name]
        )
    assert all(a.answer.labels["emotion"] in table.fields["emotion"].values for a in together["srwt_ser"])
