"""What an epoch takes of several corpora: OSUM's combine YAML, with weights that are real numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wenet_osum.dataset.index_build import Corpus
from wenet_osum.errors import OsumError
from wenet_osum.fileio import read_yaml

_KEYS = {"path", "weight", "data_type"}
_DATA_TYPES = ("raw", "shard", "shard_full_data")


def is_combine(path: str) -> bool:
    """Whether a path among lists is a combine YAML: ``name: {path: list, weight: w}``."""
    return Path(path).suffix in (".yaml", ".yml")


def read_corpora(lists: Sequence[str], data_type: str) -> list[Corpus]:
    """The corpora that ``--train_data`` names: lists as they are, and those of combine YAMLs less the ones of
    weight 0.

    Args:
        data_type: of lists, and of the entries that have none of their own.

    Raises:
        OsumError: file and key of whatever is not in that form.
    """
    corpora = []
    for path in lists:
        if is_combine(path):
            corpora += read_combine(path, data_type)
        else:
            corpora.append(Corpus(path, data_type))
    return corpora


def read_combine(path: str | Path, data_type: str) -> list[Corpus]:
    """The corpora of a combine YAML whose weight is not 0, in its order; see ``read_corpora``."""
    content = read_yaml(path)
    if not isinstance(content, dict) or not content:
        raise OsumError(str(path), "no corpora", "write 'name: {path: LIST, weight: W}' a corpus")
    corpora = [_corpus(entry, data_type, f"{path}: {name}") for name, entry in content.items()]
    corpora = [c for c in corpora if c.weight > 0]
    if not corpora:
        raise OsumError(str(path), "every weight is 0", "give a corpus a positive weight")
    return corpora


def _corpus(entry: Any, data_type: str, where: str) -> Corpus:
    if not isinstance(entry, dict):
        raise OsumError(where, f"is {entry!r:.80}", "write {path: LIST, weight: W}")
    for key in entry:
        if key not in _KEYS:
            raise OsumError(f"{where}.{key}", "unknown key", f"use one of {', '.join(sorted(_KEYS))}")
    for key in ("path", "weight"):
        if key not in entry:
            raise OsumError(f"{where}.{key}", "is missing", "add it")
    path, weight, kind = entry["path"], entry["weight"], entry.get("data_type", data_type)
    if not isinstance(path, str) or not path.strip():
        raise OsumError(f"{where}.path", f"is {path!r:.80}", "give the path of a list")
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
        raise OsumError(f"{where}.weight", f"is {weight!r}", "give a number from 0 up")
    if kind not in _DATA_TYPES:
        raise OsumError(f"{where}.data_type", f"is {kind!r}", f"choose one of {', '.join(_DATA_TYPES)}")
    return Corpus(path, kind, float(weight))


def occurrences(
    corpus: np.ndarray, weights: Sequence[float], seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which utterances an epoch takes, and how often.

    Of a corpus of n utterances and weight w every utterance comes floor(w) or ceil(w) times; by random
    phases, evenly spaced, of the utterances, so that an epoch takes w x n of them to within one, E epochs take
    an utterance w x E times to within one, and the expectation is exact.

    Args:
        corpus: (N,) number of each utterance's corpus. weights: by corpus.

    Returns:
        rows (M,), and for each its number among the times that the epoch takes it, from 0.
    """
    times = np.ones(len(corpus), np.int64)
    for number, weight in enumerate(weights):
        if weight == 1:
            continue
        at = np.flatnonzero(corpus == number)
        rng = np.random.default_rng([seed, 2, number])
        phase = np.empty(len(at))
        phase[rng.permutation(len(at))] = (np.arange(len(at)) + rng.random()) / max(1, len(at))
        phase = np.minimum(phase, 1 - 1e-9)  # so that rounding makes no whole number of it
        times[at] = np.floor((epoch + 1) * weight + phase) - np.floor(epoch * weight + phase)
    rows = np.repeat(np.arange(len(corpus)), times)
    copies = np.arange(len(rows)) - np.repeat(np.cumsum(times) - times, times)
    return rows, copies
