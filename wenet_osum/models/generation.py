"""Answers of a batch, written token by token or, where somebody guesses them, many at once.

Each row has its own rule (what may come), limit and draft, and leaves the batch when it is done, so that a
row's tokens are the same in any company. A draft is checked in one pass: the LLM reads the guesses, and keeps
them up to the first that it would not have written itself (speculative decoding, arXiv 2211.17192, with
greedy acceptance), so that the result is greedy decoding's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from wenet_osum.models.kv import KeyValues, Row
from wenet_osum.models.sequence import Sequence as Input

LONGEST_UNIT = 40  # tokens that a loop may repeat
REPEATS = 10  # of a unit, at least, before it can be called a loop


class Rule(Protocol):
    """What one row may write next. Immutable."""

    def allowed(self, room: int) -> Tensor | None:
        """(n,) ids that may come next, never empty; None: any. ``room``: how many tokens may still be written,
        this one and the end included; a rule closes its form in time."""

    def after(self, token: int) -> Rule:
        """The rule for what follows ``token``."""


class Drafter(Protocol):
    def propose(self, written: list[int]) -> list[int]:
        """Guesses at what follows ``written``. They change the speed, never the result."""


@dataclass(frozen=True)
class Search:
    """How answers are looked for.

    Attributes:
        beam_size: hypotheses of a beam search; 1: one token after the other.
        length_penalty: of a beam search; a hypothesis' score is its log-probability / length ** length_penalty.
        do_sample: draw, by a generator of each row's own, in place of the likeliest.
        temperature, top_k, top_p: of drawing; 0 and 1.0: off.
        repetition_penalty: scores of tokens already written are divided by it (multiplied where negative; arXiv
            1909.05858).
        seed: of drawing.
        relaxed: a draft's token is kept where the LLM gives it at least this probability (after arXiv 2603.11243);
            None: only where it is the one that the LLM itself would write.
    """

    beam_size: int = 1
    length_penalty: float = 0.0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0
    relaxed: float | None = None


# What OSUM's release sets (upstream llmasr_model.py: generate).
OSUM_RELEASE = Search(
    beam_size=4, length_penalty=1.0, do_sample=True, top_k=5, top_p=0.9, repetition_penalty=1.05
)


@dataclass
class Written:
    """One row's tokens, without the end; how many were proposed by drafts and kept; ``ended``: not cut by the
    limit; ``looped``: cut because it went in circles."""

    tokens: list[int] = field(default_factory=list)
    proposed: int = 0
    accepted: int = 0
    ended: bool = False
    looped: bool = False


class Scores:
    """A row's choice among the next tokens."""

    def __init__(self, search: Search, key: int = 0):
        self.search = search
        self.generator: torch.Generator | None = None
        if search.do_sample:
            # Of the row's own, so that company does not change what is drawn.
            self.generator = torch.Generator().manual_seed((search.seed * 1_000_003 + key) % 2**63)

    def penalized(self, logits: Tensor, written: list[int]) -> Tensor:
        """(V,) -> (V,)."""
        penalty = self.search.repetition_penalty
        if penalty == 1.0 or not written:
            return logits
        ids = torch.tensor(sorted(set(written)), device=logits.device)
        old = logits[ids]
        return logits.index_copy(0, ids, torch.where(old < 0, old * penalty, old / penalty))

    def warped(self, scores: Tensor) -> Tensor:
        """The scores that drawing is from, (n,): by temperature, of the best ``top_k``, of the best that make up
        ``top_p``."""
        search = self.search
        scores = scores.float() / search.temperature
        if 0 < search.top_k < len(scores):
            scores = scores.masked_fill(scores < scores.topk(search.top_k).values[-1], float("-inf"))
        if search.top_p < 1:
            ordered, order = scores.sort(descending=True)
            before = ordered.softmax(0).cumsum(0) - ordered.softmax(0)
            scores = scores.index_fill(0, order[before >= search.top_p], float("-inf"))
        return scores

    def pick(self, logits: Tensor, written: list[int], allowed: Tensor | None) -> int:
        """The next token, of logits (V,)."""
        logits = self.penalized(logits, written)
        if allowed is not None:
            logits = logits[allowed]
        if self.generator is None:
            at = int(logits.argmax())
        else:
            probabilities = self.warped(logits).softmax(0).cpu()
            at = int(torch.multinomial(probabilities, 1, generator=self.generator))
        return at if allowed is None else int(allowed[at])


def looping(tokens: list[int], most: int) -> int:
    """Where a text that goes in circles starts to: the first token behind the unit's first time; -1 if it does not.

    A unit of up to 40 tokens that is there ten times and more, and together is longer than ``most`` tokens,
    which is more than the audio has time for, is not speech.
    """
    if len(tokens) < most:  # nearly always
        return -1
    for size in range(1, LONGEST_UNIT + 1):
        if len(tokens) < size * REPEATS or tokens[-1] != tokens[-1 - size]:
            continue
        start = len(tokens) - size
        while start > 0 and tokens[start - 1] == tokens[start - 1 + size]:
            start -= 1
        if len(tokens) - start >= max(size * REPEATS, most):
            return start + size
    return -1


