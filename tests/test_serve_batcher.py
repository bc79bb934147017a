"""Batches out of the pieces of many requests."""

from __future__ import annotations

import asyncio

import numpy as np

from wenet_osum.serve.batcher import Batcher, Lane
from wenet_osum.serve.question import Question

ASR = Question(("asr",))


def batches(limits: tuple[int, float], *lanes: tuple[Question, list[int]]) -> list[list[tuple[int, int]]]:
    """The batches of requests with pieces of so many frames, each as (request, piece)."""

    async def run() -> list[list[tuple[int, int]]]:
        batcher, found = Batcher(*limits), []
        opened = [Lane(question) for question, _ in lanes]
        for lane, (_, lengths) in zip(opened, lanes):
            for n, length in enumerate(lengths):
                batcher.put(lane, str(n), np.zeros((length, 80), np.float32), length / 100)
        while batcher.count:
            found.append([(opened.index(w.lane), int(w.key)) for w in await batcher.take()])
        return found

    return asyncio.run(run())


def test_a_long_recording_shares_each_batch_with_those_that_come():
    found = batches((4, 0), (ASR, [3000] * 20), (ASR, [3000]), (ASR, [2900]))
    assert set(found[0]) == {(0, 0), (0, 1), (1, 0), (2, 0)}
    assert [len(batch) for batch in found] == [4, 4, 4, 4, 4, 2]


def test_requests_lead_batches_in_turn():
    hot = Question(("asr",), hotwords=("osum",))
    found = batches((4, 0), (ASR, [3000] * 8), (hot, [100]), (ASR, [100] * 3))
    assert found[0] == [(0, 0), (0, 1), (2, 0), (2, 1)] and found[1] == [(1, 0)]
    assert (2, 2) in found[2]


def test_who_comes_with_a_word_is_not_put_among_long_pieces():
    """Three recordings of hours, and short ones that keep coming: these lead, but not for ever."""

    async def run() -> list[set[int]]:
        batcher, found = Batcher(4, 0), []
        hours = [Lane(ASR) for _ in range(3)]
        for lane in hours * 8:
            batcher.put(lane, "", np.zeros((3000, 80), np.float32), 30)
        for _ in range(12):
            found.append({len(w.feats) for w in await batcher.take()})
            for _ in range(5):
                batcher.put(Lane(ASR), "", np.zeros((100, 80), np.float32), 1)
        return found

    found = asyncio.run(run())
    assert found[0] == {3000} and found[1] == {100}
    assert sum(3000 in lengths for lengths in found[2:]) >= 3


def test_a_short_piece_is_not_padded_to_a_long_one():
    found = batches((4, 0), (ASR, [100]), (ASR, [3000] * 2), (ASR, [120]))
    assert found == [[(0, 0), (2, 0)], [(1, 0), (1, 1)]]


def test_every_request_leads_before_long():
    """Fifty requests whose lengths are alike, and one that is like none."""
    found = batches((4, 0), *[(ASR, [100])] * 12, (ASR, [900]), *[(ASR, [100])] * 50)
    assert [12 in [lane for lane, _ in batch] for batch in found].index(True) <= 3


def test_a_batch_waits_for_company_but_not_long():
    async def run() -> list[int]:
        batcher, sizes = Batcher(2, 0.05), []
        batcher.put(Lane(ASR), "0", np.zeros((9, 80), np.float32), 0.09)
        sizes.append(len(await batcher.take()))  # nobody is coming
        batcher.coming = 1
        for lanes in (1, 2):
            for _ in range(lanes):
                batcher.put(Lane(ASR), "0", np.zeros((9, 80), np.float32), 0.09)
            sizes.append(len(await batcher.take()))
        taking = asyncio.ensure_future(batcher.take())
        await asyncio.sleep(0)
        first, second = Lane(ASR), Lane(ASR)
        batcher.put(first, "0", np.zeros((9, 80), np.float32), 0.09)
        await asyncio.sleep(0.001)
        batcher.put(second, "0", np.zeros((9, 80), np.float32), 0.09)
        sizes.append(len(await taking))
        return sizes

    assert asyncio.run(run()) == [1, 1, 2, 2]


def test_a_lane_has_room_for_a_batch():
    async def run() -> None:
        batcher, lane = Batcher(2, 0), Lane(ASR)
        for n in range(2):
            await asyncio.wait_for(batcher.room(lane), 1)
            batcher.put(lane, str(n), np.zeros((9, 80), np.float32), 0.09)
        room = asyncio.ensure_future(batcher.room(lane))
        await asyncio.sleep(0.01)
        assert not room.done()
        await batcher.take()
        await asyncio.wait_for(room, 1)
        batcher.put(lane, "2", np.zeros((9, 80), np.float32), 0.09)
        batcher.drop(lane)
        assert batcher.count == 0

    asyncio.run(run())
