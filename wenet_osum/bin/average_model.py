"""Average checkpoints: WeNet's ``average_model.py`` flags."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wenet_osum.checkpoint.average import find_checkpoints, write_average
from wenet_osum.errors import run_main


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="osum average_model", description=__doc__)
    p.add_argument("--dst_model", required=True, help="averaged checkpoint")
    p.add_argument("--src_path", required=True, help="folder of the checkpoints")
    p.add_argument("--val_best", action="store_true", help="those of lowest validation loss, not the latest")
    p.add_argument("--num", type=int, default=5, help="how many")
    p.add_argument("--min_epoch", type=int, default=0)
    p.add_argument("--max_epoch", type=int, default=sys.maxsize)
    p.add_argument("--min_step", type=int, default=0)
    p.add_argument("--max_step", type=int, default=sys.maxsize)
    p.add_argument("--mode", default="hybrid", choices=["hybrid", "epoch", "step"])
    return p.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = get_args(argv)
    limits = (args.min_epoch, args.max_epoch, args.min_step, args.max_step)
    paths = find_checkpoints(Path(args.src_path), args.num, args.val_best, args.mode, limits)
    write_average(paths, args.dst_model)
    print(f"{args.dst_model}: mean of {', '.join(p.name for p in paths)}")
    return 0


if __name__ == "__main__":
    run_main(main)
