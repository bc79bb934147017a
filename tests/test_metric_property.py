"""What must hold of every metric, whatever the references and answers.

`scores` gives all of them flat: the eight tasks' values, all that stands beside them, and the judge's.
"""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenet_osum.score.bootstrap import Draws
from wenet_osum.score.compare import compare, figures_of
from wenet_osum.score.figure import render
from wenet_osum.score.judge import judge_tree
from wenet_osum.score.score import score_tree
from wenet_osum.tasks import load_tasks

TASKS = load_tasks()
EIGHT = ["asr", "srwt", "ved", "ser", "ssr", "sgc", "sap", "sttc"]
COMPOUND = ["age_gender", "ser_only"]
FEW = Draws(20)
# Metrics whose best is nothing at all; of the others it is 100, and a judge's is 10.
ERRORS = {"mer", "wer", "cer", "aas_ms"}

WORDS = st.lists(st.sampled_from(["good", "day", "it's", "你", "好", "三"]), min_size=1, max_size=5)


@st.composite
def samples(draw):
    """References that support every task."""
    refs = []
    for n in range(draw(st.integers(2, 5))):
        words = draw(WORDS)
        starts = sorted(draw(st.lists(st.integers(0, 500), min_size=len(words), max_size=len(words))))
        ref = {"key": f"u{n}", "wav": "x.wav", "txt": " ".join(words), "reply": " ".join(draw(WORDS))}
        ref["align"] = [[s / 100, s / 100 + 0.1, w] for s, w in zip(starts, words, strict=True)]
        for field in TASKS.fields.values():
            ref[field.name] = draw(st.sampled_from(field.values))
        refs.append(ref)
    return refs


@st.composite
def decoded(draw, name):
    """References, and answers of the task: right, right for another utterance, no answer's form, or missing."""
    refs = draw(samples())
    right = list(perfect(name, refs).values())
    hyps = {}
    for n, ref in enumerate(refs):
        others = st.sampled_from([*right, right[n], "", "good day", "<0.10>good<happy", "三<开始回答>"])
        answer = draw(st.none() | others)
        if answer is not None:
            hyps[ref["key"]] = answer
    return refs, hyps


class Judge:
    """In place of an endpoint: 10 for the good answer, less the more its length differs."""

    url, model = "stub", "stub"

    def ask(self, prompt):
        good, answer = prompt.split("compare with:\n")[1].split("\n\nThe assistant's answer:\n")
        answer = answer.split("\n\nGive a whole")[0]
        return f"Score: {10 if good == answer else max(1, 8 - abs(len(good) - len(answer)))}"


def tree_of(name, refs, hyps, folder):
    tree = score_tree(TASKS[name], refs, hyps)
    if TASKS[name].reply:
        path = folder / "judge.jsonl"
        path.unlink(missing_ok=True)
        tree["judge"] = judge_tree(TASKS[name], refs, hyps, Judge(), path, workers=1)
    return tree


def scores(tree):
    return {name: figure.value for name, figure in figures_of(tree)}


def perfect(name, refs):
    task = TASKS[name]
    return {ref["key"]: task.compose(task.answer_of(ref)) for ref in refs}


def best(name):
    metric = name.split()[-1]
    return 0.0 if metric in ERRORS else 10.0 if metric == "judge" else 100.0


def badness(name, value):
    """Grows as a score gets worse."""
    return value if name.split()[-1] in ERRORS else -value


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("judge")


def each_task(test):
    return pytest.mark.parametrize("name", EIGHT + COMPOUND)(settings(max_examples=25, deadline=None)(test))


def test_these_are_all_the_metrics(folder):
    """What the properties below are asked of."""
    named = set()
    refs = [
        {"key": k, "wav": "x", "txt": t, "reply": "yes", "align": [[0, 1, t]]}
        for k, t in (("a", "hi"), ("b", "好"))
    ]
    refs = [ref | {f.name: f.values[0] for f in TASKS.fields.values()} for ref in refs]
    for name in EIGHT + COMPOUND:
        named |= {score.split()[-1] for score in scores(tree_of(name, refs, {}, folder))}
    labels = {"accuracy", "macro_f1", "uar"}
    assert named == {"mer", "wer", "cer", "aas_ms", "aligned", *labels, "exact", "bleu", "chrf", "judge"}


@each_task
@given(data=st.data())
def test_order_of_utterances_changes_nothing(name, folder, data):
    refs, hyps = data.draw(decoded(name))
    tree = render(tree_of(name, refs, hyps, folder), FEW)
    mixed = random.Random(1).sample(refs, len(refs))
    other = render(tree_of(name, mixed, dict(reversed(hyps.items())), folder), FEW)
    assert json.dumps(other) == json.dumps(tree)


