"""Reply scores by hand; test_scorer_reference.py has sacrebleu's."""

import pytest

from wenet_osum.score import reply
from wenet_osum.score.reply import reply_scores, same_answer


@pytest.mark.parametrize(
    ("ref", "hyp", "same"),
    [
        ("It is Monday!", "it is  monday", True),
        ("今天是星期一。", "今天 是 星期一", True),
        ("it is monday", "it is sunday", False),
        ("seven", "", False),
    ],
)
def test_same_answer(ref, hyp, same):
    assert same_answer(ref, hyp) is same


def test_exact_rate_counts_missing_as_wrong():
    refs = {"a": "yes", "b": "no", "c": "seven", "d": "nine"}
    result = reply_scores(refs, {"a": "Yes.", "b": "no!", "c": "eight"})
    assert result["metric"] == "exact"
    assert result["value"] == pytest.approx(25.0)  # "yes." keeps its full stop: not one of the 17 marks
    assert result["counts"] == {"utterances": 4, "exact": 1}
    low, high = result["interval"]
    assert 0.0 <= low < 25.0 < high <= 100.0


def test_bleu_by_hand():
    # hyp "the red cat sat" of ref "the cat sat": precisions 3/4, 1/3 and, smoothed, 1/(2*2), 1/(4*1);
    # the hypothesis is longer, so no brevity penalty
    expected = 100 * (3 / 4 * 1 / 3 * 1 / 4 * 1 / 4) ** 0.25
    assert reply_scores({"a": "the cat sat"}, {"a": "the red cat sat"})["bleu"]["value"] == pytest.approx(
        expected
    )


def test_short_answers_that_are_right_have_full_bleu():
    result = reply_scores({"a": "yes", "b": "三"}, {"a": "yes", "b": "三"})
    assert result["bleu"]["value"] == pytest.approx(100.0)
    assert result["bleu"]["interval"] == pytest.approx([100.0, 100.0])
    assert result["chrf"]["value"] == pytest.approx(100.0)


def test_intervals_hold_the_values_and_are_reproducible():
    refs = {str(i): f"number {i} is what you want to hear" for i in range(30)}
    hyps = {k: v if int(k) % 3 else "something else that is wrong" for k, v in refs.items()}
    result = reply_scores(refs, hyps)
    for name in ("bleu", "chrf"):
        low, high = result[name]["interval"]
        assert low < result[name]["value"] < high
    assert result == reply_scores(refs, hyps)


def test_no_reference_is_undefined():
    result = reply_scores({}, {})
    assert result["value"] is None
    assert result["bleu"] is None


def test_parts_do_not_change_the_scores(monkeypatch):
    refs = {str(i): f"number {i} is what you want" for i in range(7)}
    hyps = {k: v if int(k) % 3 else "another thing" for k, v in refs.items()}
    whole = reply_scores(refs, hyps)
    monkeypatch.setattr(reply, "_PART", 3)
    assert reply_scores(refs, hyps) == whole
