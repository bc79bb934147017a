"""Mean of several checkpoints' weights (WeNet's ``average_model.py``)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from wenet_osum.checkpoint.weights import read_infos, read_state
from wenet_osum.errors import OsumError
from wenet_osum.fileio import atomic_write


def find_checkpoints(
    src: Path, num: int, val_best: bool, mode: str, limits: tuple[int, int, int, int]
) -> list[Path]:
    """The ``num`` checkpoints of ``src`` with the lowest validation loss, or the latest ones.

    Args:
        mode: ``epoch``, ``step`` or ``hybrid`` (both kinds).
        limits: least and most epoch, least and most step.

    Raises:
        OsumError: fewer than ``num`` are there.
    """
    if num < 1:
        raise OsumError("--num", f"is {num}", "give 1 or more")
    kinds = {"epoch": ("epoch_",), "step": ("step_",), "hybrid": ("epoch_", "step_")}[mode]
    least_epoch, most_epoch, least_step, most_step = limits
    found = []
    for info in sorted(src.glob("*.yaml")):
        if not info.stem.startswith(kinds) or not info.with_suffix(".pt").is_file():
            continue
        facts = read_infos(info)
        if least_epoch <= facts["epoch"] <= most_epoch and least_step <= facts["step"] <= most_step:
            loss = (facts.get("loss_dict") or {}).get("loss", float("inf"))
            found.append((loss, -facts["step"], info.with_suffix(".pt")))
    if len(found) < num:
        raise OsumError(
            str(src), f"has {len(found)} checkpoints that fit, --num is {num}", "lower --num or train longer"
        )
    found.sort(key=(lambda c: c[0]) if val_best else (lambda c: c[1]))
    return [path for _, _, path in found[:num]]


def average(paths: list[Path]) -> dict[str, Tensor]:
    """Mean of floating tensors; other tensors (counters) come from the first file."""
    mean = {n: t.clone() for n, t in read_state(paths[0]).items()}
    for n, t in mean.items():
        if t.is_floating_point():
            mean[n] = t.double()
    for path in paths[1:]:
        state = read_state(path)
        if {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in mean.items()}:
            raise OsumError(
                str(path), f"holds other weights than {paths[0]}", "average checkpoints of one run"
            )
        for n, t in state.items():
            if t.is_floating_point():
                mean[n] += t.double()
    first = read_state(paths[0])
    return {n: (t / len(paths)).to(first[n].dtype) if t.is_floating_point() else t for n, t in mean.items()}


def write_average(paths: list[Path], dst: str | Path) -> None:
    state = average(paths)
    with atomic_write(dst, "wb") as f:
        torch.save(state, f)
