"""Paired comparisons where the answer is known."""

import numpy as np
import pytest
from scipy.stats import binomtest

from wenet_osum.score.bootstrap import Draws
from wenet_osum.score.compare import compare, compare_figures
from wenet_osum.score.figure import Figure, ratio
from wenet_osum.score.score import score_tree
from wenet_osum.tasks import load_tasks

TASKS = load_tasks()
REFS = [
    {"key": str(i), "wav": "x.wav", "txt": text, "emotion": emotion, "reply": "it is so"}
    for i, (text, emotion) in enumerate([("good day to you", "happy"), ("我很好", "sad")] * 20)
]


def right(marks):
    return Figure.of([(m, 1) for m in marks], ratio)


def test_a_system_beside_itself():
    result = compare_figures(right([1, 0, 1]), right([1, 0, 1]))
    assert result == {"value": 200 / 3, "other": 200 / 3, "difference": 0.0, "interval": [0.0, 0.0], "p": 1.0}


def test_difference_is_the_first_less_the_second_and_turns_round():
    a, b = right([1, 1, 1, 0] * 10), right([1, 0, 1, 0] * 10)
    ab, ba = compare_figures(a, b), compare_figures(b, a)
    assert (ab["value"], ab["other"], ab["difference"]) == (75.0, 50.0, 25.0)
    assert ba["difference"] == -25.0
    assert ba["interval"] == pytest.approx([-x for x in reversed(ab["interval"])], abs=2.6)
    assert ab["p"] == pytest.approx(2 / 1001)  # no draw of 40 has none of the 10 that differ


def test_what_both_have_wrong_does_not_weigh():
    """Paired: 5 of 500 differ, all one way. The systems' own intervals overlap by far."""
    a = [1] * 255 + [0] * 245
    b = [1] * 250 + [0] * 250
    paired = compare_figures(right(a), right(b))
    assert right(a).interval()[0] < right(b).value < right(b).interval()[1]
    assert paired["interval"][0] > 0
    assert paired["p"] < 0.05


def test_p_of_a_balanced_difference_is_that_of_a_sign_test():
    # 30 utterances only the first has right, 20 only the second, 150 both
    a = [1] * 30 + [0] * 20 + [1] * 150
    b = [0] * 30 + [1] * 20 + [1] * 150
    exact = binomtest(30, 50).pvalue
    assert compare_figures(right(a), right(b), Draws(4000))["p"] == pytest.approx(exact, abs=0.05)


def test_pairs_follow_the_utterances_not_the_rows():
    """The same marks, dealt out to other utterances: the values stay, the spread of the difference does not."""
    a = [1, 0] * 50
    same, crossed = compare_figures(right(a), right(a)), compare_figures(right(a), right(a[::-1]))
    assert same["difference"] == crossed["difference"] == 0.0
    assert crossed["interval"][0] < 0 < crossed["interval"][1]


def test_undefined_or_one_utterance_gives_no_p():
    none = Figure.of([(0, 0)] * 3, ratio)
    assert compare_figures(none, right([1, 1, 0])) | {"other": 0} == {
        "value": None,
        "other": 0,
        "difference": None,
        "interval": None,
        "p": None,
    }
    assert compare_figures(right([1]), right([0]))["p"] is None
    assert compare_figures(right([1]), right([0]))["difference"] == 100.0


def test_every_score_of_a_task_is_compared_by_name():
    good = {r["key"]: f"{r['txt']}<{r['emotion']}>" for r in REFS}
    bad = dict.fromkeys(good, "good day<happy>")
    result = compare(score_tree(TASKS["ser"], REFS, good), score_tree(TASKS["ser"], REFS, bad))
    assert list(result) == [
        "accuracy",
        "emotion macro_f1",
        "emotion uar",
        "transcript mer",
    ]
    assert (result["accuracy"]["value"], result["accuracy"]["other"]) == (100.0, 50.0)
    assert result["emotion uar"]["difference"] == 50.0
    assert result["transcript mer"]["difference"] < 0
    assert all(r["p"] == pytest.approx(2 / 1001) for r in result.values())


def test_names_of_the_other_tasks():
    asr = score_tree(TASKS["asr"], REFS, {})
    assert list(compare(asr, asr, Draws(5))) == ["mer", "en wer", "zh cer"]
    sttc = score_tree(TASKS["sttc"], REFS, {})
    assert list(compare(sttc, sttc, Draws(5))) == ["exact", "bleu", "chrf", "transcript mer"]


def test_same_seed_same_comparison():
    a, b = right([1, 0, 1, 1] * 5), right([0, 1, 1, 0] * 5)
    assert compare_figures(a, b) == compare_figures(a, b)
    assert not np.isclose(compare_figures(a, b)["p"], compare_figures(a, b, Draws(1000, 3))["p"])
