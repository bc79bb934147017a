"""What WeNet needs mended to run on today's packages: only what is broken, each told in one line.

The faults are those found at commit 01546996 (2025-12-19) with torch 2.13 and torchaudio 2.11; WeNet's own
files stay as they are.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import multiprocessing.pool
import os
import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from wenet_osum.errors import OsumError
from wenet_osum.fileio import atomic_write


def say(what: str) -> None:
    """One line for each mend, by the first process only."""
    if os.environ.get("RANK", "0") == "0":
        print(f"wenet_osum.wenet: mended: {what}", file=sys.stderr, flush=True)


def mend_conv_names(wenet: Path) -> None:
    """``squeezeformer/conv2d.py`` takes typing names from ``torch.nn.modules.conv``, which has them no more."""
    import torch.nn.modules.conv as conv

    files = [wenet / part / "squeezeformer/conv2d.py" for part in ("models", "")]
    text = "".join(f.read_text(encoding="utf-8") for f in files if f.is_file())
    gone = [n for n in ("Union", "Optional") if not hasattr(conv, n)]
    if "torch.nn.modules.conv import" not in text or not gone:
        return
    import typing

    for name in gone:
        setattr(conv, name, getattr(typing, name))
    say(
        f"torch.nn.modules.conv has no {' and '.join(gone)}, which squeezeformer/conv2d.py imports from there"
    )


def import_train_utils() -> ModuleType:
    """WeNet's ``utils.train_utils``, which imports deepspeed whatever the engine. Where there is none, a
    stand-in carries its flags for as long as the import takes: transformers looks for deepspeed as well."""
    if importlib.util.find_spec("deepspeed") is not None:
        return importlib.import_module("wenet.utils.train_utils")

    def missing(*_: Any, **__: Any) -> Any:
        raise OsumError("--train_engine deepspeed", "deepspeed is not installed", "pip install deepspeed")

    def add_config_arguments(parser: ArgumentParser) -> ArgumentParser:
        group = parser.add_argument_group("DeepSpeed", "without effect: deepspeed is not installed")
        for flag in ("--deepspeed", "--deepscale", "--deepspeed_mpi"):
            group.add_argument(flag, default=False, action="store_true")
        for flag in ("--deepspeed_config", "--deepscale_config"):
            group.add_argument(flag, default=None, type=str)
        return parser

    names = {
        "deepspeed": {
            "add_config_arguments": add_config_arguments,
            "init_distributed": missing,
            "initialize": missing,
        },
        "deepspeed.runtime": {},
        "deepspeed.runtime.zero": {},
        "deepspeed.runtime.zero.stage3": {"estimate_zero3_model_states_mem_needs_all_live": missing},
        "deepspeed.runtime.zero.stage_1_and_2": {"estimate_zero2_model_states_mem_needs_all_live": missing},
        "deepspeed.utils": {},
        "deepspeed.utils.zero_to_fp32": {"convert_zero_checkpoint_to_fp32_state_dict": missing},
    }
    for name, members in names.items():
        module = ModuleType(name)
        vars(module).update(members)
        sys.modules[name] = module
    say("deepspeed is not installed, and train_utils.py imports it for every engine: a stand-in")
    try:
        return importlib.import_module("wenet.utils.train_utils")
    finally:
        for name in names:
            del sys.modules[name]


def mend_data_loader(train_utils: Any) -> None:
    """``--num_workers 0``, the default, passes options that torch takes with workers only."""
    loader = train_utils.DataLoader

    def make(*args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("num_workers") and kwargs.get("prefetch_factor") is not None:
            kwargs.update(prefetch_factor=None, persistent_workers=False)
            say("--num_workers 0 with a prefetch: the data is read by the training process")
        return loader(*args, **kwargs)

    train_utils.DataLoader = make


def mend_ranks() -> None:
    """``train`` needs torchrun's variables even for one process."""
    if "RANK" in os.environ:
        return
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    os.environ.setdefault("MASTER_ADDR", "localhost")
    if "MASTER_PORT" not in os.environ:
        import socket

        with socket.socket() as s:
            s.bind(("localhost", 0))
            os.environ["MASTER_PORT"] = str(s.getsockname()[1])
    say("not started by torchrun: one process")


