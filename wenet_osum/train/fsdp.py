"""FSDP2: weights, gradients and optimizer shared out among the ranks (torch.distributed.fsdp.fully_shard).

Each layer of encoder, adapter and LLM is a unit whose weights are gathered for as long as it computes; what
lies between the layers (convolutions, word embeddings and the output layer tied to them, norms, CTC) is
gathered for the whole pass.

Number types are left to autocast: weights are gathered as they are, so a bf16 step computes what it does
under DistributedDataParallel, norms and the residual stream in fp32. FSDP2's own policy would round both. A
frozen LLM that is to travel in two bytes has ``decoder_conf.dtype: bf16``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wenet_osum.errors import OsumError
from wenet_osum.train.engine import Engine, share_out_first

# WeNet's --fsdp_sharding_strategy: (layers are units of their own, weights are dropped between the passes).
SHARDINGS = {"model": (False, False), "zero2": (True, False), "zero3": (True, True)}


def layers_of(model: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost ModuleLists: the layers of encoder, adapter, decoder or LLM."""
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            yield from (layer for layer in child if any(True for _ in layer.parameters()))
        else:
            yield from layers_of(child)


class FsdpEngine(Engine):
    """A rank of FSDP2; one process alone works too.

    Args:
        sharding: ``zero3``: weights are gathered for the forward pass and again for the backward pass (least
            memory); ``zero2``, WeNet's default: once for both; ``model``: once, the encoder as one piece and
            everything else as another. (``no_shard`` is torch_ddp.)
        more: see ``Engine``.

    Raises:
        OsumError: ``no_shard``, a device without ranks.
    """

    needs_group = True

    def __init__(self, *args: Any, sharding: str = "zero2", **more: Any):
        if sharding not in SHARDINGS:
            raise OsumError(
                f"--fsdp_sharding_strategy {sharding}",
                "shares nothing out",
                "use --train_engine torch_ddp, or choose zero2 or zero3",
            )
        super().__init__(*args, **more)
        self.by_layer, self.drop_between = SHARDINGS[sharding]

    def prepare(
        self, model: Any, build_optimizer: Callable[[nn.Module], Optimizer]
    ) -> tuple[nn.Module, Optimizer]:
        """Raises:
        OsumError: weights in 4 or 8 bits, which cannot be shared out.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard
        from torch.distributed.tensor import DTensor

        if not all(p.is_floating_point() for p in model.parameters()):
            raise OsumError("decoder_conf.quant", "is not for torch_fsdp", "use torch_ddp, or quant: none")
        mesh = init_device_mesh(self.device.type, (self.world_size,))
        units = list(layers_of(model)) if self.by_layer else [model.encoder]
        for unit in [*units, model]:
            # One unit at a time, so that no device ever holds the whole model.
            unit.to(self.device)
            share_out_first(t for t in unit.parameters() if not isinstance(t, DTensor))
            fully_shard(
                unit, mesh=mesh, reshard_after_forward=self.drop_between if unit is not model else None
            )
        share_out_first(model.buffers())
        self.bare = self.model = model
        self.units = [m for m in model.modules() if isinstance(m, FSDPModule)]
        if self.device.type != "cuda":  # gloo and hccl have no mean, only sums
            for unit in self.units:
                unit.set_force_sum_reduction_for_comms(True)
        self.holding = False
        model.register_forward_hook(self.let_go)
        self.optimizer = build_optimizer(model)
        return self.model, self.optimizer

    def let_go(self, module: nn.Module, args: Any, output: Any) -> None:
        """Behind a forward pass that no backward pass follows, drop what was gathered for it: weights that are
        changed in the meantime would not be seen."""
        if not torch.is_grad_enabled() and not self.holding:
            self.reshard()

    def reshard(self) -> None:
        for unit in self.units:
            unit.reshard()

    def rewrap(self) -> None:
        """The gathered weights are tensors of their own, made once: they learn what the others learn."""
        learns = {n: p.requires_grad for n, p in self.bare.named_parameters(remove_duplicate=False)}
        for unit in self.units:
            unit.unshard()
        for name, parameter in self.bare.named_parameters(remove_duplicate=False):
            parameter.requires_grad_(learns[name])
        self.reshard()

    def accumulate(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        self.model.set_requires_gradient_sync(last)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        self.holding = True
        for unit in self.units:
            unit.unshard()
            unit.set_reshard_after_forward(False, recurse=False)
        try:
            yield
        finally:
            self.holding = False
            for unit in self.units:
                unit.set_reshard_after_forward(self.drop_between and unit is not self.bare, recurse=False)
            self.reshard()

    def full(self, value: Any) -> Any:
        from torch.distributed.tensor import DTensor

        return value.full_tensor() if isinstance(value, DTensor) else value

    def local(self, value: Any, like: Tensor) -> Any:
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
            return value
        return distribute_tensor(value.to(self.device), like.device_mesh, like.placements)
