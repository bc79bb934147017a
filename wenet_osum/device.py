"""The one place that knows devices and number types: cpu, cuda, npu (Ascend, by torch_npu), mps (Apple)."""

from __future__ import annotations

import importlib
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


def use_device(device: torch.device) -> None:
    """Make ``device`` the one that a bare ``cuda`` or ``npu`` means in this process."""
    if device.index is not None:
        module: Any = getattr(torch, device.type)
        module.set_device(device)
