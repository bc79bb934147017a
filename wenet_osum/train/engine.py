"""Where a run computes: device, number type, ranks; and what ranks do together.

One process, or DistributedDataParallel's several. ``train/fsdp.py`` and ``train/zero.py`` have the engines
that share weights and optimizer out among the ranks, under the same methods.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.optim import Optimizer

from wenet_osum.checkpoint.check import check_state
from wenet_osum.checkpoint.weights import llm_elsewhere, state_to_save
from wenet_osum.device import BACKENDS, DTYPES, find_device, use_device
from wenet_osum.errors import OsumError
from wenet_osum.fileio import atomic_write

OPTIMIZER = "optimizer.pt"
TIMEOUT = 600  # seconds; what torch has for nccl


class Engine:
    """One process of a run. ``torchrun`` sets RANK, WORLD_SIZE and LOCAL_RANK; without it there is one.

    A step is ``accumulate`` around the forward pass and ``backward`` of each micro-batch, then ``clip`` and
    ``step``, on every rank alike. The gradient is the mean over the ranks of the sums over the micro-batches,
    whatever the engine.

    Args:
        device: one of ``wenet_osum.device.DEVICES``.
        dtype: ``fp32``, ``bf16`` or ``fp16``: autocast; weights that learn stay fp32.
        backend: of torch.distributed; ``nccl``, WeNet's default, is ``gloo`` or ``hccl`` where the device needs it.
        fp16_grad_sync: ranks exchange gradients in half precision.
        index: which of several devices; None: this rank's.
        alone: whatever torchrun has set, this process has nothing to exchange with others.
        timeout: seconds that a rank waits for the others in one exchange. A rank that dies is seen at once with
            gloo (its connection closes), and torchrun ends the others; one that hangs is an error after so long.

    Attributes:
        model: what is called for training; bare: the same without wrapper, its names those of a checkpoint.
        optimizer: over ``bare``. scaler: of fp16, else None; then a norm that is not finite is its to mend.

    Raises:
        OsumError: a device that is not here, a number type or ranks that it has not.
    """

    model: Any
    bare: Any
    optimizer: Optimizer
    needs_group = False  # one process alone has a group of ranks too

    def __init__(
        self,
        device: str = "cpu",
        dtype: str = "fp32",
        backend: str = "nccl",
        fp16_grad_sync: bool = False,
        index: int | None = None,
        timeout: float = TIMEOUT,
        alone: bool = False,
    ):
        self.rank = 0 if alone else int(os.environ.get("RANK", 0))
        self.world_size = 1 if alone else int(os.environ.get("WORLD_SIZE", 1))
        self.fp16_grad_sync = fp16_grad_sync
        self.device = find_device(device, int(os.environ.get("LOCAL_RANK", 0)) if index is None else index)
        if dtype == "fp16" and device == "cpu":
            raise OsumError("dtype fp16", "is not for a CPU", "use --dtype fp32 or bf16")
        if (self.world_size > 1 or self.needs_group) and device not in BACKENDS:
            raise OsumError(
                f"--device {device}", "torch has no ranks on it", "run one process, without torchrun"
            )
        self.dtype = None if dtype == "fp32" else DTYPES[dtype]
        self.scaler = torch.amp.GradScaler(device) if dtype == "fp16" else None
        use_device(self.device)
        if self.world_size > 1 or self.needs_group:
            if backend == "nccl" and BACKENDS[device] != "nccl":
                logging.info("nccl is for CUDA: ranks on %s talk by %s", device, BACKENDS[device])
                backend = BACKENDS[device]
            one: dict[str, Any] = {"rank": 0, "world_size": 1, "store": torch.distributed.HashStore()}
            torch.distributed.init_process_group(
                backend, timeout=timedelta(seconds=timeout), **(one if self.world_size == 1 else {})
            )

    def prepare(
        self, model: Any, build_optimizer: Callable[[nn.Module], Optimizer]
    ) -> tuple[nn.Module, Optimizer]:
        """The model on its device, and wrapped or shared out for the ranks; the optimizer over it."""
        self.bare = model.to(self.device)
        self.model = self.wrap()
        self.optimizer = build_optimizer(self.bare)
        return self.model, self.optimizer

    def wrap(self) -> nn.Module:
        if self.world_size == 1:
            return self.bare
        ids = None if self.device.index is None else [self.device.index]
        # A CTC head that has no weight gets no gradient, and where it has all of it, what only the LLM sees gets none;
        # to look for such costs time each step.
        weight, head = self.bare.ctc_weight, self.bare.parts()["ctc"]
        idle = weight == 1 or (weight == 0 and any(p.requires_grad for p in head))
        # Buffers are tables of positions, the same in every rank; a batch norm's running means are not.
        means = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.bare.modules())
        wrapped = nn.parallel.DistributedDataParallel(
            self.bare, device_ids=ids, find_unused_parameters=idle, broadcast_buffers=means
        )
        if self.fp16_grad_sync:
            wrapped.register_comm_hook(None, fp16_compress_hook)
        return wrapped

    def rewrap(self) -> None:
        """To be called when other parts are to learn (``requires_grad`` has changed); the optimizer stays.

        Raises:
            OsumError: this engine cannot (DeepSpeed).
        """
        self.model = None  # before a new one: its hooks leave the weights with it
        self.model = self.wrap()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Around the forward pass: the number type."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def accumulate(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Around the forward pass and ``backward`` of one micro-batch; ranks exchange gradients at the last
        one of a step only."""
        if last or self.world_size == 1:
            return contextlib.nullcontext()
        return self.model.no_sync()

    def backward(self, loss: Tensor) -> None:
        """Gradients of a scalar ``loss``, added to those that are there."""
        (self.scaler.scale(loss) if self.scaler else loss).backward()

    def clip(self, max_norm: float) -> float:
        """Scale the gradients down to ``max_norm`` where they are above it.

        Returns:
            the norm of all gradients before that, the same on every rank; not finite where a gradient of any
            rank is not.
        """
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        learning = [p for g in self.optimizer.param_groups for p in g["params"]]
        return float(self.full(nn.utils.clip_grad_norm_(learning, max_norm)))

    def step(self, skip: bool = False) -> None:
        """One step of the optimizer behind ``clip``; the gradients are gone after it. ``skip``: they are dropped."""
        if self.scaler:
            if not skip:
                self.scaler.step(self.optimizer)
            self.scaler.update()
        elif not skip:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def sum(self, *values: float) -> list[float]:
        """Sums over all ranks."""
        if self.world_size == 1:
            return list(values)
        # Counts of tokens pass what 24 bits hold; hccl has no wider sums.
        wide = torch.float32 if self.device.type == "npu" else torch.float64
        total: Tensor = torch.tensor(values, dtype=wide, device=self.device)
        torch.distributed.all_reduce(total)
        return total.tolist()

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.world_size > 1:
            torch.distributed.barrier()

    def gathered(self) -> contextlib.AbstractContextManager[Any]:
        """Inside it every rank has the whole weights, and ``bare`` runs (``forward``, ``decode``) without the
        other ranks, however often each likes. Ranks enter and leave it together."""
        return contextlib.nullcontext()

    def full(self, value: Any) -> Any:
        """The whole of a tensor of which this rank may hold a part. By all ranks together."""
        return value

    def local(self, value: Any, like: Tensor) -> Any:
        """The inverse of ``full``: this rank's part of ``value``, where it is shared out as the weight ``like``
        is. By all ranks together."""
        return value

    def weights(self) -> dict[str, Tensor] | None:
        """What a checkpoint holds (``checkpoint.weights.state_to_save``), whole, on the CPU, on rank 0; None on
        the others. By all ranks together. On a CPU these may be the model's own tensors."""
        out = {}
        for name, tensor in state_to_save(self.bare).items():
            whole = self.full(tensor)
            if self.rank == 0:
                out[name] = whole.detach().cpu()
        return out if self.rank == 0 else None

    def load_weights(self, weights: dict[str, Tensor], where: str) -> None:
        """Take ``weights``, whole ones of a checkpoint, which every rank has read.

        Raises:
            OsumError: a name or shape that does not fit.
        """
        own = self.bare.state_dict()
        check_state(weights, own, where, llm_elsewhere(self.bare))
        parts = {name: self.local(tensor, own[name]) for name, tensor in weights.items()}
        self.bare.load_state_dict(parts, strict=False)

    def save_state(self, folder: Path) -> None:
        """Write the optimizer's state, by names of weights, and the scale of fp16 to ``optimizer.pt`` (rank 0).
        By all ranks together. The file does not depend on the number of ranks or on torch_ddp or torch_fsdp."""
        names = {p: n for n, p in self.bare.named_parameters()}
        state: dict[str, dict[str, Any]] = {}
        for parameter, kept in self.optimizer.state.items():
            whole = {k: self.full(v) for k, v in kept.items()}
            if self.rank == 0:
                state[names[parameter]] = {
                    k: v.cpu() if isinstance(v, Tensor) else v for k, v in whole.items()
                }
        if self.rank:
            return
        groups = [{**g, "params": [names[p] for p in g["params"]]} for g in self.optimizer.param_groups]
        content = {"state": state, "groups": groups, "scaler": self.scaler and self.scaler.state_dict()}
        with atomic_write(folder / OPTIMIZER, "wb") as f:
            torch.save(content, f)

    def load_state(self, folder: Path, weights: dict[str, Tensor] | None) -> None:
        """Take what ``save_state`` wrote, of any number of ranks, and ``weights`` as well. By all ranks together.

        Raises:
            OsumError: it is another engine's, or of an optimizer over other weights.
        """
        path = folder / OPTIMIZER
        if not path.is_file():
            what = "is missing: the state is another engine's"
            raise OsumError(str(path), what, "resume with the --train_engine of the run before")
        if weights is not None:
            self.load_weights(weights, str(folder))
        saved = torch.load(path, map_location="cpu", weights_only=True)
        names = {p: n for n, p in self.bare.named_parameters()}
        groups = self.optimizer.param_groups
        order = [[names[p] for p in g["params"]] for g in groups]
        if order != [g["params"] for g in saved["groups"]]:
            mend = "resume with the config of the run before (optim_conf, trainable)"
            raise OsumError(str(path), "is of an optimizer over other weights", mend)
        state, first, own = {}, 0, self.optimizer.state_dict()["param_groups"]
        for group in groups:
            for number, parameter in enumerate(group["params"], first):
                kept = saved["state"].get(names[parameter], {})
                if kept:
                    state[number] = {k: self.local(v, parameter) for k, v in kept.items()}
            first += len(group["params"])
        options = [{**kept, "params": g["params"]} for kept, g in zip(saved["groups"], own)]
        self.optimizer.load_state_dict({"state": state, "param_groups": options})
        if self.scaler and saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])

    def close(self) -> None:
        """Leave the group of ranks, by all of them together, at the end of a run."""
        if self.world_size > 1 or self.needs_group:
            # A thread of gloo's that still lets go of the last exchange's tensors needs Python's lock, and whoever
            # ends gloo holds it and waits for that thread. So first everybody waits without the lock, then
            # the wrapper goes, which would otherwise end gloo whenever it is collected.
            self.barrier()
            self.model = None
            gc.collect()
            torch.distributed.destroy_process_group()