def mend_zero_files(train_utils: Any, left_out: Callable[[], set[str]]) -> None:
    """DeepSpeed gathers its checkpoint into a folder, which ``train`` names like the file it used to be; and under
    ZeRO 1 it leaves out what does not learn.

    Args:
        left_out: names of the weights that checkpoints are to go without.
    """
    stock = train_utils.convert_zero_checkpoint_to_fp32_state_dict
    if "output_dir" not in inspect.signature(stock).parameters:
        return

    def convert(checkpoint_dir: str, output_file: str, tag: str) -> None:
        folder = Path(f"{output_file}.parts")
        stock(checkpoint_dir, str(folder), max_shard_size=None, tag=tag)
        gathered = torch.load(folder / "pytorch_model.bin")
        # Written by this very process a moment ago.
        states = Path(checkpoint_dir) / tag / "mp_rank_00_model_states.pt"
        frozen = torch.load(states, map_location="cpu", weights_only=False)["module"]
        whole = {**{n: t.float() for n, t in frozen.items() if t.is_floating_point()}, **gathered}
        with atomic_write(output_file, "wb") as f:
            torch.save({n: t for n, t in whole.items() if t.numel() and n not in left_out()}, f)
        shutil.rmtree(folder)

    train_utils.convert_zero_checkpoint_to_fp32_state_dict = convert
    say(
        "DeepSpeed would write each checkpoint as a folder called NAME.pt, under ZeRO 1 without what is frozen"
    )


def mend_group_options() -> None:
    """Under DeepSpeed and FSDP ``train`` reads the timeout of a process group from ``options``, which torch
    now keeps with the group's backend."""
    from torch.distributed import ProcessGroup

    if hasattr(ProcessGroup, "options"):
        return

    def options(group: Any) -> Any:
        return group._get_backend(torch.device("cpu")).options

    setattr(ProcessGroup, "options", property(options))  # noqa: B010
    say("a process group has no options, which train_utils.py takes its timeout from")


def mend_final_link(model_dir: str | None) -> None:
    """``train`` links ``final.pt`` to ``N.pt``; the file is ``epoch_N.pt``. A link to nothing that an earlier run
    left stands in the way of the next. One process of several does it."""
    final = Path(model_dir or "") / "final.pt"
    if model_dir is None or os.environ.get("RANK", "0") != "0" or not final.is_symlink() or final.exists():
        return
    target = f"epoch_{os.readlink(final)}"
    final.unlink()
    if (final.parent / target).is_file():
        final.symlink_to(target)
        say(f"{final} pointed to nothing; it is {target} now")
    else:
        say(f"{final} pointed to nothing; it is removed")


class PoolErrors:
    """``tools/make_shard_list.py`` and its like never ask their worker processes how it went, so that a
    failed one leaves an empty tar and exit status 0. Inside this context every result is asked for."""

    def __init__(self) -> None:
        self.results: list[Any] = []

    def __enter__(self) -> PoolErrors:
        self.stock = multiprocessing.pool.Pool.apply_async
        results, stock = self.results, self.stock

        def apply_async(pool: Any, *args: Any, **kwargs: Any) -> Any:
            result = stock(pool, *args, **kwargs)
            results.append(result)
            return result

        multiprocessing.pool.Pool.apply_async = apply_async  # type: ignore[method-assign,assignment]
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        multiprocessing.pool.Pool.apply_async = self.stock  # type: ignore[method-assign]
        if kind is not None and kind is not SystemExit:
            return
        failed = [r for r in self.results if r.ready() and not r.successful()]
        if failed:
            try:
                failed[0].get()
            except Exception as e:
                what = f"{len(failed)} of {len(self.results)} worker jobs failed, the first: {e!r:.200}"
                raise OsumError(
                    sys.argv[0], what, "what they wrote is not whole; mend it and run again"
                ) from e
