"""What is shown of one utterance."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from markupsafe import Markup

from wenet_osum.score.align import align
from wenet_osum.score.labels import NO_ANSWER
from wenet_osum.score.page import svg
from wenet_osum.score.page.clips import Clip
from wenet_osum.score.page.outcomes import Outcome
from wenet_osum.score.page.worst import Probabilities
from wenet_osum.score.wer import get_cut
from wenet_osum.tasks import LabelField, Task
from wenet_osum.text.normalize import split_words

MAX_STEPS = 200  # shown of an alignment
MAX_TEXT = 600  # characters shown of a text
MAX_WORDS = 60  # timed words shown

_KINDS = {"substitution": "substituted", "insertion": "inserted", "deletion": "deleted"}


@dataclass(frozen=True)
class Step:
    """A step of an alignment: ``kind`` is equal, substitution, insertion or deletion."""

    kind: str
    ref: str
    hyp: str


@dataclass(frozen=True)
class Aligned:
    """A text beside its reference; ``more``: steps not shown; ``rtl``: it is written from the right."""

    steps: list[Step]
    counts: Counter[str]
    more: int
    rtl: bool


@dataclass(frozen=True)
class LabelPair:
    """A label as it should be and as it was answered, with the probabilities that the model gave them."""

    field: str
    ref: str
    hyp: str
    ref_share: float | None
    hyp_share: float | None


@dataclass
class Example:
    """An utterance as shown; parts that it does not have are None or empty.

    Attributes:
        about: language, speaker, seconds, labels. verdict: what is wrong, in words.
        raw: the answer as decoded. problems: what the parser found in it.
        sound: the clip, or why there is none.
    """

    key: str
    about: list[str]
    verdict: str
    raw: str | None
    problems: list[str]
    transcript: Aligned | None = None
    reply: Aligned | None = None
    labels: list[LabelPair] = field(default_factory=list)
    timeline: Markup | None = None
    sound: Clip | str = ""


def describe(
    task: Task, outcome: Outcome, fields: Iterable[LabelField], normalizer: str, shares: Probabilities
) -> Example:
    """What is shown of an utterance.

    Args:
        fields: labels that may be known of it. normalizer: the one its transcript was scored with.
        shares: the model's probabilities of its labels, if known.
    """
    ref, hyp = outcome.ref, outcome.hyp
    example = Example(
        shortened(outcome.key),
        _about(outcome, fields),
        "",
        None if outcome.raw is None else shortened(outcome.raw),
        [shortened(problem) for problem in hyp.problems] if hyp else [],
    )
    if task.transcript:
        given = (hyp.text or "") if hyp else ""
        if not (task.fields or task.align or task.reply):  # as it is scored
            given = (outcome.raw or "").lower()
        cut = get_cut("mixed", normalizer)
        example.transcript = aligned(cut(ref.text or ""), cut(given))
    if task.reply:
        example.reply = aligned(split_words(ref.reply or ""), split_words((hyp and hyp.reply) or ""))
    for f in task.fields:
        answer = hyp.labels.get(f.name) if hyp else None
        share = shares.get(f.name, {})
        example.labels.append(
            LabelPair(
                f.name,
                ref.labels[f.name],
                answer or NO_ANSWER,
                share.get(ref.labels[f.name]),
                share.get(answer or ""),
            )
        )
    if task.align:
        seconds = outcome.seconds or 0.0
        words, answered = ref.words or [], (hyp and hyp.words) or []
        example.timeline = svg.timeline(words[:MAX_WORDS], answered[:MAX_WORDS], seconds)
    example.verdict = _verdict(task, outcome, example)
    return example


def aligned(ref: list[str], hyp: list[str]) -> Aligned:
    """Both texts side by side, of a long one the first `MAX_STEPS` steps."""
    steps = []
    for a, b in align(ref, hyp):
        kind = (
            "equal" if a == b else "insertion" if a is None else "deletion" if b is None else "substitution"
        )
        steps.append(Step(kind, shortened(a or ""), shortened(b or "")))
    counts = Counter(step.kind for step in steps)
    return Aligned(
        steps[:MAX_STEPS], counts, max(0, len(steps) - MAX_STEPS), is_rtl("".join(ref) or "".join(hyp))
    )


def shortened(text: str) -> str:
    """At most `MAX_TEXT` characters of it."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text) - MAX_TEXT} characters more)"


def is_rtl(text: str) -> bool:
    """Whether the first letter that has a direction is written from right to left."""
    directions = (unicodedata.bidirectional(c) for c in text)
    return next((d in ("R", "AL") for d in directions if d in ("L", "R", "AL")), False)


def _about(outcome: Outcome, fields: Iterable[LabelField]) -> list[str]:
    sample = outcome.sample
    seconds = outcome.seconds
    parts = [outcome.language]
    if sample.get("speaker"):
        parts.append(f"speaker {sample['speaker']}")
    if seconds is not None:
        parts.append(f"{seconds:.1f} s")
    own = set(outcome.ref.labels)
    parts += [f"{f.name} {sample[f.name]}" for f in fields if sample.get(f.name) and f.name not in own]
    return [shortened(part) for part in parts]


def _verdict(task: Task, outcome: Outcome, example: Example) -> str:
    if outcome.hyp is None:
        return "no answer"
    if task.align:
        words = len(outcome.ref.words or [])
        aligned_words = int(outcome.adds[1]) // 2
        shift = f", {1000 * outcome.badness[0]:.0f} ms off on average" if aligned_words else ""
        return f"{aligned_words} of {words} words aligned{shift}"
    if task.reply and example.reply:
        return f"answer: {_edits(example.reply)}"
    if task.fields:
        return ""
    return _edits(example.transcript) if example.transcript else ""


def _edits(text: Aligned) -> str:
    tokens = sum(text.counts[kind] for kind in ("equal", "substitution", "deletion"))
    parts = [f"{text.counts[kind]} {name}" for kind, name in _KINDS.items() if text.counts[kind]]
    return f"{', '.join(parts) or 'the same'}, of {tokens} token{'' if tokens == 1 else 's'}"
