"""Ends that come in the same turn of the loop as results: nobody waits for ever, and nothing is lost."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from wenet_osum.decode.load import LoadSpec
from wenet_osum.serve.batcher import Batcher, Lane
from wenet_osum.serve.errors import Closing
from wenet_osum.serve.model import Model
from wenet_osum.serve.patience import Late, within
from wenet_osum.serve.question import Question
from wenet_osum.serve.settings import Limits
from wenet_osum.serve.stats import Stats


def test_a_cancellation_is_not_lost_to_a_result():
    async def run() -> None:
        result: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(within(result, 60))
        await asyncio.sleep(0)
        result.set_result(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(run())


def test_results_errors_and_lateness():
    async def fails() -> None:
        raise ValueError("why")

    async def run() -> None:
        assert await within(asyncio.sleep(0, "here"), 60) == "here"
        assert await within(asyncio.sleep(0, "here"), None) == "here"
        with pytest.raises(ValueError, match="why"):
            await within(fails(), 60)
        left = asyncio.ensure_future(asyncio.sleep(60))
        assert isinstance(await within(left, 0.01), Late)
        await asyncio.sleep(0)
        assert left.cancelled()

    asyncio.run(run())


class Idle:
    """A model's process that does nothing."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()


def test_a_batch_between_the_queue_and_the_model_is_told_of_the_end():
    """``stop`` may come when a batch has left the queue and the model has not yet got it."""

    async def run() -> None:
        batcher, child = Batcher(1, 0), Idle()
        with ThreadPoolExecutor() as threads:
            model = Model(LoadSpec("none"), Limits(), Stats(), batcher, threads)
            model._child = child  # type: ignore[assignment]
            running = asyncio.ensure_future(model.run())
            await asyncio.sleep(0.01)
            work = batcher.put(Lane(Question(("asr",))), "a", np.zeros((9, 80), np.float32), 0.1)
            while batcher.count:
                await asyncio.sleep(0)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert not batcher.count and isinstance(work.answer.exception(), Closing)

    asyncio.run(run())


def test_who_stops_waiting_for_a_batch_takes_none():
    async def run() -> None:
        batcher: Any = Batcher(1, 0)
        taking = asyncio.ensure_future(batcher.take())
        await asyncio.sleep(0.01)
        batcher.put(Lane(Question(("asr",))), "a", np.zeros((9, 80), np.float32), 0.1)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        assert batcher.count == 1

    asyncio.run(run())