class Session:
    """Sequences under way: what was read and written so far, and how each goes on.

    Args:
        decoder: ``LLMDecoder``.
        seq: left-padded input of B rows.
        eos: the end id.
        written: tokens of the answers that ``seq`` has already.
    """

    def __init__(self, decoder: Any, seq: Input, eos: int, written: Sequence[Sequence[int]] | None = None):
        from transformers.cache_utils import DynamicCache

        self.decoder, self.eos = decoder, eos
        self.count = seq.mask.size(0)
        cache = DynamicCache()
        hidden = decoder.read(seq.embeds, seq.mask, seq.position_ids, cache)
        self.kept = KeyValues(cache, seq.mask)
        self.kept.squeeze()
        # (B, H), of each row's last position; a copy, since a view would keep the whole pass in memory.
        self.hidden = hidden[:, -1].clone()
        self.written = [list(tokens) for tokens in written or [[]] * self.count]

    def read(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Feed each row its tokens (none, for some): hidden states (B, n, H) and which are real (B, n)."""
        device = self.hidden.device
        lengths = torch.tensor([len(t) for t in tokens], device=device)
        width = int(lengths.max())
        ids = torch.tensor([[*t, *[0] * (width - len(t))] for t in tokens], device=device)
        real = torch.arange(width, device=device)[None] < lengths[:, None]
        positions = self.kept.lengths()[:, None] + torch.arange(width, device=device)
        hidden = self.decoder.read(
            self.decoder.embed(ids), torch.cat([self.kept.real, real], 1), positions, self.kept.cache
        )
        self.kept.real = torch.cat([self.kept.real, real], dim=1)
        return hidden, real

    def force(self, tokens: Sequence[Sequence[int]]) -> None:
        """Write each row's tokens, whatever the LLM thinks of them."""
        if not any(tokens):
            return
        hidden, real = self.read(tokens)
        self.stay(hidden, real.sum(dim=1))
        for row, ids in zip(self.written, tokens):
            row += ids
        self.kept.squeeze()

    def stay(self, hidden: Tensor, at: Tensor) -> None:
        """Take the hidden states behind the first ``at`` (B,) tokens of a pass as where rows stand."""
        last = hidden[torch.arange(len(at), device=at.device), (at - 1).clamp(min=0)]
        self.hidden = torch.where((at > 0)[:, None], last, self.hidden)

    def write(
        self,
        limits: Sequence[int],
        rules: Sequence[Rule | None] | None = None,
        ends: Sequence[frozenset[int]] | None = None,
        drafters: Sequence[Drafter | None] | None = None,
        search: Search | None = None,
        keys: Sequence[int] | None = None,
        audible: Sequence[int] | None = None,
    ) -> list[Written]:
        """Let every row go on until it ends or has ``limits`` new tokens. What it wrote is behind it then.

        Args:
            limits: most new tokens of each row, the end not counted; a row with 0 stays as it is.
            rules: what may come.
            ends: ids that end a row beside the end id; they are not written.
            drafters: not with ``do_sample``.
            keys: numbers that name the rows, for drawing.
            audible: tokens that the audio has time for; more of one thing over and over is cut (``looping``).
        """
        search, before = search or Search(), self.hidden
        count = self.count
        state: list[Rule | None] = list(rules or [None] * count)
        stops = [frozenset({self.eos}) | (ends[i] if ends else frozenset()) for i in range(count)]
        scores = [Scores(search, keys[i] if keys else i) for i in range(count)]
        results = [Written() for _ in range(count)]
        alive = list(range(count))  # rows of the batch, by their number in the session
        parked: dict[int, tuple[Row, Tensor]] = {}
        self.leave([i for i in alive if limits[i] < 1], alive, parked)
        while alive:
            following = self.following([results[i].tokens for i in alive], alive, state, limits, scores)
            for i, token in zip(alive, following):
                done = results[i]
                if token in stops[i]:
                    done.ended = True
                    continue
                done.tokens.append(token)
                done.looped = audible is not None and looping(done.tokens, audible[i]) > 0
            # A row that ends, and one whose last token this was, leaves; the latter's token has yet to be read.
            self.leave([n for n, i in enumerate(alive) if results[i].ended], alive, parked)
            if not alive:
                break
            feed = []
            for i in alive:
                done, rule = results[i], state[i]
                state[i] = rule.after(done.tokens[-1]) if rule else None
                room = limits[i] - len(done.tokens)
                drafter = drafters[i] if drafters else None
                guess = (
                    drafter.propose(done.tokens)[: max(room - 1, 0)] if drafter and not done.looped else []
                )
                feed.append([done.tokens[-1], *guess])
            hidden, _ = self.read(feed)
            self.accept(hidden, feed, alive, results, state, limits, scores, stops, audible)
            full = [
                n for n, i in enumerate(alive) if results[i].looped or len(results[i].tokens) >= limits[i]
            ]
            self.leave(full, alive, parked)
        self.kept = KeyValues.join([parked[i][0] for i in range(count)])
        self.hidden = torch.stack([parked[i][1] for i in range(count)])
        self.unwind(results, rules, audible, before)
        for row, done in zip(self.written, results):
            row += done.tokens
        return results

    def unwind(
        self,
        results: list[Written],
        rules: Sequence[Rule | None] | None,
        audible: Sequence[int] | None,
        before: Tensor,
    ) -> None:
        """Take from rows that went in circles all but the first round, and back to where their rule lets them end;
        ``before``: the hidden states from which they were written."""
        if audible is None or not any(done.looped for done in results):
            return
        again: list[list[int]] = [[] for _ in results]
        for b, done in enumerate(results):
            if not done.looped:
                continue
            keep = self.may_end(done.tokens[: looping(done.tokens, audible[b])], rules[b] if rules else None)
            # The last token that stays is read once more, for the hidden state behind it.
            gone = len(done.tokens) - keep + (keep > 0)
            columns = self.kept.real[b].nonzero()[:, 0]
            self.kept.real[b, columns[len(columns) - gone :]] = False
            del done.tokens[keep:]
            again[b] = done.tokens[-1:]
            self.hidden[b] = before[b]
        if any(again):
            hidden, real = self.read(again)
            self.stay(hidden, real.sum(dim=1))
        self.kept.squeeze()

    def may_end(self, tokens: list[int], rule: Rule | None) -> int:
        """How many of the tokens there are at the last place where the rule allows the end."""
        keep = len(tokens) if rule is None else 0
        for n, token in enumerate(tokens if rule else [], start=1):
            assert rule is not None
            rule = rule.after(token)
            allowed = rule.allowed(len(tokens) + LONGEST_UNIT)
            if allowed is None or bool((allowed == self.eos).any()):
                keep = n
        return keep

    def following(
        self,
        written: list[list[int]],
        alive: list[int],
        state: list[Rule | None],
        limits: Sequence[int],
        scores: list[Scores],
    ) -> list[int]:
        """The next token of each row of the batch."""
        logits = self.decoder.head(self.hidden)
        if all(state[i] is None for i in alive) and all(
            scores[i].generator is None and scores[i].search.repetition_penalty == 1 for i in alive
        ):
            return logits.argmax(-1).tolist()  # type: ignore[no-any-return]
        found = []
        for row, tokens, i in zip(logits, written, alive):
            rule = state[i]
            allowed = rule.allowed(limits[i] - len(tokens) + 1) if rule else None
            found.append(scores[i].pick(row, tokens, allowed))
        return found

    def accept(
        self,
        hidden: Tensor,
        feed: list[list[int]],
        alive: list[int],
        results: list[Written],
        state: list[Rule | None],
        limits: Sequence[int],
        scores: list[Scores],
        stops: list[frozenset[int]],
        audible: Sequence[int] | None,
    ) -> None:
        """Keep of each row's ``feed`` the first token, and guesses as long as they are what would have been written."""
        keep = [1] * len(feed)
        for n, i in enumerate(alive):
            guesses, done = feed[n][1:], results[i]
            if not guesses:
                continue
            done.proposed += len(guesses)
            logits = self.decoder.head(hidden[n, : len(guesses)])
            best = logits.argmax(-1).tolist()
            for at, token in enumerate(guesses):
                rule = state[i]
                allowed = rule.allowed(limits[i] - len(done.tokens) + 1) if rule else None
                own = best[at]
                if allowed is not None or scores[i].search.repetition_penalty != 1:
                    own = scores[i].pick(logits[at], done.tokens, allowed)
                if token != own and not self.near(logits[at], token, allowed, scores[i].search):
                    break
                if token in stops[i]:
                    break
                done.tokens.append(token)
                state[i] = rule.after(token) if rule else None
                done.accepted += 1
                keep[n] += 1
                if audible is not None and looping(done.tokens, audible[i]) > 0:
                    done.looped = True
                    break
        kept = torch.tensor(keep, device=hidden.device)
        self.stay(hidden, kept)
        width = hidden.size(1)
        if width > 1:
            self.kept.real[:, -width:] &= torch.arange(width, device=kept.device)[None] < kept[:, None]
            self.kept.squeeze()

    @staticmethod
    def near(logits: Tensor, token: int, allowed: Tensor | None, search: Search) -> bool:
        """Whether a guess that is not the likeliest is good enough, where ``search.relaxed`` lets it be."""
        if search.relaxed is None or (allowed is not None and not bool((allowed == token).any())):
            return False
        return float(logits.log_softmax(-1)[token].exp()) >= search.relaxed

    def leave(self, rows: list[int], alive: list[int], parked: dict[int, tuple[Row, Tensor]]) -> None:
        """Park rows (their numbers in the batch) and make the batch smaller."""
        if not rows:
            return
        for n, kept in zip(rows, self.kept.rows(rows)):
            parked[alive[n]] = (kept, self.hidden[n])
        stay = [n for n in range(len(alive)) if n not in set(rows)]
        alive[:] = [alive[n] for n in stay]
        if stay:
            index = torch.tensor(stay, device=self.hidden.device)
            self.hidden = self.hidden[index]
            self.kept.select(index)
