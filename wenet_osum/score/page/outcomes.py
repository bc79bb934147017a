"""What each utterance adds to its task's figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wenet_osum.score.edits import count_edits
from wenet_osum.score.reply import same_answer
from wenet_osum.score.srwt import word_shifts
from wenet_osum.score.wer import error_rate
from wenet_osum.tasks import Answer, Task
from wenet_osum.text.normalize import split_words

Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """An utterance and what one task's answer to it was worth.

    Attributes:
        hyp: the parsed answer; None where there is none. raw: as decoded.
        adds: numerator and denominator; over any set of utterances the task's figure is `scale_of` times the
            ratio of their sums.
        badness: compares utterances, the worst one has the largest; its first number is 0 where nothing is
            wrong.
        tokens: of the reference's transcript.
    """

    sample: Sample
    ref: Answer
    hyp: Answer | None
    raw: str | None
    adds: tuple[float, float]
    badness: tuple[float, ...]
    tokens: int

    @property
    def key(self) -> str:
        return self.sample["key"]


def scale_of(task: Task) -> float:
    """Percent, or milliseconds."""
    return 1000.0 if task.align else 100.0


def outcomes(
    task: Task, samples: Iterable[Sample], decoded: Mapping[str, str], normalizer: str
) -> list[Outcome]:
    """One outcome for every sample that supports the task, in their order; the figure of all is the task's
    ``value`` (`score.score_task`)."""
    kept = {s["key"]: s for s in samples if task.supported_by(s)}
    refs = {key: task.answer_of(sample) for key, sample in kept.items()}
    hyps = {key: task.parse(decoded[key]) for key in kept if key in decoded}
    if task.align or task.reply or task.fields:
        judged = {key: _judge(task, ref, hyps.get(key)) for key, ref in refs.items()}
        tokens = {key: len(split_words(ref.text or "")) for key, ref in refs.items()}
    else:
        texts = {key: ref.text or "" for key, ref in refs.items()}
        rate = error_rate(texts, {k: decoded[k].lower() for k in hyps}, "mixed", normalizer)
        judged = {
            u.key: ((u.errors, u.ref_tokens), (u.errors, u.errors / max(1, u.ref_tokens)))
            for u in rate.details
        }
        tokens = {u.key: u.ref_tokens for u in rate.details}
    return [
        Outcome(kept[key], ref, hyps.get(key), decoded.get(key), *judged[key], tokens[key])
        for key, ref in refs.items()
    ]


def _judge(task: Task, ref: Answer, hyp: Answer | None) -> tuple[tuple[float, float], tuple[float, ...]]:
    if task.align:
        words = ref.words or []
        shifts = word_shifts(words, (hyp and hyp.words) or [])
        # Times are multiples of 0.01 s: what rounding leaves here is a sum without a float's tail, so that equal
        # utterances are equal to the bootstrap.
        total = round(sum(abs(a) + abs(b) for a, b in shifts), 4)
        mean = total / len(shifts) / 2 if shifts else float("inf")
        return (total, 2 * len(shifts)), (mean, len(words) - len(shifts))
    if task.reply:
        wanted, given = ref.reply or "", (hyp and hyp.reply) or ""
        right = same_answer(wanted, given)
        wrong = 0 if right else max(1, sum(count_edits(split_words(wanted), split_words(given))))
        return (float(right), 1.0), (wrong,)
    right = hyp is not None and hyp.labels == ref.labels
    return (float(right), 1.0), (1 - right,)
