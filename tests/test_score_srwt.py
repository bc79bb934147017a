"""Which words have a time shift; test_scorer_reference.py has the averages."""

import pytest

from wenet_osum.score.srwt import shift_scores, word_shifts
from wenet_osum.tasks import Word

REF = [Word(0.0, 0.4, "good"), Word(0.5, 0.9, "morning"), Word(1.0, 1.3, "all")]


def test_only_words_that_both_have_are_compared():
    # "good" -> "god" (substituted, far off), "oh" inserted, "all" deleted: only "morning" has a shift
    hyp = [Word(5.0, 6.0, "god"), Word(0.6, 0.9, "Morning"), Word(0.9, 1.0, "oh")]
    assert word_shifts(REF, hyp) == [(pytest.approx(0.1), pytest.approx(0.0))]


def test_insertion_in_front_does_not_shift_the_pairing():
    hyp = [Word(0.0, 0.0, "so"), *REF]
    assert word_shifts(REF, hyp) == [(0.0, 0.0)] * 3


def test_chinese_characters_and_marks():
    ref = [Word(0.0, 0.2, "你"), Word(0.2, 0.4, "好")]
    hyp = [Word(0.0, 0.2, "你"), Word(0.3, 0.4, "好。"), Word(0.4, 0.4, "。")]
    assert word_shifts(ref, hyp) == [(0.0, 0.0), (pytest.approx(0.1), 0.0)]


def test_missing_hypothesis_lowers_the_aligned_share():
    result = shift_scores({"a": REF, "b": REF}, {"a": REF})
    assert (result["value"], result["aligned"]) == (0.0, 50.0)


def test_nothing_aligned_is_undefined():
    result = shift_scores({"a": REF}, {})
    assert result["value"] is None
    assert result["token_sum_ms"] is None
    assert result["interval"] is None
    assert result["aligned"] == 0.0
