"""A moving average of the weights that learn, which often decodes better than the last ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """``average = decay * average + (1 - decay) * weight`` after every step (Polyak averaging with a horizon
    of ``1 / (1 - decay)`` steps). The first steps have a shorter horizon, ``(1 + n) / (10 + n)`` in the place
    of ``decay`` while that is less, so that random initial weights do not linger (TensorFlow's rule).

    Args:
        parameters: those that learn in any phase, by name.
        decay: from 0 to below 1.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float):
        self.decay, self.parameters, self.count = decay, parameters, 0
        self.averages = {n: p.detach().clone() for n, p in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        weights = [p.detach() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self.averages.values()), weights, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averages for its weights."""
        own = {n: p.detach().clone() for n, p in self.parameters.items()}
        self.put(self.averages)
        try:
            yield
        finally:
            self.put(own)

    @torch.no_grad()
    def put(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])

    def state_dict(self) -> dict[str, Tensor]:
        return {**self.averages, "count": torch.tensor(self.count)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        state = dict(state)
        self.count = int(state.pop("count"))
        for name, average in self.averages.items():
            average.copy_(state[name])
