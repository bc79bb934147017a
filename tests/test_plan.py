"""Which utterances make a batch."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenet_osum.dataset.index import Index, TaskSets
from wenet_osum.dataset.mixing import occurrences
from wenet_osum.dataset.plan import Item, batch_costs, draw_slots, draw_windows, plan_batches, plan_epoch

LENGTHS = st.lists(st.tuples(st.integers(10, 3000), st.integers(1, 400)), max_size=60)
BUDGETS = {"max_frames_in_batch": st.integers(500, 8000), "max_tokens_in_batch": st.integers(50, 2000)}
DYNAMIC = st.fixed_dictionaries({"batch_type": st.just("dynamic"), **BUDGETS})
PACK = st.fixed_dictionaries({"batch_type": st.just("pack"), **BUDGETS})
STATIC = st.fixed_dictionaries({"batch_type": st.just("static"), "batch_size": st.integers(1, 9)})
BUCKET = st.just(
    {"batch_type": "bucket", "bucket_boundaries": [200, 800, 1500], "bucket_batch_sizes": [9, 5, 3, 1]}
)
ANY = DYNAMIC | PACK | STATIC | BUCKET

Rows = list[tuple[int, int]]


def arrays(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    return np.array([r[0] for r in rows], np.int32), np.array([r[1] for r in rows], np.int32)


def plan(rows: Rows, conf: dict[str, Any], **how: Any) -> list[list[int]]:
    order, bounds = plan_batches(*arrays(rows), conf, **how)
    return [order[a:b].tolist() for a, b in itertools.pairwise(bounds)]


def within(rows: Rows, batch: list[int], conf: dict[str, Any]) -> bool:
    """Whether a batch of several is within its budgets."""
    kind = conf["batch_type"]
    if kind == "static":
        return len(batch) <= conf["batch_size"]
    if kind == "bucket":  # as WeNet counts: a boundary itself belongs to the bucket after it
        buckets = {sum(rows[r][0] >= bound for bound in conf["bucket_boundaries"]) for r in batch}
        return len(buckets) == 1 and len(batch) <= conf["bucket_batch_sizes"][buckets.pop()]
    frames, tokens = ([rows[r][k] for r in batch] for k in (0, 1))
    if kind == "pack":
        sums = sum(frames), sum(tokens)
    else:
        sums = max(frames) * len(batch), max(tokens) * len(batch)
    return sums[0] <= conf["max_frames_in_batch"] and sums[1] <= conf["max_tokens_in_batch"]


@settings(max_examples=150, deadline=None)
@given(LENGTHS, ANY, st.integers(0, 3), st.integers(1, 8), st.booleans(), st.integers(1, 70))
def test_every_row_once_in_equal_steps_within_the_budgets(rows, conf, epoch, group, shuffle, per_block):
    block = np.arange(len(rows)) // per_block
    batches = plan(rows, conf, epoch=epoch, group=group, shuffle=shuffle, block=block)
    assert sorted(r for b in batches for r in b) == list(range(len(rows)))
    assert len(batches) % group == 0
    assert all(len(b) < 2 or within(rows, b, conf) for b in batches)
    # An empty batch is there only to make the number a multiple, when nothing can be halved.
    empty = sum(not b for b in batches)
    assert empty < group and (not empty or all(len(b) < 2 for b in batches))


@settings(max_examples=15, deadline=None)
@given(ANY, st.integers(0, 5), st.sampled_from([1, 2, 5]))
def test_windows_of_blocks_lose_nothing(conf, seed: int, group: int):
    """Several windows, so that the emptiest batches of each go on into the next."""
    rows = many(seed, 700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wenet_osum.dataset.plan.WINDOW", 100)
        batches = plan(rows, conf, seed=seed, group=group, block=np.arange(len(rows)) // 40)
    assert sorted(r for b in batches for r in b) == list(range(len(rows)))
    assert len(batches) % group == 0 and all(batches)
    assert all(len(b) < 2 or within(rows, b, conf) for b in batches)


@pytest.mark.parametrize(("rows", "group"), [(1, 2), (3, 4), (1, 8), (0, 3)])
def test_fewer_utterances_than_batches_must_be(rows: int, group: int):
    batches = plan([(100, 5)] * rows, {"batch_type": "static", "batch_size": 4}, group=group)
    assert len(batches) == (group if rows else 0) and sorted(r for b in batches for r in b) == [*range(rows)]


def budgets(kind: str = "dynamic", frames: int = 4000, tokens: int = 10000) -> dict[str, Any]:
    return {"batch_type": kind, "max_frames_in_batch": frames, "max_tokens_in_batch": tokens}


def many(seed: int = 0, count: int = 3000) -> Rows:
    rng = np.random.default_rng(seed)
    return [(int(f), int(t)) for f, t in zip(rng.integers(50, 1000, count), rng.integers(5, 80, count))]


@pytest.mark.parametrize("kind", ["dynamic", "pack"])
def test_plan_is_pure(kind: str):
    rows, conf = many(), budgets(kind)
    same = plan(rows, conf, seed=1, epoch=2, group=2)
    np.random.seed(5)  # no state outside has a part in it
    assert same == plan(rows, conf, seed=1, epoch=2, group=2)
    others = [plan(rows, conf, seed=1, epoch=3, group=2), plan(rows, conf, seed=2, epoch=2, group=2)]
    contents = [{frozenset(b) for b in batches} for batches in (same, *others)]
    assert len(contents[0] & contents[1]) < len(same) / 10 and len(contents[0] & contents[2]) < len(same) / 10


PURE = {
    "dynamic": [[8, 1, 6], [2, 7], [0, 5, 10, 3], [11, 4, 9]],
    "pack": [[9, 4, 6], [5, 0], [1, 8, 3, 10], [7, 2, 11]],
}


def test_plan_is_pure_on_another_machine():
    """These very batches, wherever and whenever it is computed."""
    rows = [(100 + 37 * i % 91, 3 + 11 * i % 17) for i in range(12)]
    assert plan(rows, budgets(frames=500), seed=3, epoch=1, group=2) == PURE["dynamic"]
    assert plan(rows, budgets("pack", frames=500), seed=3, epoch=1, group=2) == PURE["pack"]


def test_without_shuffle_epochs_and_seeds_do_not_matter():
    rows = many()
    same = plan(rows, budgets(), shuffle=False)
    assert same == plan(rows, budgets(), shuffle=False, seed=4, epoch=7)
    longest = [max(rows[r][0] for r in b) for b in same]
    assert longest == sorted(longest)


def test_little_padding_and_answers_of_all_lengths_together():
    """A batch whose answers are all short is one task's; the step's mean over its tokens would make each of them
    count for more than those of a long transcript."""
    rows = many()
    batches = [b for b in plan(rows, budgets()) if len(b) >= 4]
    padded = sum(max(rows[r][0] for r in b) * len(b) for b in batches)
    assert sum(rows[r][0] for b in batches for r in b) / padded > 0.97
    order = [max(rows[r][0] for r in b) for b in batches]
    assert order != sorted(order)  # long and short batches come mixed
    answers = np.array([rows[r][1] for b in batches for r in b])
    within = np.mean([np.var([rows[r][1] for r in b], ddof=1) for b in batches])
    assert within > 0.9 * np.var(answers)


def test_packs_are_nearly_full():
    rows = many()
    sums = [sum(rows[r][0] for r in b) for b in plan(rows, budgets("pack"))]
    assert np.mean(sums) > 0.99 * 4000


@pytest.mark.parametrize("scarce", ["max_frames_in_batch", "max_tokens_in_batch"])
def test_packs_are_full_of_what_is_scarce(scarce: str):
    rows, plenty = many(), {"max_frames_in_batch": 10**6, "max_tokens_in_batch": 10**6}
    conf = {"batch_type": "pack", **plenty, scarce: 2000}
    at = int(scarce == "max_tokens_in_batch")
    sums = [sum(rows[r][at] for r in b) for b in plan(rows, conf)]
    assert np.mean(sums) > 0.98 * 2000


@pytest.mark.parametrize("kind", ["dynamic", "pack"])
@pytest.mark.parametrize("group", [2, 8])
def test_batches_of_a_group_cost_nearly_the_same(kind: str, group: int):
    rows, conf = many(), budgets(kind)
    frames, tokens = arrays(rows)
    order, bounds = plan_batches(frames, tokens, conf, group=group)
    costs, _ = batch_costs(order, bounds, frames, tokens, conf)
    groups = costs.reshape(-1, group)
    spread = groups.max(1) / groups.min(1) - 1
    assert np.median(spread) < 0.01 and spread.mean() < 0.03
    if kind == "pack":  # all are full
        return
    mixed = np.random.default_rng(0).permutation(costs).reshape(-1, group)
    assert (mixed.max(1) / mixed.min(1) - 1).mean() > 2 * spread.mean()  # by chance they would not


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(20, 400), st.integers(0, 9))
def test_a_block_lies_in_one_window(sizes: list[int], size: int, seed: int):
    block = np.repeat(np.arange(len(sizes)), sizes)
    windows = draw_windows(block, len(block), size, np.random.default_rng(seed))
    assert sorted(np.concatenate(windows).tolist()) == list(range(len(block)))
    homes = Counter(b for w in windows for b in np.unique(block[w]))
    assert set(homes.values()) == {1}
    assert all(len(w) <= 1.5 * size + max(sizes) for w in windows)


def test_batches_read_few_blocks_at_a_time():
    """4,000 utterances in 80 shards of 50 and windows of 500: few shards are open at any time."""
    rows, block = many(count=4000), np.arange(4000) // 50
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wenet_osum.dataset.plan.WINDOW", 500)
        batches = plan(rows, budgets(), group=2, block=block)
    touched = [set(block[batches[i]]) | set(block[batches[i + 1]]) for i in range(0, len(batches), 2)]
    run = 20  # about a third of a window's groups
    most = max(len(set.union(*touched[i : i + run])) for i in range(len(touched) - run))
    assert 10 <= most <= 30  # two windows meet in some runs, with what a third left over
    assert len(set.union(*touched)) == 80


# --- with an index: tasks and corpora ---


def an_index(sets: list[tuple[str, ...]], corpus: list[int] | None = None, weights: Any = (1.0,)) -> Index:
    """Utterance i has the i-th set of tasks; the answer to its k-th task has 10 k + 5 tokens."""
    distinct = sorted(set(sets))
    number = np.array([distinct.index(s) for s in sets], np.int32)
    counts = np.array([len(s) for s in sets])
    starts = np.concatenate([[0], np.cumsum(counts)])
    answers = np.concatenate([np.arange(n) * 10 + 5 for n in counts]).astype(np.int32)
    frames = np.random.default_rng(0).integers(50, 1500, len(sets)).astype(np.int32)
    corpora = np.array(corpus or [0] * len(sets), np.int32)
    return Index(
        [{}] * len(sets), frames, TaskSets(distinct, number), starts, answers, corpora, corpora, weights
    )


def counts_of(index: Index, weights: dict[str, float], epoch: int = 0) -> Counter[str]:
    slots = draw_slots(index.tasks, np.arange(len(index)), weights, 0, epoch)
    return Counter(names[s] for names, s in zip(index.tasks, slots))


def test_tasks_are_drawn_by_weight():
    index = an_index([("asr", "ser")] * 4000)
    assert counts_of(index, {"asr": 3, "ser": 1})["asr"] / 4000 == pytest.approx(0.75, abs=0.03)
    assert counts_of(index, {})["asr"] / 4000 == pytest.approx(0.5, abs=0.03)


def test_tasks_drawn_are_offered_and_differ_by_epoch():
    index = an_index([("asr",), ("asr", "ser"), ("ser", "sgc")] * 50)
    weights = {"asr": 1.0, "ser": 1.0, "sgc": 0.0}
    first = plan_epoch(index, budgets(), weights)
    drawn = {i.row: i.task for batch in first for i in batch}
    assert all(task in index.tasks[row] and task != "sgc" for row, task in drawn.items())
    later = {i.row: i.task for batch in plan_epoch(index, budgets(), weights, epoch=1) for i in batch}
    assert drawn != later


def test_budgets_count_the_answer_of_the_task_asked():
    index = an_index([("asr", "sttc")] * 200)
    assert index.tokens.tolist() == [15] * 200
    conf = budgets(frames=10**6, tokens=50)
    sizes = {}
    for task in ("asr", "sttc"):
        batches = plan_epoch(index, conf, {task: 1.0})
        sizes[task] = max(map(len, batches))
        assert {i.task for batch in batches for i in batch} == {task}
    assert sizes == {"asr": 10, "sttc": 3}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 6))
def test_plan_is_pure_with_tasks_and_corpora(seed: int, epoch: int, group: int):
    index = an_index([("asr", "ser"), ("asr",)] * 30, [0, 1] * 30, (0.6, 2.3))
    weights = {"asr": 1.0, "ser": 2.0}
    first, again = (plan_epoch(index, budgets(), weights, seed, epoch, group) for _ in range(2))
    assert list(first) == list(again) and len(first) % group == 0
    assert first[-1] == first[len(first) - 1] and first[1:3] == [first[1], first[2]]
    items = [item for batch in first for item in batch]
    assert len(set(items)) == len(items) and all(isinstance(i, Item) and i.epoch == epoch for i in items)
    copies = {(i.row, i.copy) for i in items}
    assert all(copy == 0 or (row, copy - 1) in copies for row, copy in copies)
    once = [i.row for batch in plan_epoch(index, budgets(), weights, seed, epoch, mix=False) for i in batch]
    assert sorted(once) == list(range(60))


def test_copies_of_one_epoch_lie_apart():
    index = an_index([("asr",)] * 300, weights=(2.0,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wenet_osum.dataset.plan.WINDOW", 300)
        batches = list(plan_epoch(index, budgets(), {}))
    assert not any(len({i.row for i in b}) < len(b) for b in batches)


WEIGHTS = st.floats(0.01, 4, allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 80), WEIGHTS), min_size=1, max_size=3), st.integers(0, 99))
def test_weights_hold_in_every_epoch_and_for_every_utterance(corpora, seed: int):
    sizes, weights = [n for n, _ in corpora], [w for _, w in corpora]
    corpus = np.repeat(np.arange(len(sizes)), sizes)
    taken = np.zeros(len(corpus))
    for epoch in range(6):
        rows, copies = occurrences(corpus, weights, seed, epoch)
        times = np.bincount(rows, minlength=len(corpus))
        taken += times
        assert sorted(zip(rows, copies)) == [(r, c) for r, n in enumerate(times) for c in range(n)]
        for n, (size, weight) in enumerate(corpora):
            of = times[corpus == n]
            assert not size or (of.min() >= np.floor(weight) and of.max() <= np.ceil(weight))
            assert abs(of.sum() - weight * size) <= 1 + 1e-6
        expected = np.array(weights)[corpus] * (epoch + 1)
        assert (np.abs(taken - expected) <= 1 + 1e-6).all()


@pytest.mark.parametrize("weight", [0.3, 1.7])
def test_weights_are_exact_in_expectation(weight: float):
    """Over seeds, every utterance of a corpus comes ``weight`` times in the mean."""
    corpus = np.zeros(7, np.int64)
    times = sum(np.bincount(occurrences(corpus, [weight], s, 3)[0], minlength=7) for s in range(3000))
    np.testing.assert_allclose(times / 3000, weight, atol=0.04)
