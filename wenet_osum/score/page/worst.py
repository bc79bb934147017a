"""Which utterances of a task are shown: the worst ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from wenet_osum.errors import OsumError
from wenet_osum.fileio import read_lines
from wenet_osum.score.page.outcomes import Outcome
from wenet_osum.tasks import Task

Probabilities = Mapping[str, Mapping[str, float]]  # label field -> value -> share of 1


def worst(
    task: Task, found: Sequence[Outcome], shares: Mapping[str, Probabilities], count: int
) -> tuple[list[Outcome], int]:
    """The utterances to show, worst first, and how many there are with anything wrong.

    Transcripts and replies: those with the most edits. Timed words: those that are off the most, first of all
    where no word is aligned. Labels: one of each confusion in turn, beginning with the most frequent one, of
    each the answers first that the model was surest of. Equal ones stand in the order of their keys.
    """
    wrong = [o for o in found if o.badness[0] > 0]
    if not task.fields or task.align or task.reply:
        ordered = sorted(wrong, key=lambda o: (o.raw is None, *(-b for b in o.badness), o.key))
        return ordered[:count], len(wrong)
    confusions: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Outcome]] = {}
    for o in wrong:
        given = o.hyp.labels if o.hyp else {}
        pair = tuple(o.ref.labels.values()), tuple(given.get(f.name, "") for f in task.fields)
        confusions.setdefault(pair, []).append(o)
    queues = [confusions[pair] for pair in sorted(confusions, key=lambda p: (-len(confusions[p]), p))]
    for queue in queues:
        queue.sort(key=lambda o: (o.raw is None, -sureness(o, shares.get(o.key, {})), o.key))
    in_turn = [queue[i] for i in range(count) for queue in queues if i < len(queue)]
    return sorted(in_turn, key=lambda o: o.raw is None)[:count], len(wrong)


def sureness(outcome: Outcome, shares: Probabilities) -> float:
    """The probability of the labels that were answered, 0 where it is not known."""
    if outcome.hyp is None or not shares:
        return 0.0
    product = 1.0
    for field, value in outcome.hyp.labels.items():
        product *= shares.get(field, {}).get(value, 0.0)
    return product


def read_shares(path: Path) -> dict[str, Probabilities]:
    """Key -> probabilities, of an ``answers.jsonl``; nothing where there is none (WeNet's own decoding).

    Raises:
        OsumError: a line is malformed.
    """
    shares: dict[str, Probabilities] = {}
    if not path.is_file():
        return shares
    for n, line in read_lines(path):
        try:
            row = json.loads(line)
            if by_field := row.get("probabilities"):
                shares[row["key"]] = {
                    field: {value: float(share) for value, share in by_value.items()}
                    for field, by_value in by_field.items()
                }
        except (ValueError, KeyError, TypeError, AttributeError):
            raise OsumError(f"{path}:{n}", "no line of answers.jsonl", "decode again") from None
    return shares
