"""When a step is not to be trusted, and how a run is asked to stop."""

from __future__ import annotations

import math
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wenet_osum.errors import OsumError

WARM_UP, MEMORY, WINDOW = 50, 0.98, 1000
SCALED = 20  # steps in a row that fp16's scale may need


class Health:
    """Tells good steps from bad ones; a bad one is not taken.

    A step is bad when its loss or the norm of its gradient is not a finite number, or when its loss is more
    than ``loss_ratio`` times the running mean of the losses before (an average that forgets by 0.98 a step,
    asked from step 50 on).

    Args:
        conf: ``health_conf``: ``loss_ratio`` (0: not asked) and ``max_bad_steps``: at so many bad steps among
            the last 1,000 the run stops.
    """

    def __init__(self, conf: dict[str, Any]):
        self.ratio, self.most = conf["loss_ratio"], conf["max_bad_steps"]
        self.mean, self.count, self.scaled = 0.0, 0, 0
        self.bad: deque[int] = deque()

    def judge(self, loss: float, norm: float) -> str:
        """Why a step is bad, or nothing. The numbers must be the same on every rank."""
        self.scaled = 0
        if not math.isfinite(loss):
            return f"the loss is {loss}, not a number to learn from"
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm}, not a number to learn from"
        if self.ratio and self.count >= WARM_UP and loss > self.ratio * self.mean:
            return f"the loss is {loss:.4g}, its running mean {self.mean:.4g}"
        self.count += 1
        memory = min(MEMORY, 1 - 1 / self.count)  # the plain mean until there are enough
        self.mean = memory * self.mean + (1 - memory) * loss
        return ""

    def judge_scaled(self) -> str:
        """With fp16 a gradient that is not finite is the scale's to mend, unless it stays so: then why that is bad."""
        self.scaled += 1
        return (
            f"the gradient was not finite for {self.scaled} steps in a row" if self.scaled >= SCALED else ""
        )

    def note_bad(self, step: int, why: str, where: str) -> None:
        """Count a bad step.

        Raises:
            OsumError: there are too many.
        """
        self.bad.append(step)
        while self.bad[0] <= step - WINDOW:
            self.bad.popleft()
        if len(self.bad) >= self.most:
            what = f"{len(self.bad)} of the last {min(step + 1, WINDOW)} steps were bad, the last: {why}"
            mend = f"see {where} for the utterances; go on with a lower grad_clip, or begin with a lower optim_conf.lr"
            raise OsumError(f"step {step}", what, mend)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "count": self.count, "bad": list(self.bad)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean, self.count, self.bad = state["mean"], state["count"], deque(state["bad"])


class StopRequest:
    """Whether SIGTERM came, as a cluster sends it before it takes the machine away."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the signal in place of dying of it."""

        def ask(*_: object) -> None:
            self.asked = True

        before = signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
