"""Ask a model about every utterance of a list, alone or as one of several ranks, and go on after a kill."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from wenet_osum.dataset.batch import Batch
from wenet_osum.dataset.index import Index
from wenet_osum.dataset.loader import Loader
from wenet_osum.dataset.plan import plan_questions
from wenet_osum.decode.journal import Journal
from wenet_osum.decode.results import Row, Totals, answer_row, merge
from wenet_osum.errors import OsumError
from wenet_osum.models.prompts import Prompts
from wenet_osum.tasks import TaskTable

# Asks a batch some tasks: task -> a row of answers.jsonl for each utterance, in the batch's order.
Ask = Callable[[Batch, Sequence[str]], dict[str, list[Row]]]


@torch.no_grad()
def recognize(loader: Loader, asks: Mapping[str, Ask], journal: Journal, done: np.ndarray) -> None:
    """Decode this rank's share of a list, less what is done, into the journal.

    The batches and what is in them follow from the list alone, and each is decoded as a whole, so that the
    answers do not depend on the number of ranks, or on when one was killed.

    Args:
        loader: of all ranks' batches; its dataset's index tells the tasks of each utterance.
        asks: of each mode.
        done: (N,) rows that need not be decoded again.
    """
    index = loader.dataset.index
    plan = plan_questions(index, loader.dataset.conf["batch_conf"])
    lacks = np.logical_or.reduceat(~done[plan.rows], plan.bounds[:-1])
    # By the number of the batch, not by what lacks: ranks that start later see more of it done.
    mine = plan.only(np.flatnonzero(lacks & (np.arange(len(plan)) % journal.world_size == journal.rank)))
    loader.take(mine)
    bar = tqdm(
        total=len(mine.rows), desc="recognize", unit="utt", disable=None if journal.rank == 0 else True
    )
    for batch, items in zip(loader, mine):
        rows = {index.samples[item.row]["key"]: item.row for item in items}
        entries: dict[int, dict[str, Any]] = {
            rows.pop(skipped["key"]): {"skipped": skipped} for skipped in batch["skipped"]
        }
        if batch["keys"]:
            tasks = index.tasks[items[0].row]
            found = {mode: ask(batch, tasks) for mode, ask in asks.items()}
            for i, key in enumerate(batch["keys"]):
                answers = {mode: {name: found[mode][name][i] for name in tasks} for mode in asks}
                entries[rows.pop(key)] = {"answers": answers}
        assert not rows, f"neither answered nor set aside: {', '.join(rows)}"
        journal.append(entries)
        bar.update(len(entries))
    bar.close()


def finish(
    journal: Journal, index: Index, modes: Sequence[str], folders: dict[str, Path]
) -> dict[str, Totals] | None:
    """Put all ranks' answers together if this one is the last, and take the journals away.

    Args:
        folders: as in ``merge``.

    Returns:
        as ``merge``; None where another rank has the last word, or had it, or will have it.

    Raises:
        OsumError: the journals were removed by somebody else.
    """
    with journal.merging():
        if journal.taken:
            if journal.world_size > 1 and all(
                (f / mode / "text").is_file() for f in folders.values() for mode in modes
            ):
                return None
            raise OsumError(str(journal.folder), "was removed while this decoded into it", "decode again")
        lacking, entries = journal.entries()
        if lacking:
            logging.info("%d of %d utterances are with other ranks", lacking, len(index))
            return None
        if not journal.all_here:
            logging.info("all is done; a rank that has not come yet puts it together")
            return None
        totals = merge(entries, index, modes, folders)
        journal.remove()
        return totals


def by_answerer(answerer: Any, table: TaskTable) -> Ask:
    """Questions to an ``Answerer``, which answers all tasks from one pass through the encoder."""

    def ask(batch: Batch, tasks: Sequence[str]) -> dict[str, list[Row]]:
        return {
            name: [
                answer_row(a.key, table[name], a.text, a.answer, a.probabilities, (a.proposed, a.accepted))
                for a in answers
            ]
            for name, answers in answerer.answer(batch, tasks).items()
        }

    return ask


def by_model(
    model: Any,
    tokenizer: Any,
    table: TaskTable,
    prompts: Prompts,
    mode: str,
    device: torch.device,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    **how: Any,
) -> Ask:
    """Questions by a mode of the model's own ``decode``, one task after the other; which ``how`` goes to."""

    def ask(batch: Batch, tasks: Sequence[str]) -> dict[str, list[Row]]:
        feats, lengths = batch["feats"].to(device), batch["feats_lengths"].to(device)
        rows: dict[str, list[Row]] = {}
        for name in tasks:
            names = [name] * len(batch["keys"])
            prompt = prompts.batch(names, batch["langs"], draw=False)
            infos = {"tasks": names, "langs": batch["langs"], "prompt": prompt}
            with autocast():
                results = model.decode([mode], feats, lengths, **how, infos=infos)[mode]
            texts = [tokenizer.decode(result.tokens) for result in results]
            rows[name] = [answer_row(key, table[name], text) for key, text in zip(batch["keys"], texts)]
        return rows

    return ask
