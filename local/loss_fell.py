"""Exit 0 when the validation loss of every given model folder is lower after its last epoch than after its
first, and, where it was taken with exchanged audio too (``cv_swap``), lower than that; else name the folder and exit 1.

    python local/loss_fell.py exp/tiny/stage1 exp/tiny
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from wenet_osum.errors import OsumError, run_main

LISTENS = 1.1  # times the loss that another utterance's audio must cost


def losses(folder: Path) -> list[dict[str, float]]:
    """Validation losses after each epoch, in order."""
    infos = [yaml.safe_load(p.read_text(encoding="utf-8")) for p in folder.glob("epoch_*.yaml")]
    return [info["loss_dict"] for info in sorted(infos, key=lambda info: info["epoch"])]


def main() -> int:
    if len(sys.argv) < 2:
        raise OsumError("loss_fell.py", "no folder given", "name one or more model folders")
    for name in sys.argv[1:]:
        found = losses(Path(name))
        if len(found) < 2:
            raise OsumError(name, f"holds {len(found)} epochs", "train two or more")
        first, last = found[0]["loss"], found[-1]["loss"]
        if not last < first:
            raise OsumError(name, f"the loss went from {first:.4f} to {last:.4f}", "see its log")
        print(f"{name}: loss {first:.4f} -> {last:.4f}")
        if "swapped/loss_llm" in found[-1]:
            own, other = found[-1]["loss_llm"], found[-1]["swapped/loss_llm"]
            what = f"loss {own:.4f} with an utterance's own audio, {other:.4f} with another's"
            if not other > LISTENS * own:
                raise OsumError(name, f"does not listen: {what}", "see docs/training.md")
            print(f"{name}: {what}")
    return 0


if __name__ == "__main__":
    run_main(main)
