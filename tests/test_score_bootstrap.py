"""The bootstrap against the cases where its answer is known."""

import numpy as np
import pytest

from wenet_osum.score.bootstrap import Draws, interval, ratio


def test_one_utterance_or_none_gives_no_interval():
    assert interval([], ratio) is None
    assert interval([[1, 2]], ratio) is None
    assert interval([[1, 2], [3, 4]], ratio, weights=[1, 0]) is None


def test_equal_utterances_have_no_spread():
    assert interval([[1, 4]] * 10, ratio) == [25.0, 25.0]


def test_same_seed_same_interval_and_another_seed_another():
    rows = [[i % 7, 10] for i in range(50)]
    assert interval(rows, ratio) == interval(rows, ratio, draws=Draws(1000, 0))
    assert interval(rows, ratio) != interval(rows, ratio, draws=Draws(1000, 1))


def test_order_of_utterances_does_not_matter():
    rows = [[i % 7, 10] for i in range(50)]
    assert interval(rows, ratio) == interval(rows[::-1], ratio)


def test_binomial_width():
    # 400 coin flips, half of them right: the normal interval is 50 +- 1.96 * sqrt(.25 / 400) = 50 +- 4.9 %
    low, high = interval([[1, 1], [0, 1]] * 200, ratio, draws=Draws(4000, 3))
    assert low == pytest.approx(45.1, abs=0.5)
    assert high == pytest.approx(54.9, abs=0.5)


def test_weights_are_repeated_rows():
    repeated = interval([[1, 1]] * 30 + [[0, 1]] * 70, ratio, draws=Draws(4000))
    weighted = interval([[1, 1], [0, 1]], ratio, weights=[30, 70], draws=Draws(4000))
    assert weighted == pytest.approx(repeated, abs=1.0)


def test_utterances_are_drawn_not_tokens():
    # All errors sit in one of four utterances, so a draw holds 0, 1, 2 ... times 25 %; no draw of tokens
    # would leave them all out.
    assert interval([[10, 10], [0, 10], [0, 10], [0, 10]], ratio) == [0.0, 75.0]


def test_blocks_do_not_change_the_number_of_draws(monkeypatch):
    from wenet_osum.score import bootstrap

    seen = []

    def count(sums):
        seen.append(len(sums))
        return ratio(sums)

    monkeypatch.setattr(bootstrap, "_BLOCK_CELLS", 100)
    interval([[i, 30] for i in range(30)], count, draws=Draws(10))
    assert seen == [3, 3, 3, 1]


def test_draws_that_leave_it_undefined_are_left_out():
    assert interval([[1, 1], [0, 0]], ratio) == [100.0, 100.0]
    assert interval([[0, 0], [0, 0]], ratio) is None


def test_ratio_is_in_percent_and_nan_at_zero():
    values = ratio(np.array([[1.0, 4.0], [1.0, 0.0]]))
    assert values[0] == 25.0
    assert np.isnan(values[1])
