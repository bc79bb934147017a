"""Beam search, and the beam sampling of OSUM's release, over a ``Session``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wenet_osum.models.generation import Rule, Scores, Search, Session, Written
from wenet_osum.models.kv import KeyValues


class Hypothesis(NamedTuple):
    score: float  # sum of log-probabilities
    tokens: list[int]
    rule: Rule | None


class Beams:
    """The hypotheses of one utterance."""

    def __init__(self, search: Search, limit: int, rule: Rule | None, stops: frozenset[int], key: int):
        self.search, self.limit, self.stops = search, limit, stops
        self.scores = Scores(search, key)
        self.running = [Hypothesis(0.0, [], rule)]
        self.finished: list[tuple[float, Hypothesis, bool]] = []  # final score, what, whether it ended itself

    def candidates(self, logits: Tensor) -> list[tuple[float, int, int]]:
        """The best 2 * beam_size continuations of logits (running, V), or as many drawn: (score, hypothesis, token)."""
        rows = []
        for hypothesis, row in zip(self.running, logits):
            row = self.scores.penalized(row.log_softmax(-1), hypothesis.tokens)
            if hypothesis.rule is not None:
                allowed = hypothesis.rule.allowed(self.limit - len(hypothesis.tokens) + 1)
                if allowed is not None:
                    allowed = allowed.to(row.device)
                    row = torch.full_like(row, float("-inf")).index_copy(0, allowed, row[allowed])
            rows.append((self.scores.warped(row) if self.search.do_sample else row) + hypothesis.score)
        flat = torch.stack(rows).flatten()
        count = min(2 * self.search.beam_size, int((flat > float("-inf")).sum()))
        if self.scores.generator is not None:
            # Drawn without replacement by a race of exponentials, in log space: probabilities of hypotheses a
            # hundred nats apart would be 0 (Efraimidis and Spirakis 2006).
            race = torch.empty(len(flat)).exponential_(1, generator=self.scores.generator).log()
            found = (flat.float().cpu() - race).topk(count).indices
            found = found[flat.cpu()[found].argsort(descending=True)]
        else:
            found = flat.topk(count).indices
        size = logits.size(1)
        return [(float(flat[at]), at // size, at % size) for at in found.tolist()]

    def step(self, logits: Tensor) -> list[int]:
        """Go on by one token. Returns:
        for each hypothesis that runs now, the one it came from; none when the search is over."""
        came_from: list[int] = []
        running: list[Hypothesis] = []
        for rank, (score, parent, token) in enumerate(self.candidates(logits)):
            before = self.running[parent]
            if token in self.stops:
                if rank < self.search.beam_size:
                    self.finish(Hypothesis(score, before.tokens, None), len(before.tokens) + 1, True)
            elif len(running) < self.search.beam_size:
                rule = before.rule.after(token) if before.rule else None
                running.append(Hypothesis(score, [*before.tokens, token], rule))
                came_from.append(parent)
        self.running = running
        if running and len(running[0].tokens) >= self.limit:
            for hypothesis in running:
                self.finish(hypothesis, len(hypothesis.tokens), False)
            self.running = []
        if self.running and len(self.finished) >= self.search.beam_size:
            length = len(self.running[0].tokens)
            if self.final(self.running[0].score, length) <= self.finished[-1][0]:
                self.running = []
        return came_from if self.running else []

    def final(self, score: float, length: int) -> float:
        return score / length**self.search.length_penalty

    def finish(self, hypothesis: Hypothesis, length: int, ended: bool) -> None:
        self.finished.append((self.final(hypothesis.score, length), hypothesis, ended))
        self.finished.sort(key=lambda f: -f[0])
        del self.finished[self.search.beam_size :]

    def best(self) -> Written:
        if not self.finished:  # a limit of 0
            return Written()
        _, hypothesis, ended = self.finished[0]
        return Written(hypothesis.tokens, ended=ended)


def write_best(
    session: Session,
    limits: Sequence[int],
    rules: Sequence[Rule | None] | None = None,
    ends: Sequence[frozenset[int]] | None = None,
    search: Search | None = None,
    keys: Sequence[int] | None = None,
) -> list[Written]:
    """As ``Session.write``, by a beam search over every row; the rows of an utterance leave when it is done.

    A search ends when ``beam_size`` hypotheses have, and none that runs could pass the worst of them with its
    score so far (transformers' rule).
    """
    search = search or Search(beam_size=4)
    count = session.count
    beams = []
    for i in range(count):
        stops = frozenset({session.eos}) | (ends[i] if ends else frozenset())
        beams.append(Beams(search, limits[i], rules[i] if rules else None, stops, keys[i] if keys else i))
    start, hidden = session.kept.rows(list(range(count))), session.hidden
    alive = [i for i in range(count) if limits[i] > 0]
    if len(alive) < count:
        first_rows = torch.tensor(alive, dtype=torch.long, device=hidden.device)
        session.hidden = hidden[first_rows]
        session.kept.select(first_rows)
    while alive:
        logits = session.decoder.head(session.hidden)
        rows: list[int] = []  # where each running hypothesis was, in the batch
        tokens, still, first = [], [], 0
        for i in alive:
            width = len(beams[i].running)
            came_from = beams[i].step(logits[first : first + width])
            rows += [first + parent for parent in came_from]
            tokens += [[h.tokens[-1]] for h in beams[i].running] if came_from else []
            still += [i] if came_from else []
            first += width
        alive = still
        if alive:
            index = torch.tensor(rows, device=logits.device)
            session.kept.select(index)
            new, _ = session.read(tokens)
            session.hidden = new[:, 0]
    session.kept, session.hidden = KeyValues.join(start), hidden
    results = [b.best() for b in beams]
    session.force([r.tokens for r in results])
    return results
