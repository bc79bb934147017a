"""Error rate of transcripts: words, characters, or Chinese characters mixed with words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jiwer
from jiwer.transforms import ReduceToListOfListOfWords

from wenet_osum.errors import OsumError
from wenet_osum.score import bootstrap
from wenet_osum.score.bootstrap import DEFAULT, Draws
from wenet_osum.score.normalizer import get_normalizer
from wenet_osum.text.normalize import split_words

UNITS = {"word": "wer", "char": "cer", "mixed": "mer"}  # unit -> name of its rate

_BY_SPACE = ReduceToListOfListOfWords()


@dataclass(frozen=True)
class UtteranceErrors:
    """One utterance's share of the errors; ``missing`` when it had no hypothesis at all."""

    key: str
    ref_tokens: int
    substitutions: int
    insertions: int
    deletions: int
    missing: bool

    @property
    def errors(self) -> int:
        return self.substitutions + self.insertions + self.deletions


@dataclass(frozen=True)
class ErrorRate:
    """The error rate of a set of utterances, and where it comes from.

    ``value`` = 100 (S + I + D) / N percent, with N the reference tokens of the whole set (not the
    mean of the utterances' rates) and S + I + D the least number of edits (Levenshtein). The split
    into S, I and D is that of one shortest path; another may exist.
    """

    unit: str
    normalizer: str
    details: tuple[UtteranceErrors, ...]

    @property
    def ref_tokens(self) -> int:
        return sum(u.ref_tokens for u in self.details)

    @property
    def value(self) -> float | None:
        """Percent, or None where the references hold no token."""
        errors = sum(u.errors for u in self.details)
        return 100.0 * errors / self.ref_tokens if self.ref_tokens else None

    @property
    def counts(self) -> dict[str, int]:
        return {
            "utterances": len(self.details),
            "missing": sum(u.missing for u in self.details),
            "ref_tokens": self.ref_tokens,
            "substitutions": sum(u.substitutions for u in self.details),
            "insertions": sum(u.insertions for u in self.details),
            "deletions": sum(u.deletions for u in self.details),
        }

    def only(self, keys: Iterable[str]) -> ErrorRate:
        """The same, over some of the utterances."""
        kept = set(keys)
        return ErrorRate(self.unit, self.normalizer, tuple(u for u in self.details if u.key in kept))

    def interval(self, draws: Draws = DEFAULT) -> list[float] | None:
        """95 % bootstrap interval over utterances, in percent."""
        rows = [(u.errors, u.ref_tokens) for u in self.details]
        return bootstrap.interval(rows, bootstrap.ratio, draws=draws)

    def to_dict(self, draws: Draws = DEFAULT) -> dict[str, Any]:
        """As it stands in ``scores.json``: metric, value, interval, counts, unit of counting."""
        return {
            "metric": UNITS[self.unit],
            "value": self.value,
            "interval": self.interval(draws),
            "counts": self.counts,
            "tokens": self.unit,
            "normalizer": self.normalizer,
        }


def tokens_of(text: str, unit: str) -> list[str]:
    """Cut a normalised text into what is counted.

    Args:
        text: one utterance, normalised.
        unit: ``word`` (between white space), ``char`` (every character but white space), ``mixed``
            (CJK characters one by one, other words whole, as compute-wer.py ``--char=1``).

    Raises:
        OsumError: no such unit.
    """
    if unit == "mixed":
        return split_words(text)
    if unit == "word":
        return text.split()
    if unit == "char":
        return list("".join(text.split()))
    raise OsumError("unit", f"no unit {unit!r}", f"choose one of {', '.join(UNITS)}")


def align(refs: list[list[str]], hyps: list[list[str]]) -> list[list[jiwer.AlignmentChunk]]:
    """Edit-distance alignment of token lists, pair by pair; a token holds no space."""
    if not refs:
        return []
    ref_texts, hyp_texts = ([" ".join(tokens) for tokens in side] for side in (refs, hyps))
    return jiwer.process_words(ref_texts, hyp_texts, _BY_SPACE, _BY_SPACE).alignments


def error_rate(
    refs: Mapping[str, str], hyps: Mapping[str, str], unit: str = "mixed", normalizer: str = "wenet"
) -> ErrorRate:
    """Error rate of hypotheses against references.

    Args:
        refs: key -> reference text. They say what is scored: a hypothesis of another key is not.
        hyps: key -> hypothesis text. A key that is not there counts as deleted in full.
        unit: see `tokens_of`.
        normalizer: see `normalizer.get_normalizer`; applied to both sides.

    Example:
        >>> error_rate({"a": "the cat sat", "b": "你好"}, {"a": "the hat sat"}).value
        60.0
    """
    normal = get_normalizer(normalizer)
    keys = list(refs)
    ref_tokens = [tokens_of(normal(refs[k]), unit) for k in keys]
    hyp_tokens = [tokens_of(normal(hyps.get(k, "")), unit) for k in keys]
    details = []
    for key, ref, chunks in zip(keys, ref_tokens, align(ref_tokens, hyp_tokens), strict=True):
        edits = {"substitute": 0, "insert": 0, "delete": 0, "equal": 0}
        for c in chunks:
            edits[c.type] += max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx)
        s, i, d = edits["substitute"], edits["insert"], edits["delete"]
        details.append(UtteranceErrors(key, len(ref), s, i, d, missing=key not in hyps))
    return ErrorRate(unit, normalizer, tuple(details))
