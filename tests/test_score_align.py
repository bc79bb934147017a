"""Alignments by hand and by their definition; test_scorer_reference.py has what compute-wer.py prints."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wenet_osum.score.align import align
from wenet_osum.score.edits import count_edits, edit_path

WORDS = st.lists(st.sampled_from("abc"), max_size=9)


def test_by_hand():
    assert align(["the", "cat", "big", "sat", "on", "it"], ["a", "cat", "sat", "on", "it", "now"]) == [
        ("the", "a"),
        ("cat", "cat"),
        ("big", None),
        ("sat", "sat"),
        ("on", "on"),
        ("it", "it"),
        (None, "now"),
    ]
    assert align([], []) == []
    assert align([], ["a"]) == [(None, "a")]
    assert align(["a"], []) == [("a", None)]


def by_definition(ref, hyp):
    """The table of distances filled cell by cell, and the rule read off it from the end."""
    least = np.zeros((len(ref) + 1, len(hyp) + 1), dtype=int)
    least[:, 0], least[0] = range(len(ref) + 1), range(len(hyp) + 1)
    for i, r in enumerate(ref, 1):
        for j, h in enumerate(hyp, 1):
            least[i, j] = min(least[i - 1, j] + 1, least[i, j - 1] + 1, least[i - 1, j - 1] + (r != h))
    i, j, path = len(ref), len(hyp), ""
    while i or j:
        if i and (not j or least[i - 1, j] < least[i, j]):
            path, i = "D" + path, i - 1
        elif j and (not i or least[i, j - 1] < least[i, j]):
            path, j = "I" + path, j - 1
        else:
            i, j = i - 1, j - 1
            path = ("C" if ref[i] == hyp[j] else "S") + path
    return path


@given(WORDS, WORDS)
def test_metric_property_path_is_the_one_the_rule_takes(ref, hyp):
    assert edit_path(ref, hyp) == by_definition(ref, hyp)


@given(WORDS, WORDS)
def test_metric_property_alignment_holds_both_sides_and_the_counted_edits(ref, hyp):
    pairs = align(ref, hyp)
    assert [r for r, _ in pairs if r is not None] == ref
    assert [h for _, h in pairs if h is not None] == hyp
    kinds = [
        sum(r is not None and h is not None and r != h for r, h in pairs),
        sum(r is None for r, h in pairs),
        sum(h is None for r, h in pairs),
    ]
    assert kinds == list(count_edits(ref, hyp))


def test_long_sides():
    ref = [str(i % 97) for i in range(3000)]
    hyp = [t for i, t in enumerate(ref) if i % 10] + ["x"]
    assert count_edits(ref, hyp) == (0, 1, 300)
