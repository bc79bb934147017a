"""Error rate of transcripts: words, characters, or Chinese characters mixed with words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wenet_osum.errors import OsumError
from wenet_osum.score.bootstrap import DEFAULT, Draws
from wenet_osum.score.edits import count_edits
from wenet_osum.score.figure import Figure, ratio, render
from wenet_osum.score.normalizer import get_normalizer
from wenet_osum.score.wenet_tokens import char_tokens, mixed_tokens, word_tokens
from wenet_osum.text.normalize import split_words

UNITS = {"word": "wer", "char": "cer", "mixed": "mer"}  # unit -> name of its rate

Cut = Callable[[str], list[str]]

_CUTS: dict[str, Cut] = {
    "word": str.split,
    "char": lambda text: list("".join(text.split())),
    "mixed": split_words,
}
_WENET_CUTS: dict[str, Cut] = {"word": word_tokens, "char": char_tokens, "mixed": mixed_tokens}


@dataclass(frozen=True, slots=True)
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
    mean of the utterances' rates) and S + I + D the least number of edits (`count_edits`). With the
    normaliser ``wenet`` all of them are those of WeNet's scripts, as long as every reference has a
    hypothesis: those scripts leave out one that has none, and here it counts as deleted.
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

    @property
    def figure(self) -> Figure:
        """The rate as what each utterance adds to it: errors and reference tokens."""
        return Figure.of([(u.errors, u.ref_tokens) for u in self.details], ratio)

    def interval(self, draws: Draws = DEFAULT) -> list[float] | None:
        """95 % bootstrap interval over utterances, in percent."""
        return self.figure.interval(draws)

    def tree(self) -> dict[str, Any]:
        """What `figure.render` makes `to_dict`'s."""
        return {
            "metric": UNITS[self.unit],
            "value": self.figure,
            "counts": self.counts,
            "tokens": self.unit,
            "normalizer": self.normalizer,
        }

    def to_dict(self, draws: Draws = DEFAULT) -> dict[str, Any]:
        """As it stands in ``scores.json``: metric, value, interval, counts, unit of counting."""
        return render(self.tree(), draws)


def get_cut(unit: str, normalizer: str) -> Cut:
    """A function from an utterance's text to what is counted of it.

    Args:
        unit: ``word`` (between white space), ``char`` (every character but white space), ``mixed``
            (CJK characters one by one, other words whole).
        normalizer: see `normalizer.get_normalizer`. With ``wenet`` the units are those of
            ``compute-wer.py``, of ``compute-cer.py --char=1`` and of ``compute-wer.py --char=1``.

    Raises:
        OsumError: no such unit or normaliser.
    """
    cuts = _WENET_CUTS if normalizer == "wenet" else _CUTS
    if unit not in cuts:
        raise OsumError("unit", f"no unit {unit!r}", f"choose one of {', '.join(UNITS)}")
    normal, cut = get_normalizer(normalizer), cuts[unit]
    return lambda text: cut(normal(text))


def error_rate(
    refs: Mapping[str, str], hyps: Mapping[str, str], unit: str = "mixed", normalizer: str = "wenet"
) -> ErrorRate:
    """Error rate of hypotheses against references.

    Args:
        refs: key -> reference text. They say what is scored: a hypothesis of another key is not.
        hyps: key -> hypothesis text. A key that is not there counts as deleted in full.
        unit, normalizer: see `get_cut`; applied to both sides.

    Example:
        >>> error_rate({"a": "the cat sat", "b": "你好"}, {"a": "the hat sat"}).value
        60.0
    """
    cut = get_cut(unit, normalizer)
    details = []
    for key, text in refs.items():
        ref, answer = cut(text), hyps.get(key, "")
        hyp = ref if answer == text else cut(answer)
        details.append(UtteranceErrors(key, len(ref), *count_edits(ref, hyp), missing=key not in hyps))
    return ErrorRate(unit, normalizer, tuple(details))
