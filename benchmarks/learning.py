"""A learning report: one line for each validation of a run, from its ``log.jsonl``.

    python benchmarks/learning.py exp/mini

Columns: the optimizer step; mean training loss since the line before; dev loss with each
utterance's own audio, with another's (``cv_swap: true``), and the difference, which is what the model hears, in nats a
token; then every decoded score (``cv_decode_conf``).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from wenet_osum.errors import OsumError, run_main
from wenet_osum.train.journal import LOG

HEADS = ("step", "train", "dev", "swapped", "heard")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log.

    Raises:
        OsumError: there is none.
    """
    path = folder / LOG
    if not path.is_file():
        raise OsumError(str(path), "no such file", "name the folder of a run")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def report(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """A dict for each validation, with ``HEADS`` as far as they are known, and the scores of decoded answers."""
    found: list[dict[str, float]] = []
    losses: list[float] = []
    for row in rows:
        if "dev" not in row:
            losses.append(row["loss"])
            continue
        dev = row["dev"]
        line = {"step": row["step"], "dev": dev.get("loss_llm", dev["loss"])}
        if losses:
            line["train"] = sum(losses) / len(losses)
        if "swapped/loss_llm" in dev:
            line["swapped"] = dev["swapped/loss_llm"]
            line["heard"] = line["swapped"] - line["dev"]
        scores = {k: v for k, v in dev.items() if "/" in k and not k.startswith(("swapped/", "loss/"))}
        found.append({**line, **scores})
        losses = []
    return found


def main() -> int:
    if len(sys.argv) != 2:
        raise OsumError("learning.py", "takes one folder of a run", "for example exp/mini")
    lines = report(read_log(Path(sys.argv[1])))
    heads = list(
        dict.fromkeys([h for h in HEADS if any(h in x for x in lines)] + [k for x in lines for k in x])
    )
    print(" ".join(f"{h:>12}" for h in heads))
    for line in lines:
        cells = [f"{line[h]:.4g}" if h in line else "" for h in heads]
        print(" ".join(f"{c:>12}" for c in cells))
    return 0


if __name__ == "__main__":
    run_main(main)
