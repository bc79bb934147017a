"""Work in threads, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(function: Callable[[T], R], items: Iterable[T], num_workers: int) -> Iterator[R]:
    """``map(function, items)`` in ``num_workers`` threads; results in the order of the items.

    Threads are enough for audio: decoding, resampling, pipes and files all release Python's lock.
    Only a few items are taken ahead, so ``items`` may be longer than memory. An exception of
    ``function`` reaches the caller in its turn, and what has not begun is then not begun.
    """
    if num_workers <= 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(num_workers)
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= 4 * num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
