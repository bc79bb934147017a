"""Generation: against transformers' own, in any company, with any draft, under any rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wenet_osum.models.beam import write_best
from wenet_osum.models.choices import log_probabilities
from wenet_osum.models.generation import OSUM_RELEASE, Search, Session, looping
from wenet_osum.models.kv import KeyValues
from wenet_osum.models.llm_decoder import LLMDecoder
from wenet_osum.models.sequence import Sequence

VOCAB, EOS = 19, 3


@pytest.fixture(scope="module")
def decoder() -> LLMDecoder:
    torch.manual_seed(5)
    shape = {"model_type": "qwen2", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    made = LLMDecoder(VOCAB, 8, llm_config=shape, dtype="fp32").eval()
    for p in made.parameters():
        p.data *= 3  # else every row repeats one token
    return made


def input_of(lengths: list[int], seed: int) -> Sequence:
    """Left-padded random rows; the same row for the same seed and place."""
    rows = [
        torch.randn(n, 32, generator=torch.Generator().manual_seed(seed + i)) for i, n in enumerate(lengths)
    ]
    longest = max(lengths)
    embeds = torch.stack([torch.cat([torch.zeros(longest - len(r), 32), r]) for r in rows])
    mask = torch.arange(longest)[None] >= longest - torch.tensor(lengths)[:, None]
    return Sequence(embeds, mask, (mask.cumsum(1) - 1).clamp(min=0), torch.full(mask.shape, -1))


def row_of(seq: Sequence, b: int) -> Sequence:
    real = seq.mask[b]
    return Sequence(*(t[b : b + 1][:, real] for t in seq[:4]))


def theirs(decoder: LLMDecoder, seq: Sequence, limit: int, **how: Any) -> list[list[int]]:
    out = decoder.causal_lm.generate(
        inputs_embeds=seq.embeds,
        attention_mask=seq.mask.long(),
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=EOS,
        pad_token_id=EOS,
        **how,
    ).tolist()
    return [row[: row.index(EOS)] if EOS in row else row for row in out]


@torch.no_grad()
def ours(decoder: LLMDecoder, seq: Sequence, limits: list[int], **how: Any) -> list[list[int]]:
    return [w.tokens for w in Session(decoder, seq, EOS).write(limits, **how)]


@dataclass(frozen=True)
class Some:
    """A rule that lets some ids come, others at each step, and closes in time."""

    seed: int
    step: int = 0

    def allowed(self, room: int) -> Tensor:
        if room == 1:
            return torch.tensor([EOS])
        drawn = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(self.seed * 131 + self.step))
        return drawn[:5].sort().values

    def after(self, token: int) -> Some:
        return Some(self.seed, self.step + 1)


class Guess:
    """Guesses that are right up to a point of their own."""

    def __init__(self, answer: list[int], seed: int):
        self.answer, self.rng = answer, torch.Generator().manual_seed(seed)

    def propose(self, written: list[int]) -> list[int]:
        count, right = (int(torch.randint(0, 6, (1,), generator=self.rng)) for _ in range(2))
        guess = self.answer[len(written) :][:count]
        return [t if n < right else (t + 1) % VOCAB for n, t in enumerate(guess)]


LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=7)


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(0, 10**6))
def test_greedy_is_transformers_greedy(decoder: LLMDecoder, lengths: list[int], seed: int) -> None:
    seq = input_of(lengths, seed)
    assert ours(decoder, seq, [25] * len(lengths)) == theirs(decoder, seq, 25)


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(0, 10**6), st.integers(2, 4), st.sampled_from([0.0, 0.7, 1.0]))
def test_beam_is_transformers_beam(
    decoder: LLMDecoder, lengths: list[int], seed: int, beams: int, penalty: float
) -> None:
    seq = input_of(lengths, seed)
    with torch.no_grad():
        search = Search(beam_size=beams, length_penalty=penalty)
        found = write_best(Session(decoder, seq, EOS), [12] * len(lengths), search=search)
    assert [w.tokens for w in found] == theirs(decoder, seq, 12, num_beams=beams, length_penalty=penalty)


SEARCHES = [
    Search(),
    Search(repetition_penalty=1.3),
    Search(do_sample=True, seed=3, temperature=1.5),
    Search(do_sample=True, top_k=4, top_p=0.8),
    Search(beam_size=3),
    OSUM_RELEASE,
]


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(0, 10**6), st.sampled_from(SEARCHES), st.booleans(), st.booleans(), st.data())
def test_batch_equals_single_in_every_search(
    decoder: LLMDecoder, lengths: list[int], seed: int, search: Search, ruled: bool, drafted: bool, data: Any
) -> None:
    count = len(lengths)
    limits = data.draw(st.lists(st.integers(0, 20), min_size=count, max_size=count))
    seq = input_of(lengths, seed)
    rules = [Some(i) for i in range(count)] if ruled else [None] * count

    @torch.no_grad()
    def write(seq: Sequence, rows: list[int], drafters: Any = None) -> list[list[int]]:
        how: dict[str, Any] = {"rules": [rules[i] for i in rows], "search": search, "keys": rows}
        session = Session(decoder, seq, EOS)
        if search.beam_size > 1:
            found = write_best(session, [limits[i] for i in rows], **how)
        else:
            found = session.write([limits[i] for i in rows], drafters=drafters, **how)
        return [w.tokens for w in found]

    alone = [write(row_of(seq, i), [i])[0] for i in range(count)]
    assert all(len(tokens) <= limit for tokens, limit in zip(alone, limits))
    drafters = None
    if drafted and search.beam_size == 1 and not search.do_sample:
        drafters = [Guess(tokens, seed + i) for i, tokens in enumerate(alone)]
    assert write(seq, list(range(count)), drafters) == alone


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(0, 10**6))
def test_draft_equals_greedy_and_needs_fewer_passes(
    decoder: LLMDecoder, lengths: list[int], seed: int
) -> None:
    seq = input_of(lengths, seed)
    limits = [20] * len(lengths)
    greedy = ours(decoder, seq, limits)
    with torch.no_grad():
        found = Session(decoder, seq, EOS).write(limits, drafters=[Guess(t, seed) for t in greedy])

        # A perfect draft: one pass for all of it.
        class Whole(Guess):
            def propose(self, written: list[int]) -> list[int]:
                return self.answer[len(written) :]

        whole = Session(decoder, seq, EOS).write(limits, drafters=[Whole(t, 0) for t in greedy])
    assert [w.tokens for w in found] == greedy == [w.tokens for w in whole]
    for w in whole:
        assert w.proposed == w.accepted == max(len(w.tokens) - 1, 0) or len(w.tokens) == 20


@torch.no_grad()
def test_relaxed_keeps_likely_guesses(decoder: LLMDecoder) -> None:
    seq = input_of([9, 4, 12], 7)
    greedy = ours(decoder, seq, [15] * 3)
    wrong = [Guess([(t + 1) % VOCAB for t in tokens], 1) for tokens in greedy]
    for drafter in wrong:
        drafter.propose = lambda written, d=drafter: d.answer[len(written) :]  # type: ignore[method-assign]
    anything = Session(decoder, seq, EOS).write([15] * 3, drafters=wrong, search=Search(relaxed=0.0))
    assert any(w.accepted for w in anything)
    nothing = Session(decoder, seq, EOS).write([15] * 3, drafters=wrong, search=Search(relaxed=1.1))
    assert [w.tokens for w in nothing] == greedy


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(0, 10**6), st.data())
def test_what_is_written_in_parts_is_written_at_once(
    decoder: LLMDecoder, lengths: list[int], seed: int, data: Any
) -> None:
    """A session that stops at other ids, is told tokens and goes on stands where one does that was never stopped."""
    seq = input_of(lengths, seed)
    count = len(lengths)
    with torch.no_grad():
        session = Session(decoder, seq, EOS)
        ends = [frozenset(data.draw(st.sets(st.integers(0, VOCAB - 1), max_size=3))) for _ in range(count)]
        first = session.write([8] * count, ends=ends)
        forced = [data.draw(st.lists(st.integers(0, VOCAB - 1), max_size=4)) for _ in range(count)]
        session.force(forced)
        rest = session.write([6] * count)
        assert session.written == [a.tokens + f + b.tokens for a, f, b in zip(first, forced, rest)]
        for i in range(count):
            fresh = Session(decoder, row_of(seq, i), EOS)
            fresh.force([first[i].tokens + forced[i]])
            assert fresh.write([6])[0].tokens == rest[i].tokens
            torch.testing.assert_close(fresh.hidden[0], session.hidden[i], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_probabilities_of_choices_are_those_of_reading_each(decoder: LLMDecoder) -> None:
    seq = input_of([5, 11], 3)
    session = Session(decoder, seq, EOS)
    session.write([4, 2])
    before = session.hidden.clone()
    choices = [[[1], [2, 5, 6], [2, 7]], [[4, 4], [8]]]
    found = log_probabilities(session, choices)
    for i, own in enumerate(choices):
        for n, choice in enumerate(own):
            alone = Session(decoder, row_of(seq, i), EOS)
            alone.force([session.written[i]])
            total = 0.0
            for token in choice:
                total += float(decoder.head(alone.hidden).log_softmax(-1)[0, token])
                alone.force([[token]])
            assert float(found[i][n]) == pytest.approx(total, abs=1e-4)
    assert torch.equal(before, session.hidden)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4), st.data())
def test_columns_that_are_not_real_go(real: list[list[bool]], data: Any) -> None:
    for row in real:
        row[data.draw(st.integers(0, 5))] = True
    mask = torch.tensor(real)
    values = torch.arange(mask.numel()).float().view(len(real), 1, 6, 1)
    rows = [[(values[b][:, mask[b]], values[b][:, mask[b]])] for b in range(len(real))]
    joined = KeyValues.join(rows)
    again = joined.rows(list(range(len(real))))
    for b, row in enumerate(rows):
        assert torch.equal(again[b][0][0], row[0][0])
    joined.real[:, -1:] &= data.draw(st.booleans())
    wanted = [joined.cache.layers[0].keys[b][:, joined.real[b]] for b in range(len(real))]
    joined.squeeze()
    assert joined.real.size(1) == max(w.size(1) for w in wanted)
    for b, row in enumerate(wanted):
        assert torch.equal(joined.rows([b])[0][0][0], row)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 3), max_size=30),
    st.lists(st.integers(0, 9), min_size=1, max_size=6),
    st.integers(0, 40),
)
def test_a_loop_is_cut_and_no_other_text(head: list[int], unit: list[int], times: int) -> None:
    tokens = [100, *head, 101] + unit * times
    at = looping(tokens, 60)
    if len(unit) * times >= 60 and times >= 10 + 1:
        assert at >= 0 and len(tokens[:at]) <= 2 + len(head) + len(unit)
    if len(unit) * times < 60 and len(set(unit)) > 1:
        assert at == -1


@torch.no_grad()
def test_what_goes_in_circles_is_unwound(decoder: LLMDecoder) -> None:
    """A row made to repeat itself stands, after the cut, where one that was told the first round does."""

    @dataclass(frozen=True)
    class Round:
        """5 6 7 5 6 7 ...; it may end behind every 7, or at the start alone."""

        ends: bool
        at: int = 0

        def allowed(self, room: int) -> Tensor:
            end = self.at % 3 == 0 if self.ends else self.at == 0
            return torch.tensor([[5, 6, 7][self.at % 3], *([EOS] if end else [])])

        def after(self, token: int) -> Round:
            return Round(self.ends, self.at + 1)

    class Endless:
        """The decoder, but that it never wants to end."""

        read, embed = decoder.read, decoder.embed

        def head(self, hidden: Tensor) -> Tensor:
            return decoder.head(hidden).index_fill(-1, torch.tensor([EOS]), -1e9)

    seq = input_of([6, 9], 1)
    for ends, wanted in ((True, [5, 6, 7]), (False, [])):
        session = Session(Endless(), seq, EOS)
        found = session.write([90, 7], rules=[Round(ends), None], audible=[40, 40])
        assert found[0].looped and found[0].tokens == wanted == session.written[0] and not found[1].looped
        fresh = Session(Endless(), seq, EOS)
        fresh.force([wanted, found[1].tokens])
        torch.testing.assert_close(fresh.hidden, session.hidden, atol=1e-4, rtol=1e-4)
        assert torch.equal(fresh.kept.lengths(), session.kept.lengths())
        assert [w.tokens for w in fresh.write([5, 5])] == [w.tokens for w in session.write([5, 5])]
        assert [w.tokens for w in session.write([0, 0])] == [[], []]


@torch.no_grad()
def test_a_draft_in_circles_is_cut_where_greedy_is(decoder: LLMDecoder) -> None:
    """A unit that itself repeats is kept whole; a draft that goes in circles and leaves them again changes nothing."""

    class Round:
        """The decoder, but that it writes 1 2 2 2 2 2 2 2 2 2 2 2 2 over and over."""

        read, embed = decoder.read, decoder.embed

        def head(self, hidden: Tensor) -> Tensor:
            return torch.zeros(*hidden.shape[:-1], VOCAB)

    @dataclass(frozen=True)
    class Unit:
        at: int = 0

        def allowed(self, room: int) -> Tensor:
            here = [1, *[2] * 12][self.at % 13] if self.at < 180 else 5
            return torch.tensor([here])

        def after(self, token: int) -> Unit:
            return Unit(self.at + 1)

    @dataclass(frozen=True)
    class Ending(Unit):
        def allowed(self, room: int) -> Tensor:
            return torch.cat([super().allowed(room), torch.tensor([EOS])])

        def after(self, token: int) -> Ending:
            return Ending(self.at + 1)

    seq = input_of([6], 1)
    how: dict[str, Any] = {"rules": [Ending()], "audible": [120]}
    greedy = Session(Round(), seq, EOS).write([200], **how)[0]
    assert greedy.looped and greedy.tokens == [1, *[2] * 12]
    drafter = Guess([*([1, *[2] * 12] * 20)[:180], *[5] * 20], 0)
    drafter.propose = lambda written: drafter.answer[len(written) :]  # type: ignore[method-assign]
    drafted = Session(Round(), seq, EOS).write([200], drafters=[drafter], **how)[0]
    assert drafted.looped and drafted.tokens == greedy.tokens


@torch.no_grad()
def test_beam_sampling_draws_only_what_may_come() -> None:
    """Two hypotheses a hundred nats apart, each with one continuation."""
    from wenet_osum.models.beam import Beams, Hypothesis

    @dataclass(frozen=True)
    class Only:
        token: int

        def allowed(self, room: int) -> Tensor:
            return torch.tensor([self.token])

        def after(self, token: int) -> Only:
            assert token == self.token
            return self

    for seed in range(60):
        beams = Beams(Search(beam_size=2, do_sample=True, seed=seed), 9, None, frozenset({EOS}), seed)
        beams.running = [Hypothesis(0.0, [4], Only(4)), Hypothesis(-120.0, [7], Only(7))]
        beams.step(torch.randn(2, VOCAB, generator=torch.Generator().manual_seed(seed)))
        assert sorted(h.tokens[-1] for h in beams.running) == [4, 7]
