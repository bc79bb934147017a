"""Run a program of WeNet with our models in its tables: ``python -m wenet_osum.wenet wenet.bin.train FLAGS``.

The program may be a module (``wenet.bin.recognize``) or a script of a checkout
(``tools/make_shard_list.py``); its flags are its own. Under torchrun:
``torchrun --nproc_per_node 2 -m wenet_osum.wenet wenet.bin.train FLAGS``.
"""

from __future__ import annotations

import argparse
import re
import runpy
import sys
from pathlib import Path

from wenet_osum.errors import OsumError, run_main
from wenet_osum.wenet.find import wenet_folder
from wenet_osum.wenet.flags import check_flags, flag
from wenet_osum.wenet.mend_audio import mend_torchaudio
from wenet_osum.wenet.mends import (
    PoolErrors,
    import_train_utils,
    mend_data_loader,
    mend_final_link,
    mend_group_options,
    mend_ranks,
    mend_zero_files,
)
from wenet_osum.wenet.register import register


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m wenet_osum.wenet", description=__doc__)
    p.add_argument("--task", default="asr", help="asked, when decoding, where the list names none")
    p.add_argument("program", help="wenet.bin.train, wenet.bin.recognize ..., or a script of WeNet's")
    p.add_argument("flags", nargs=argparse.REMAINDER, help="the program's own")
    return p.parse_args(argv)


def run_script(path: Path, flags: list[str], task: str) -> None:
    """A file, as ``python PATH`` runs it."""
    if not path.is_file():
        raise OsumError(str(path), "no such script", "give wenet.bin.NAME or the path of a script")
    if re.search(r"^\s*(from|import) wenet\b", path.read_text(encoding="utf-8"), re.MULTILINE):
        register(task)
    else:
        mend_torchaudio()
    sys.argv = [str(path), *flags]
    sys.path.insert(0, str(path.parent))
    with PoolErrors():
        runpy.run_path(str(path), run_name="__main__")


def run_module(name: str, flags: list[str], task: str) -> None:
    """A module of WeNet, as ``python -m NAME`` runs it."""
    folder = wenet_folder()
    if not (folder.parent / f"{name.replace('.', '/')}.py").is_file():
        known = ", ".join(sorted(f"wenet.bin.{p.stem}" for p in (folder / "bin").glob("[a-z]*.py")))
        raise OsumError(name, "this WeNet has no such program", f"choose from {known}")
    check_flags(name, flags)
    plugin = register(task)
    sys.argv = [name, *flags]
    training, model_dir = name == "wenet.bin.train", flag(flags, "--model_dir")
    if training and not {"-h", "--help"}.intersection(flags):
        mend_ranks()
        if model_dir:  # WeNet's recipes make it; its train.py does not
            Path(model_dir).mkdir(parents=True, exist_ok=True)
            mend_final_link(model_dir)
        train_utils = import_train_utils()
        mend_data_loader(train_utils)
        engine = flag(flags, "--train_engine")
        if engine in ("deepspeed", "torch_fsdp"):
            mend_group_options()
        if engine == "deepspeed":
            mend_zero_files(train_utils, lambda: plugin.left_out)
    runpy.run_module(name, run_name="__main__", alter_sys=True)
    if training:
        mend_final_link(model_dir)


def main(argv: list[str] | None = None) -> int:
    args = get_args(argv)
    if args.program.endswith(".py"):
        run_script(Path(args.program), args.flags, args.task)
    else:
        run_module(args.program, args.flags, args.task)
    return 0


if __name__ == "__main__":
    run_main(main)
