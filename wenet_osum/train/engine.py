"""Where a run computes: device, number type, ranks."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

from wenet_osum.device import BACKENDS, DTYPES, find_device, use_device
from wenet_osum.errors import OsumError


class Engine:
    """One process of a run. ``torchrun`` sets RANK, WORLD_SIZE and LOCAL_RANK; without it there is one.

    Args:
        device: one of ``wenet_osum.device.DEVICES``.
        dtype: ``fp32``, ``bf16`` or ``fp16``: autocast; weights that learn stay fp32.
        backend: of torch.distributed; ``nccl``, WeNet's default, is ``gloo`` or ``hccl`` where the device needs it.
        fp16_grad_sync: ranks exchange gradients in half precision.
        index: which of several devices; None: this rank's.

    Raises:
        OsumError: a device that is not here, a number type or ranks that it has not.
    """

    def __init__(
        self,
        device: str = "cpu",
        dtype: str = "fp32",
        backend: str = "nccl",
        fp16_grad_sync: bool = False,
        index: int | None = None,
    ):
        self.rank = int(os.environ.get("RANK", 0))
        self.world_size = int(os.environ.get("WORLD_SIZE", 1))
        self.fp16_grad_sync = fp16_grad_sync
        self.device = find_device(device, int(os.environ.get("LOCAL_RANK", 0)) if index is None else index)
        if dtype == "fp16" and device == "cpu":
            raise OsumError("dtype fp16", "is not for a CPU", "use --dtype fp32 or bf16")
        if self.world_size > 1 and device not in BACKENDS:
            raise OsumError(
                f"--device {device}", "torch has no ranks on it", "run one process, without torchrun"
            )
        self.dtype = None if dtype == "fp32" else DTYPES[dtype]
        self.scaler = torch.amp.GradScaler(device) if dtype == "fp16" else None
        use_device(self.device)
        if self.world_size > 1:
            if backend == "nccl" and BACKENDS[device] != "nccl":
                logging.info("nccl is for CUDA: ranks on %s talk by %s", device, BACKENDS[device])
                backend = BACKENDS[device]
            torch.distributed.init_process_group(backend)

    def wrap(self, model: Any) -> nn.Module:
        """The model on its device, in DistributedDataParallel when there are ranks."""
        model = model.to(self.device)
        if self.world_size == 1:
            return model
        ids = None if self.device.index is None else [self.device.index]
        # Only a CTC head that has no weight gets no gradient; looking for others costs time each step.
        idle = model.ctc_weight == 0 and any(p.requires_grad for p in model.parts()["ctc"])
        wrapped = nn.parallel.DistributedDataParallel(model, device_ids=ids, find_unused_parameters=idle)
        if self.fp16_grad_sync:
            wrapped.register_comm_hook(None, fp16_compress_hook)
        return wrapped

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def sum(self, *values: float) -> list[float]:
        """Sums over all ranks."""
        if self.world_size == 1:
            return list(values)
        total: Tensor = torch.tensor(
            values, dtype=torch.float64 if self.device.type == "cpu" else torch.float32, device=self.device
        )
        torch.distributed.all_reduce(total)
        return total.tolist()

    def close(self) -> None:
        if self.world_size > 1:
            torch.distributed.destroy_process_group()