def share_out_first(tensors: Iterable[Tensor]) -> None:
    """Rank 0's values for all, as DistributedDataParallel does it by itself."""
    for tensor in tensors:
        torch.distributed.broadcast(tensor.detach(), 0)


def make_engine(
    name: str,
    device: str = "cpu",
    dtype: str = "fp32",
    backend: str = "nccl",
    fp16_grad_sync: bool = False,
    timeout: float | None = None,
    sharding: str | None = None,
    deepspeed_config: str | None = None,
    configs: dict[str, Any] | None = None,
) -> Engine:
    """The engine that ``--train_engine`` names.

    Args:
        name: ``torch_ddp``, ``torch_fsdp`` or ``deepspeed``.
        device, dtype, backend, fp16_grad_sync, timeout: see ``Engine``; None is the default there.
        sharding: ``--fsdp_sharding_strategy``, see ``train/fsdp.py``; None is ``zero2``, as in WeNet.
        deepspeed_config: DeepSpeed's json, see ``train/zero.py``.
        configs: of the run, which the json must agree with.

    Raises:
        OsumError: as the engines' own.
    """
    timeout = timeout or TIMEOUT
    if name == "torch_fsdp":
        from wenet_osum.train.fsdp import FsdpEngine

        return FsdpEngine(device, dtype, backend, timeout=timeout, sharding=sharding or "zero2")
    if name == "deepspeed":
        from wenet_osum.train.zero import ZeroEngine, read_zero_config

        zero = read_zero_config(deepspeed_config, dtype, configs or {})
        return ZeroEngine(device, dtype, backend, timeout=timeout, zero=zero)
    return Engine(device, dtype, backend, fp16_grad_sync, timeout=timeout)
