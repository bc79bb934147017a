"""Batches of an epoch for one rank, read here or by processes ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from wenet_osum.dataset.batch import Batch
from wenet_osum.dataset.dataset import OsumDataset
from wenet_osum.dataset.plan import Item
from wenet_osum.dataset.workers import Workers


class Loader:
    """Batches in the plan's order, the same bit for bit with any number of workers.

    Args:
        dataset: where they come from.
        num_workers: processes that read ahead; they live as long as the loader. 0: the caller's reads.
        prefetch: batches that each of them reads ahead.
        pin_memory: put tensors where a GPU fetches them faster.
        rank, world_size: this process among those that share the epoch.
        timeout: seconds that a worker's batch may be waited for.
    """

    def __init__(
        self,
        dataset: OsumDataset,
        num_workers: int = 0,
        prefetch: int = 4,
        pin_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
        timeout: float = 60.0,
    ):
        self.dataset, self.rank, self.world_size = dataset, rank, world_size
        self.pin_memory = pin_memory and torch.cuda.is_available()
        self.batches: Sequence[list[Item]] = []  # of the epoch, over all ranks
        self.start = 0
        self.workers = Workers(dataset, num_workers, prefetch, timeout) if num_workers else None

    def plan(self, epoch: int, start: int = 0, group: int | None = None) -> int:
        """Fix the batches of an epoch (0 for evaluation).

        Args:
            start: so many of the epoch's batches, over all ranks, are done.
            group: batches of nearly equal cost in a row; None: ``world_size``.

        Returns:
            how many this rank gets: ``start + rank``, ``start + rank + world_size`` ...; as many as every other,
            so the last may be empty (``keys`` ``[]``).
        """
        self.batches, self.start = self.dataset.plan(epoch, group or self.world_size), start
        return max(0, -(-(len(self.batches) - start) // self.world_size))

    def take(self, batches: Sequence[list[Item]]) -> None:
        """Fix batches that somebody else has planned, for all ranks together."""
        self.batches, self.start = batches, 0

    def __iter__(self) -> Iterator[Batch]:
        """Read what ``plan`` or ``take`` fixed.

        Raises:
            OsumError: a worker died or did not answer within ``timeout``.
        """
        jobs = self.jobs(self.batches, self.start)
        made = self.workers.run(jobs) if self.workers else map(self.read, jobs)
        return map(pinned, made) if self.pin_memory else iter(made)

    def jobs(self, batches: Sequence[list[Item]], start: int) -> Iterator[list[Item]]:
        for first in range(start, len(batches), self.world_size):
            mine = first + self.rank
            yield batches[mine] if mine < len(batches) else []

    def read(self, items: list[Item]) -> Batch:
        # On one thread, as a worker does: sums over several would round otherwise.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self.dataset.batch(items)
        finally:
            torch.set_num_threads(threads)


def pinned(batch: Batch) -> Batch:
    return {k: v.pin_memory() if isinstance(v, Tensor) else v for k, v in batch.items()}
