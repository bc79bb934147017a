"""What the commands share: the task table of a run, ids the model needs, lines about what they hold."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wenet_osum.dataset.index import Index
from wenet_osum.dataset.index_build import index_corpora
from wenet_osum.dataset.mixing import read_corpora
from wenet_osum.errors import OsumError
from wenet_osum.tasks import TaskTable


def at_least(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number from ``least`` up."""

    def read(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return int(text)

    return read


def make_index(
    lists: list[str],
    data_type: str,
    table: TaskTable,
    encode: Callable[[str], list[int]],
    conf: dict[str, Any],
    store: str | Path | None = None,
) -> Index:
    """One index over several lists and combine YAMLs; ``store`` as in ``index_corpora``.

    Raises:
        OsumError: nothing in them can be used; says what was set aside.
    """
    corpora = read_corpora(lists, data_type)
    whole = index_corpora(corpora, table, encode, conf, store=store)
    if any(corpus.weight != 1 for corpus in corpora):
        for n, corpus in enumerate(corpora):
            hours = whole.frames[whole.corpus == n].sum(dtype=int) / 360000
            logging.info("%s: %.2f h x %g an epoch", corpus.path, hours, corpus.weight)
    if not len(whole):
        raise OsumError(
            ", ".join(lists),
            "no utterance can be used" + count_line(whole.skipped),
            "check the list and filter_conf",
        )
    return whole


def check_epochs(epoch: int, max_epoch: int, checkpoint: str | None) -> None:
    """Raises:
    OsumError: a run that is to go on from ``checkpoint`` has had all its epochs.
    """
    if epoch >= max_epoch:
        raise OsumError(
            str(checkpoint), f"{epoch} of {max_epoch} epochs are done", "raise max_epoch to go on"
        )


def count_line(skipped: list[dict[str, str]]) -> str:
    """``; set aside: 3 too_long, 1 truncated`` or nothing."""
    return causes_line(Counter(entry["cause"] for entry in skipped))


def causes_line(causes: Counter[str]) -> str:
    """``count_line`` of what is counted already."""
    words = [f"{n} {cause}" for cause, n in causes.most_common()]
    return "; set aside: " + ", ".join(words) if words else ""


def describe(model: Any) -> str:
    """Parameters by part and how many learn, one line."""
    words = []
    for name, parameters in model.parts().items():
        total = sum(p.numel() for p in parameters)
        learning = sum(p.numel() for p in parameters if p.requires_grad)
        if total:
            words.append(f"{name} {total:,}" + ("" if learning == total else f" ({learning:,} learn)"))
    return "parameters: " + ", ".join(words)
