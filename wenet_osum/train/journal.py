"""What a run says of itself: TensorBoard curves, ``log.jsonl``, ``skipped.jsonl``, ``bad_steps.jsonl``.

The three lists are appended to as the run goes. A state remembers how long each was; a run that goes on from
it cuts them back to there, so that they tell of one unbroken run.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

LOG, SKIPPED, BAD_STEPS = "log.jsonl", "skipped.jsonl", "bad_steps.jsonl"
WENET = {"loss": "train_loss", "lr": "lr_0"}  # WeNet's names of curves; the others are the same


class Journal:
    """Args:
    model_dir: the lists go here. log_dir: TensorBoard's events.
    chief: rank 0, who alone writes curves and ``log.jsonl``; every rank lists its own utterances.
    """

    def __init__(self, model_dir: Path, log_dir: Path, chief: bool, step: int):
        self.model_dir, self.chief = model_dir, chief
        # Curves of steps that are now taken again are hidden.
        self.writer = SummaryWriter(str(log_dir), purge_step=step + 1 if step else None) if chief else None

    def cut_back(self, sizes: dict[str, int]) -> None:
        """Bring the lists to what they were; without ``sizes`` they begin anew."""
        for name in (LOG, SKIPPED, BAD_STEPS):
            path = self.model_dir / name
            if self.chief and path.exists():
                os.truncate(path, min(sizes.get(name, 0), path.stat().st_size))

    def sizes(self) -> dict[str, int]:
        paths = {name: self.model_dir / name for name in (LOG, SKIPPED, BAD_STEPS)}
        return {name: path.stat().st_size for name, path in paths.items() if path.exists()}

    def append(self, name: str, rows: list[dict[str, Any]]) -> None:
        """One write a call, so that the lines of ranks do not mix."""
        if rows:
            with open(self.model_dir / name, "a", encoding="utf-8") as f:
                f.write("".join(json.dumps(finite(row), ensure_ascii=False) + "\n" for row in rows))

    def train(self, epoch: int, step: int, facts: dict[str, float], rates: list[float]) -> None:
        """Curves, a line of ``log.jsonl`` and one for the eye, after step ``step``."""
        if self.writer is None:
            return
        for name, value in facts.items():
            self.writer.add_scalar(f"train/{WENET.get(name, name)}", value, step)
        for i, lr in enumerate(rates[1:], 1):
            self.writer.add_scalar(f"train/lr_{i}", lr, step)
        self.append(LOG, [{"epoch": epoch, "step": step, **facts}])
        shown = " ".join(f"{k} {v:.4g}" for k, v in facts.items() if "/" not in k)
        tqdm.write(f"epoch {epoch} step {step} {shown}")

    def dev(self, epoch: int, step: int, facts: dict[str, float]) -> None:
        """A line for the eye and one of ``log.jsonl`` on what validation found."""
        if self.chief:
            self.append(LOG, [{"epoch": epoch, "step": step, "dev": facts}])
            tqdm.write(f"epoch {epoch} step {step} dev " + " ".join(f"{k} {v:.4f}" for k, v in facts.items()))

    def curves(self, group: str, at: int, facts: dict[str, float]) -> None:
        if self.writer is not None:
            for name, value in facts.items():
                self.writer.add_scalar(f"{group}/{name}", value, at)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def finite(value: Any) -> Any:
    """``value`` as JSON can say it: null for what is no number."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
