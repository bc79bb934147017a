"""Pieces of many requests as batches, fairly: requests lead batches in turn, so that a recording of hours does not
keep a short one waiting, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from wenet_osum.decode.answer import Answered
from wenet_osum.serve.patience import within
from wenet_osum.serve.question import Question

NEAR = 2.0  # a batch has no piece that is so many times as long as the one that leads it
SLACK = 200  # frames that do not count in this


@dataclass(eq=False)
class Work:
    """A piece that waits, or is being answered. ``answer`` gets its answers by task, or a ``ServeError``."""

    lane: Lane
    key: str
    feats: np.ndarray  # (T, F)
    seconds: float
    arrived: float
    answer: asyncio.Future[dict[str, Answered]]


@dataclass(eq=False)
class Lane:
    """A request's pieces that wait, in order. ``given``: how many there were until now. ``begun``: one of them was
    taken."""

    question: Question
    given: int = 0
    begun: bool = False
    waiting: deque[Work] = field(default_factory=deque)
    moved: asyncio.Event = field(default_factory=asyncio.Event)  # something left


class Batcher:
    """Where pieces wait.

    Args:
        size: pieces in a batch. max_wait: seconds that a batch which is not full waits for company, if some is coming.

    Attributes:
        count: pieces that wait. coming: requests that have no piece yet; kept by whoever reads them.
    """

    def __init__(self, size: int, max_wait: float):
        self.size, self.max_wait = size, max_wait
        self.count = self.coming = 0
        self._lanes: deque[Lane] = deque()  # those with pieces; see _leader
        self._passed = False  # the lane that led last went before the first
        self._arrived = asyncio.Event()

    def put(self, lane: Lane, key: str, feats: np.ndarray, seconds: float) -> Work:
        """Let a piece wait behind those of its request."""
        future: asyncio.Future[dict[str, Answered]] = asyncio.get_running_loop().create_future()
        work = Work(lane, key, feats, seconds, time.monotonic(), future)
        if not lane.waiting:
            self._lanes.append(lane)
        lane.waiting.append(work)
        lane.given += 1
        self.count += 1
        self._arrived.set()
        return work

    async def room(self, lane: Lane) -> None:
        """Wait until a request has fewer pieces waiting than a batch takes: more would only take up memory."""
        while len(lane.waiting) >= self.size:
            lane.moved.clear()
            await lane.moved.wait()

    def drop(self, lane: Lane) -> None:
        """Take all of a request's pieces out."""
        if lane.waiting:
            self._lanes.remove(lane)
        self.count -= len(lane.waiting)
        lane.waiting.clear()

    def drop_all(self) -> list[Work]:
        """Take everything out."""
        works = [work for lane in self._lanes for work in lane.waiting]
        for lane in list(self._lanes):
            self.drop(lane)
        return works

    async def take(self) -> list[Work]:
        """The next batch, as soon as there is one: pieces with the same question and of like length."""
        while True:
            if not self._lanes:
                await self._wait(None)
                continue
            first = self._leader()
            alike = sum(len(lane.waiting) for lane in self._lanes if lane.question == first.question)
            left = first.waiting[0].arrived + self.max_wait - time.monotonic()
            if alike >= self.size or left <= 0 or not self.coming:
                return self._compose(first)
            await self._wait(left)

    async def _wait(self, seconds: float | None) -> None:
        self._arrived.clear()
        await within(self._arrived.wait(), seconds)

    def _leader(self) -> Lane:
        """The first in line; every other time, one of which nothing was taken yet, so that who comes with a word does
        not wait for batches that long recordings fill."""
        first = self._lanes[0]
        return first if self._passed else next((lane for lane in self._lanes if not lane.begun), first)

    def _compose(self, first: Lane) -> list[Work]:
        """The piece of the request whose turn it is, and those nearest to it in length out of the requests that
        come next, an equal share of each before anyone gets more."""
        self._passed, leader = first is not self._lanes[0], first.waiting[0]
        lanes = [lane for lane in self._lanes if lane.question == leader.lane.question][: 2 * self.size]
        share, length = max(1, self.size // len(lanes)), len(leader.feats)
        ranked = [
            (number >= share, abs(len(work.feats) - length), order, number, work)
            for order, lane in enumerate(lanes)
            for number, work in enumerate(lane.waiting)
            if work is not leader and len(work.feats) <= NEAR * length + SLACK
        ]
        taken = [leader, *(row[-1] for row in sorted(ranked, key=lambda row: row[:-1])[: self.size - 1])]
        for work in taken:
            work.lane.waiting.remove(work)
            work.lane.begun = True
            work.lane.moved.set()
        self.count -= len(taken)
        served = {work.lane for work in taken}
        rest = [lane for lane in self._lanes if lane not in served]
        again = [lane for lane in self._lanes if lane in served and lane.waiting]
        self._lanes = deque(rest + again)
        return taken
