"""The bootstrap against the cases where its answer is known."""

import numpy as np
import pytest

from wenet_osum.score import bootstrap
from wenet_osum.score.bootstrap import DEFAULT, Draws, resample
from wenet_osum.score.figure import Figure, ratio, render


def interval(rows, draws=DEFAULT):
    return Figure.of(rows, ratio).interval(draws)


def test_one_utterance_or_none_gives_no_interval():
    assert interval([]) is None
    assert interval([[1, 2]]) is None
    assert Figure.of([], ratio).value is None


def test_equal_utterances_have_no_spread():
    assert interval([[1, 4]] * 10) == [25.0, 25.0]


def test_same_seed_same_interval_and_another_seed_another():
    rows = [[i % 7, 10] for i in range(50)]
    assert interval(rows) == interval(rows, Draws(1000, 0))
    assert interval(rows) != interval(rows, Draws(1000, 1))


def test_order_of_utterances_does_not_matter():
    rows = [[i % 7, 10] for i in range(50)]
    assert interval(rows) == interval(rows[::-1])


def test_binomial_width():
    # 400 coin flips, half of them right: the normal interval is 50 +- 1.96 * sqrt(.25 / 400) = 50 +- 4.9 %
    low, high = interval([[1, 1], [0, 1]] * 200, Draws(4000, 3))
    assert low == pytest.approx(45.1, abs=0.5)
    assert high == pytest.approx(54.9, abs=0.5)


def test_both_ways_of_drawing_draw_alike():
    # 1000 utterances: of 2 kinds they are drawn by kind; each a little different, one by one
    few = np.array([[1.0, 1.0], [0.0, 1.0]] * 500)
    many = few + np.arange(1000)[:, None] * 1e-9
    by_kind, one_by_one = (interval(rows, Draws(4000)) for rows in (few, many))
    assert by_kind == pytest.approx(one_by_one, abs=0.4)
    assert by_kind == pytest.approx([46.9, 53.1], abs=0.4)


def test_every_draw_holds_as_many_utterances():
    for rows in (np.ones((3, 1)), np.arange(50.0)[:, None] * 0 + 1):
        counts = np.full(len(rows), 60 if len(rows) == 3 else 1)
        assert set(resample(rows, counts, Draws(20))[:, 0]) == {float(counts.sum())}


def test_utterances_are_drawn_not_tokens():
    # All errors sit in one of four utterances, so a draw holds 0, 1, 2 ... times 25 %; no draw of tokens
    # would leave them all out.
    assert interval([[10, 10], [0, 10], [0, 10], [0, 10]]) == [0.0, 75.0]


def test_blocks_do_not_change_the_draws(monkeypatch):
    rows, counts = np.arange(60.0).reshape(30, 2), np.ones(30, dtype=int)
    whole = resample(rows, counts, Draws(10))
    monkeypatch.setattr(bootstrap, "_BLOCK_CELLS", 100)  # 3 draws at a time
    assert np.array_equal(resample(rows, counts, Draws(10)), whole)


def test_draws_that_leave_it_undefined_are_left_out():
    assert interval([[1, 1], [0, 0]]) == [100.0, 100.0]
    assert interval([[0, 0], [0, 0]]) is None


def test_ratio_is_in_percent_and_nan_at_zero():
    values = ratio(np.array([[1.0, 4.0], [1.0, 0.0]]))
    assert values[0] == 25.0
    assert np.isnan(values[1])


def test_render_puts_value_and_interval_where_the_figure_stood():
    figure = Figure.of([[1, 4]] * 3, ratio)
    tree = {"metric": "wer", "value": figure, "fields": {"age": {"accuracy": figure}}, "counts": {"n": 3}}
    assert list(render(tree).items()) == [
        ("metric", "wer"),
        ("value", 25.0),
        ("interval", [25.0, 25.0]),
        ("fields", {"age": {"accuracy": 25.0, "accuracy_interval": [25.0, 25.0]}}),
        ("counts", {"n": 3}),
    ]
