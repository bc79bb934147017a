"""What a service counts, for whoever reports it."""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import dataclass, field

# Upper bounds in seconds; the last bucket has none.
BOUNDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


@dataclass
class Histogram:
    """Values by bucket, as Prometheus has them, but each bucket without those below.

    Attributes:
        bounds: upper bounds, inclusive. counts: one for each bound, and one for what is above all.
        total: sum of the values. count: how many.
    """

    bounds: tuple[float, ...] = BOUNDS
    counts: list[int] = field(default_factory=list)
    total: float = 0.0
    count: int = 0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value
        self.count += 1


@dataclass
class Stats:
    """Counts since the start, and what is the case now.

    Attributes:
        requests: how many ended in which way: ``ok``, ``cancelled``, the ``outcome`` of each ``ServeError``, and
            ``error`` for a fault of ours.
        open: requests that are being answered or wait. queue: pieces that wait for the model. in_hand: pieces that it
            is answering.
        audio_seconds: of the pieces that were answered.
        batches: how many of which size.
        restarts: of the model's process. decoder_losses: decoders that died or were killed.
        latency: seconds from a request's arrival to its answer, of those that ended ``ok``.
        batch_latency: seconds that the model took for a batch.
    """

    requests: Counter[str] = field(default_factory=Counter)
    open: int = 0
    queue: int = 0
    in_hand: int = 0
    audio_seconds: float = 0.0
    batches: Counter[int] = field(default_factory=Counter)
    restarts: int = 0
    decoder_losses: int = 0
    latency: Histogram = field(default_factory=Histogram)
    batch_latency: Histogram = field(default_factory=Histogram)
