"""Label scores worked out by hand; test_scorer_reference.py has scikit-learn's."""

import pytest

from wenet_osum.errors import OsumError
from wenet_osum.score.labels import NO_ANSWER, label_scores

VALUES = ("happy", "sad", "fear")


def test_by_hand_with_a_missing_answer():
    # happy happy happy happy sad sad ; answers happy happy sad (none) sad happy
    refs = dict(zip("abcdef", ["happy"] * 4 + ["sad"] * 2, strict=True))
    hyps = {"a": "happy", "b": "happy", "c": "sad", "e": "sad", "f": "happy"}
    result = label_scores(refs, hyps, VALUES)
    assert result["accuracy"] == pytest.approx(50.0)
    assert result["recall"] == {"happy": pytest.approx(50.0), "sad": pytest.approx(50.0)}
    assert result["uar"] == pytest.approx(50.0)
    # happy: TP 2, FP 1, FN 2 -> 4 / 7; sad: TP 1, FP 1, FN 1 -> 2 / 4; fear is not in the references
    assert result["macro_f1"] == pytest.approx(100 * (4 / 7 + 1 / 2) / 2)
    assert result["confusion"] == {
        "labels": list(VALUES),
        "columns": [*VALUES, NO_ANSWER],
        "matrix": [[2, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]],
    }


def test_answering_the_commonest_class_shows_in_uar():
    refs = {str(i): "happy" if i < 9 else "sad" for i in range(10)}
    result = label_scores(refs, dict.fromkeys(refs, "happy"), VALUES)
    assert result["accuracy"] == pytest.approx(90.0)
    assert result["uar"] == pytest.approx(50.0)


def test_no_answer_at_all_is_zero():
    result = label_scores({"a": "happy", "b": "sad"}, {}, VALUES)
    assert (result["accuracy"], result["macro_f1"], result["uar"]) == (0.0, 0.0, 0.0)
    assert result["accuracy_interval"] == [0.0, 0.0]


def test_no_reference_is_undefined():
    result = label_scores({}, {}, VALUES)
    assert result["accuracy"] is None
    assert result["uar_interval"] is None


def test_intervals_hold_the_values_and_are_reproducible():
    refs = {str(i): VALUES[i % 3] for i in range(60)}
    hyps = {str(i): VALUES[i % 3] if i % 5 else "happy" for i in range(60)}
    result = label_scores(refs, hyps, VALUES)
    for name in ("accuracy", "macro_f1", "uar"):
        low, high = result[f"{name}_interval"]
        assert low < result[name] < high
    assert result == label_scores(refs, hyps, VALUES)


def test_bad_input_label_outside_the_set():
    with pytest.raises(OsumError, match="utt7: 'glad' is none of happy, sad, fear"):
        label_scores({"utt7": "glad"}, {}, VALUES)
    with pytest.raises(OsumError, match="utt7: 'glad' is none of"):
        label_scores({"utt7": "sad"}, {"utt7": "glad"}, VALUES)
