"""The figures of a step: losses, by task too, accuracy, shares of padding and of target tokens, rates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from wenet_osum.dataset.batch import Batch

LOSSES = ("loss", "loss_llm", "loss_ctc")
COUNTS = ("weight", "right", "tokens", "positions", "frames", "room", "utterances")


class Meter:
    """Sums over the batches of a step (or of a validation) and over all ranks.

    Args:
        tasks: names of all tasks there are, in an order that is the same on every rank.
    """

    def __init__(self, tasks: Iterable[str]):
        self.tasks = sorted(tasks)
        self.restart()

    def restart(self) -> None:
        """Rates are counted from here."""
        self.since, self.passed = time.monotonic(), {"utterances": 0.0, "positions": 0.0}

    def begin(self) -> None:
        self.sums = dict.fromkeys((*LOSSES, *COUNTS), 0.0)
        self.by_task = {t: [0.0, 0.0] for t in self.tasks}

    def add(self, batch: Batch, out: dict[str, Any], weight: float = 1.0) -> None:
        """Take in what the model's forward gave for a batch; its losses count ``weight``."""
        for name in LOSSES:
            if out.get(name) is not None:
                self.sums[name] += weight * float(out[name].detach())
        tokens, frames = float(out["tokens"]), float(batch["feats_lengths"].sum())
        packed = batch["feats"].dim() == 2
        counts = {
            "weight": weight,
            "right": float(out["th_accuracy"]) * tokens,
            "tokens": tokens,
            "positions": float(out["positions"]),
            "frames": frames,
            "room": frames if packed else float(batch["feats"].size(0) * batch["feats"].size(1)),
            "utterances": len(batch["keys"]),
        }
        for name, count in counts.items():
            self.sums[name] += count
        for task, loss, share in zip(
            batch["tasks"], out["utterance_loss"].tolist(), out["utterance_weight"].tolist()
        ):
            self.by_task[task][0] += loss
            self.by_task[task][1] += share

    def end(self, over_ranks: Callable[..., list[float]], mean: bool) -> dict[str, float]:
        """The figures: ``loss``, ``loss_llm``, ``loss_ctc`` (with a CTC weight), ``acc``, ``padding`` (share of
        the frames that is padding), ``target_share`` (answer tokens among the LLM's positions), and
        ``loss/TASK`` for each task that occurred. Nothing at all when there was no utterance.

        Args:
            over_ranks: sums its arguments over all ranks.
            mean: losses are divided by their weights.
        """
        flat = [*self.sums.values(), *(x for pair in self.by_task.values() for x in pair)]
        total = over_ranks(*flat)
        sums = dict(zip(self.sums, total))
        for name in self.passed:
            self.passed[name] += sums[name]
        if not sums["utterances"]:
            return {}
        divisor = sums["weight"] if mean else 1.0
        facts = {n: sums[n] / divisor for n in LOSSES if sums[n] or n == "loss"}
        facts["acc"] = sums["right"] / max(1.0, sums["tokens"])
        facts["padding"] = 1 - sums["frames"] / sums["room"]
        facts["target_share"] = sums["tokens"] / sums["positions"]
        pairs = total[len(sums) :]
        for task, loss, weight in zip(self.by_task, pairs[::2], pairs[1::2]):
            if weight:
                facts[f"loss/{task}"] = loss / weight
        return facts

    def rates(self) -> dict[str, float]:
        """Utterances and LLM positions a second, over all ranks, since the last call."""
        seconds = max(1e-9, time.monotonic() - self.since)
        rates = {f"{name}_per_second": count / seconds for name, count in self.passed.items()}
        self.restart()
        return rates
