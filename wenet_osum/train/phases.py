"""Which parts learn when: the ``phases`` of a config, in one run.

    phases:
      - {steps: 2000, trainable: [adapter]}
      - {steps: 4000, trainable: [adapter, encoder]}
      - {trainable: [adapter, encoder, lora]}

(The authors' order, OSUM issue #22.) One optimizer serves all phases: a weight without gradient is not
touched by it, and keeps no moments until its phase begins.
"""

from __future__ import annotations

from typing import Any

from wenet_osum.errors import OsumError


class Phases:
    """The phases of a run.

    Args:
        conf: the list of the config; empty: one phase, in which ``model_conf.trainable`` learns.
        model: knows its parts.

    Raises:
        OsumError: a phase without parts, an unknown key or part, a length that is none, ``trainable`` twice.
    """

    def __init__(self, conf: list[dict[str, Any]], model: Any, trainable: Any = None):
        self.ends: list[float] = []
        self.parts: list[list[str]] = []
        if conf and trainable is not None:
            raise OsumError("model_conf.trainable", "is given beside phases", "keep one of the two")
        parts = model.parts()
        for n, phase in enumerate(conf):
            where, last = f"phases[{n}]", n == len(conf) - 1
            if not isinstance(phase, dict) or not set(phase) <= {"steps", "trainable"}:
                raise OsumError(where, f"is {phase!r}", "write {steps: N, trainable: [part, ...]}")
            steps = phase.get("steps")
            if steps is None and not last:
                raise OsumError(f"{where}.steps", "is missing", "only the last phase may go on to the end")
            if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
                raise OsumError(f"{where}.steps", f"is {steps!r}", "give a whole number from 1 up")
            names = phase.get("trainable")
            if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
                raise OsumError(f"{where}.trainable", f"is {names!r}", "name at least one part")
            unknown = [name for name in names if name not in parts]
            if unknown:
                mend = f"choose from {', '.join(parts)}"
                raise OsumError(f"{where}.trainable", f"no part {unknown[0]!r}", mend)
            if not any(parts[n] and (n != "ctc" or model.ctc_weight > 0) for n in names):
                mend = "name a part that has weights and a loss"
                raise OsumError(f"{where}.trainable", f"nothing would learn in {', '.join(names)}", mend)
            before = self.ends[-1] if self.ends else 0
            self.ends.append(float("inf") if last or steps is None else before + steps)
            self.parts.append(names)

    def at(self, step: int) -> int:
        """Number of the phase that step ``step`` (from 0) is in."""
        return next((n for n, end in enumerate(self.ends) if step < end), 0)

    def everything(self) -> list[str] | None:
        """The parts that learn in any phase; None without phases."""
        return sorted({name for names in self.parts for name in names}) if self.parts else None