@each_task
@given(data=st.data())
def test_perfect_answers_score_perfect_in_every_draw(name, folder, data):
    refs = data.draw(samples())
    tree = tree_of(name, refs, perfect(name, refs), folder)
    for score, value in scores(tree).items():
        assert value == pytest.approx(best(score)), score
    assert all(i == pytest.approx([best(n)] * 2) for n, i in intervals(tree).items())
    counts = render(tree, FEW)["counts"]
    assert (counts["missing"], counts["unparseable"], counts["extra"]) == (0, 0, 0)


def intervals(tree):
    """Those that are defined: of two utterances or more."""
    found = {name: figure.interval(FEW) for name, figure in figures_of(tree)}
    return {name: interval for name, interval in found.items() if interval}


@each_task
@given(data=st.data())
def test_a_missing_answer_is_an_error(name, folder, data):
    """Taken out of perfect ones, it makes every score that it counts for worse; the average shift alone is told of
    by the share of words aligned."""
    refs = data.draw(samples())
    hyps = perfect(name, refs)
    lost = data.draw(st.sampled_from(sorted(hyps)))
    tree = tree_of(name, refs, {k: v for k, v in hyps.items() if k != lost}, folder)
    for score, value in scores(tree).items():
        metric, lang = score.split()[-1], score.split()[0]
        if metric == "aas_ms" or (metric in ("wer", "cer") and lang != language(lost, refs)):
            assert value == 0.0
        else:
            assert badness(score, value) > badness(score, best(score)), score
    assert render(tree, FEW)["counts"]["missing"] == 1


def language(key, refs):
    return next("zh" if set("你好三") & set(ref["txt"]) else "en" for ref in refs if ref["key"] == key)


@each_task
@given(data=st.data())
def test_a_missing_answer_is_no_better_than_one_that_says_nothing(name, folder, data):
    refs, hyps = data.draw(decoded(name))
    lost = data.draw(st.sampled_from([ref["key"] for ref in refs]))
    without = {k: v for k, v in hyps.items() if k != lost}
    assert scores(tree_of(name, refs, without, folder)) == scores(
        tree_of(name, refs, without | {lost: ""}, folder)
    )


@each_task
@given(data=st.data())
def test_answers_to_other_utterances_count_for_nothing(name, folder, data):
    refs, hyps = data.draw(decoded(name))
    more = hyps | {"stranger": next(iter(perfect(name, refs).values()))}
    plain, extra = (render(tree_of(name, refs, h, folder), FEW) for h in (hyps, more))
    assert extra["counts"].pop("extra") == 1
    assert plain["counts"].pop("extra") == 0
    assert plain == extra


@each_task
@given(data=st.data())
def test_every_utterance_twice_changes_no_value(name, folder, data):
    refs, hyps = data.draw(decoded(name))
    twice = [ref | {"key": ref["key"] + end} for ref in refs for end in ("", "x")]
    tree = scores(tree_of(name, refs, hyps, folder))
    doubled = tree_of(name, twice, hyps | {f"{k}x": v for k, v in hyps.items()}, folder)
    tree.pop(
        "bleu", None
    )  # an order of n-grams that nobody has right counts a half of one, however many there are
    assert {name: value for name, value in scores(doubled).items() if name in tree} == pytest.approx(tree)


@each_task
@given(data=st.data())
def test_intervals_are_in_order_in_range_and_hold_a_mean(name, folder, data):
    refs, hyps = data.draw(decoded(name))
    tree = tree_of(name, refs, hyps, folder)
    values = scores(tree)
    for score, interval in intervals(tree).items():
        low, high = interval
        metric = score.split()[-1]
        assert low <= high
        assert low >= (1 if metric == "judge" else 0)
        assert metric in ERRORS or high <= (10 if metric == "judge" else 100 + 1e-9)
        if metric in ("accuracy", "exact"):
            # the number of right ones is the median of a draw's; 20 draws leave a chance of 2 in a million
            assert low - 1e-9 <= values[score] <= high + 1e-9


@each_task
@given(data=st.data())
def test_a_comparison_turns_round_with_its_sides(name, folder, data):
    refs, hyps = data.draw(decoded(name))
    a, b = (tree_of(name, refs, h, folder) for h in (hyps, perfect(name, refs)))
    there, back, same = compare(a, b, FEW), compare(b, a, FEW), compare(a, a, FEW)
    for score, found in there.items():
        if found["difference"] is None:
            assert found["p"] is None and found["interval"] is None
            continue
        assert back[score]["difference"] == -found["difference"]
        assert badness(score, found["difference"]) >= -1e-9, score  # perfect is no worse
        assert same[score]["difference"] == 0.0
        if found["p"] is None:  # a language with one utterance
            assert found["interval"] is None
            continue
        assert 0 < found["p"] <= 1
        assert same[score]["p"] == 1.0
