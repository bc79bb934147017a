"""How likely each of some answers is, for the labels of a closed set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from wenet_osum.models.generation import Session
from wenet_osum.models.kv import KeyValues

TOGETHER = 64  # continuations read in one pass


def log_probabilities(session: Session, choices: Sequence[Sequence[list[int]]]) -> list[Tensor]:
    """Log-probability of each continuation of each row, (number of the row's choices,). The session stays where it is.

    Choices of one token need no pass at all: where the row stands says what comes next. The others are read
    beside each other, up to 64 in a pass, all of them behind the same keys and values.
    """
    first = session.decoder.head(session.hidden).log_softmax(-1)
    found = [
        row[torch.tensor([c[0] for c in own], dtype=torch.long, device=row.device)]
        for row, own in zip(first, choices)
    ]
    longer = [(b, n) for b, own in enumerate(choices) for n, c in enumerate(own) if len(c) > 1]
    if not longer:
        return found
    kept, hidden = session.kept, session.hidden
    rows = kept.rows(list(range(session.count)))
    for start in range(0, len(longer), TOGETHER):
        part = longer[start : start + TOGETHER]
        session.kept = KeyValues.join([rows[b] for b, _ in part])
        states, _ = session.read([choices[b][n][:-1] for b, n in part])
        for (b, n), state in zip(part, states):
            rest = torch.tensor(choices[b][n][1:], device=state.device)
            logits = session.decoder.head(state[: len(rest)])
            found[b][n] -= F.cross_entropy(logits, rest, reduction="sum")
    session.kept, session.hidden = kept, hidden
    return found
