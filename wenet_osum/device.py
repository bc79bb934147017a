"""The one place that knows devices and number types: cpu, cuda, npu (Ascend, by torch_npu), mps (Apple)."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

import torch

from wenet_osum.errors import OsumError

DEVICES = ("cpu", "cuda", "npu", "mps")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# torch.distributed's backend by device; Apple's has none.
BACKENDS = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """The device a flag names; of several of a kind, this rank's.

    Raises:
        OsumError: it is not in this machine, or the software for it is not installed.
    """
    where = f"--device {name}"
    if name == "npu":
        try:
            importlib.import_module("torch_npu")  # registers torch.npu
        except ImportError:
            raise OsumError(where, "torch_npu is not installed", "pip install wenet_osum[npu]") from None
    kind: Any = torch.backends.mps if name == "mps" else getattr(torch, name)
    if not kind.is_available():
        raise OsumError(where, f"torch sees no {name.upper()} device", "use --device cpu")
    return torch.device(name if name in ("cpu", "mps") else f"{name}:{local_rank}")


def cuda_or_cpu(asked: str | None) -> str:
    """The device asked for; where none is, cuda as in WeNet, or the CPU where torch sees no cuda."""
    if asked is not None:
        return asked
    if torch.cuda.is_available():
        return "cuda"
    logging.info("torch sees no CUDA device: this runs on the CPU")
    return "cpu"


def card(number: int) -> tuple[str, int]:
    """WeNet's ``--gpu N``: the device, and the index torch has for that card. Its recipes give ``--gpu 0``
    everywhere, so where there is no cuda at all it is the CPU.

    Raises:
        OsumError: there are cards, but not this one.
    """
    if not torch.cuda.is_available():
        return cuda_or_cpu(None), 0
    shown = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    index = shown.index(str(number)) if str(number) in shown else number
    count = torch.cuda.device_count()
    if not 0 <= index < count:
        raise OsumError(f"--gpu {number}", f"torch sees {count} CUDA devices", f"give 0 to {count - 1}")
    return "cuda", index


def use_device(device: torch.device) -> None:
    """Make ``device`` the one that a bare ``cuda`` or ``npu`` means in this process."""
    if device.index is not None:
        module: Any = getattr(torch, device.type)
        module.set_device(device)


def memory_in_use(device: torch.device) -> float:
    """GB that this process holds at most until now: of the device, or of main memory for a CPU (the peak of its
    resident set)."""
    backend: Any = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(backend, "max_memory_allocated"):
        return backend.max_memory_allocated(device) / 1e9
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)
