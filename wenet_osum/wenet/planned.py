"""``dataset: osum``: our index and plan in WeNet's ``DataLoader``."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import torch.distributed as dist
from torch.utils.data import IterableDataset, get_worker_info

from wenet_osum.dataset.batch import Batch
from wenet_osum.dataset.dataset import OsumDataset


class PlannedBatches(IterableDataset[Batch]):
    """Whole batches of one rank, epoch by epoch.

    Args:
        dataset: of one list. partition: a part for each rank (training) or everything for all (validation).
        cycle: epochs in one pass; WeNet sets it to ``max_epoch`` when it counts in steps.
        epoch: the first one; it goes on by itself, in each data worker alike.
    """

    def __init__(self, dataset: OsumDataset, partition: bool, cycle: int = 1, epoch: int = 0):
        self.dataset, self.partition, self.cycle, self.epoch = dataset, partition, cycle, epoch

    def __iter__(self) -> Iterator[Batch]:
        ranks = dist.is_initialized() and self.partition
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if ranks else (0, 1)
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for _ in range(self.cycle):
            plan = self.dataset.plan(self.epoch, world_size)
            # Workers take turns in WeNet's loader, so the batches come in the plan's order.
            mine = range(rank, len(plan), world_size)[first::step]
            if self.dataset.train:  # validation asks the same in every epoch
                self.epoch += 1
            for i in mine:
                batch = self.dataset.batch(plan[i])
                for skipped in batch["skipped"]:
                    logging.warning("set aside: %s", json.dumps(skipped, ensure_ascii=False))
                if batch["keys"]:
                    yield batch
