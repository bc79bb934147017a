"""A label field: one closed question about an utterance, and the values that answer it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from wenet_osum.text.normalize import process_text


def _fold(raw: str) -> str:
    """The form in which names are compared: ``"<Throat_Clearing>"`` and ``"throat clearing"`` are one."""
    return process_text(raw.strip().removeprefix("<").removesuffix(">").replace("_", " ").replace("-", " "))


@dataclass(frozen=True)
class LabelField:
    """One kind of label.

    Attributes:
        name: key in a sample, e.g. ``"emotion"``.
        atom: its part of a task tag, without the brackets, e.g. ``"EMOTION"``.
        file: its file in a Kaldi data dir, ``utterance-id value`` a line, e.g. ``"utt2emotion"``.
        values: the canonical values, in the order of reports.
        spk_file: a file that gives it by speaker, or None.
        aliases: further name -> canonical value.
        ranges: canonical value -> ``(low, high)``; a number ``low <= n < high`` means that value.
    """

    name: str
    atom: str
    file: str
    values: tuple[str, ...]
    spk_file: str | None = None
    aliases: dict[str, str] = field(default_factory=dict, hash=False)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict, hash=False)
    _names: dict[str, str] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        names = {_fold(alias): value for alias, value in self.aliases.items()}
        names.update({_fold(value): value for value in self.values})
        object.__setattr__(self, "_names", names)

    def named(self, raw: str) -> str | None:
        """The canonical value that ``raw`` names (a value or an alias, in any case), or None."""
        return self._names.get(_fold(raw))

    def canonical(self, raw: str) -> str | None:
        """As ``named``, and a number is put into its range; None when ``raw`` is neither.

        Example:
            >>> age.canonical("23"), age.canonical("ADULT"), age.canonical("blue")
            ('adult', 'adult', None)
        """
        value = self.named(raw)
        if value is not None or not self.ranges:
            return value
        try:
            number = float(raw)
        except ValueError:
            return None
        if not math.isfinite(number):
            return None
        return next((v for v, (low, high) in self.ranges.items() if low <= number < high), None)
