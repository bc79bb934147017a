"""Exit 0 when the validation loss of every given model folder is lower after its last epoch than after its
first; else name the folder and exit 1.

    python local/loss_fell.py exp/tiny/stage1 exp/tiny
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from wenet_osum.errors import OsumError, run_main


def losses(folder: Path) -> list[float]:
    """Validation loss after each epoch, in order."""
    infos = [yaml.safe_load(p.read_text(encoding="utf-8")) for p in folder.glob("epoch_*.yaml")]
    return [info["loss_dict"]["loss"] for info in sorted(infos, key=lambda info: info["epoch"])]


def main() -> int:
    if len(sys.argv) < 2:
        raise OsumError("loss_fell.py", "no folder given", "name one or more model folders")
    for name in sys.argv[1:]:
        found = losses(Path(name))
        if len(found) < 2:
            raise OsumError(name, f"holds {len(found)} epochs", "train two or more")
        if not found[-1] < found[0]:
            raise OsumError(name, f"the loss went from {found[0]:.4f} to {found[-1]:.4f}", "see its log")
        print(f"{name}: loss {found[0]:.4f} -> {found[-1]:.4f}")
    return 0


if __name__ == "__main__":
    run_main(main)
