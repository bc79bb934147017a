"""Which utterances make a batch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenet_osum.dataset.plan import draw_tasks, plan_batches

LENGTHS = st.lists(st.tuples(st.integers(10, 3000), st.integers(1, 400)), max_size=60)
DYNAMIC = st.fixed_dictionaries(
    {
        "batch_type": st.just("dynamic"),
        "batch_size": st.just(1),
        "max_frames_in_batch": st.integers(500, 8000),
        "max_tokens_in_batch": st.integers(50, 2000),
    }
)
STATIC = st.fixed_dictionaries(
    {
        "batch_type": st.just("static"),
        "batch_size": st.integers(1, 9),
        "max_frames_in_batch": st.just(1),
        "max_tokens_in_batch": st.just(1),
    }
)


def plan(rows: list[tuple[int, int]], conf: dict[str, Any], **how: Any) -> list[list[int]]:
    frames = np.array([r[0] for r in rows], np.int32)
    tokens = np.array([r[1] for r in rows], np.int32)
    return plan_batches(frames, tokens, conf, **how)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, DYNAMIC | STATIC, st.integers(0, 3), st.booleans())
def test_every_row_once_on_one_rank(rows, conf, epoch: int, shuffle: bool):
    batches = plan(rows, conf, epoch=epoch, shuffle=shuffle)
    assert sorted(r for b in batches for r in b) == list(range(len(rows)))
    assert all(batches)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, DYNAMIC | STATIC, st.integers(2, 8), st.booleans())
def test_ranks_take_equal_steps_and_leave_nothing_out(rows, conf, world_size: int, shuffle: bool):
    batches = plan(rows, conf, world_size=world_size, shuffle=shuffle)
    assert len(batches) % world_size == 0 and all(batches)
    counts = Counter(r for b in batches for r in b)
    assert set(counts) == set(range(len(rows)))
    doubled = sum(counts.values()) - len(rows)
    assert doubled == 0 or all(len(b) == 1 for b in batches)
    assert doubled < world_size


@settings(max_examples=60, deadline=None)
@given(LENGTHS, DYNAMIC, st.integers(1, 4))
def test_dynamic_budgets_hold(rows, conf, world_size: int):
    for batch in plan(rows, conf, world_size=world_size):
        if len(batch) > 1:
            assert max(rows[r][0] for r in batch) * len(batch) <= conf["max_frames_in_batch"]
            assert max(rows[r][1] for r in batch) * len(batch) <= conf["max_tokens_in_batch"]


@settings(max_examples=30, deadline=None)
@given(LENGTHS, STATIC, st.integers(1, 4))
def test_static_batches_are_no_larger_than_asked(rows, conf, world_size: int):
    assert all(len(b) <= conf["batch_size"] for b in plan(rows, conf, world_size=world_size))


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 4))
def test_buckets_hold_what_is_between_their_boundaries(rows, world_size: int):
    bounds, sizes = [200, 800, 1500], [9, 5, 3, 1]
    conf = {"batch_type": "bucket", "bucket_boundaries": bounds, "bucket_batch_sizes": sizes}
    batches = plan(rows, conf, world_size=world_size)
    assert {r for b in batches for r in b} == set(range(len(rows)))
    for batch in batches:
        # As WeNet counts: a boundary itself belongs to the bucket after it.
        (bucket,) = {sum(rows[r][0] >= bound for bound in bounds) for r in batch}
        assert len(batch) <= sizes[bucket]


@pytest.mark.parametrize(("rows", "world_size"), [(1, 2), (3, 4), (1, 8)])
def test_fewer_utterances_than_ranks(rows: int, world_size: int):
    conf = {"batch_type": "static", "batch_size": 4, "max_frames_in_batch": 1, "max_tokens_in_batch": 1}
    batches = plan([(100, 5)] * rows, conf, world_size=world_size)
    assert len(batches) == world_size and {r for b in batches for r in b} == set(range(rows))


def dynamic(frames: int = 4000, tokens: int = 10000) -> dict[str, Any]:
    return {
        "batch_type": "dynamic",
        "batch_size": 1,
        "max_frames_in_batch": frames,
        "max_tokens_in_batch": tokens,
    }


def many(seed: int = 0, count: int = 3000) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    return [(int(f), int(t)) for f, t in zip(rng.integers(50, 1000, count), rng.integers(5, 80, count))]


def test_a_plan_is_a_pure_function():
    rows = many()
    same = plan(rows, dynamic(), seed=1, epoch=2)
    assert same == plan(rows, dynamic(), seed=1, epoch=2)
    assert same != plan(rows, dynamic(), seed=1, epoch=3)
    assert same != plan(rows, dynamic(), seed=2, epoch=2)


def test_without_shuffle_epochs_and_seeds_do_not_matter():
    rows = many()
    same = plan(rows, dynamic(), shuffle=False)
    assert same == plan(rows, dynamic(), shuffle=False, seed=4, epoch=7)
    longest = [max(rows[r][0] for r in b) for b in same]
    assert longest == sorted(longest)


def test_little_padding():
    rows = many()
    batches = plan(rows, dynamic())
    padded = sum(max(rows[r][0] for r in b) * len(b) for b in batches)
    assert sum(f for f, _ in rows) / padded > 0.95
    order = [max(rows[r][0] for r in b) for b in batches]
    assert order != sorted(order)  # long and short batches come mixed


def test_ranks_get_neighbours_in_length():
    rows = many()
    batches = plan(rows, dynamic(), world_size=2)
    pairs = [[max(rows[r][0] for r in b) for b in batches[i : i + 2]] for i in range(0, len(batches), 2)]
    assert np.median([abs(a - b) for a, b in pairs]) < 30


def test_tasks_are_drawn_by_weight():
    offered = [("asr", "ser")] * 4000
    counts = Counter(draw_tasks(offered, {"asr": 3, "ser": 1}, seed=0, epoch=0))
    assert counts["asr"] / 4000 == pytest.approx(0.75, abs=0.03)
    even = Counter(draw_tasks(offered, {}, seed=0, epoch=0))
    assert even["asr"] / 4000 == pytest.approx(0.5, abs=0.03)


def test_tasks_drawn_are_offered_and_differ_by_epoch():
    offered = [("asr",), ("asr", "ser"), ("ser", "sgc")] * 50
    first = draw_tasks(offered, {"asr": 1, "ser": 1, "sgc": 0}, seed=0, epoch=0)
    assert all(t in names for t, names in zip(first, offered)) and "sgc" not in first
    assert first == draw_tasks(offered, {"asr": 1, "ser": 1, "sgc": 0}, seed=0, epoch=0)
    assert first != draw_tasks(offered, {"asr": 1, "ser": 1, "sgc": 0}, seed=0, epoch=1)
