"""Ask a model about every utterance of a list and write the answers as WeNet's ``recognize.py`` does."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from wenet_osum.dataset.batch import Batch
from wenet_osum.dataset.loader import Loader
from wenet_osum.fileio import atomic_write
from wenet_osum.tasks import Task

Answers = dict[str, dict[str, str]]  # mode -> key -> text


@torch.no_grad()
def recognize(
    model: Any,
    loader: Loader,
    tokenizer: Any,
    modes: list[str],
    device: torch.device,
    autocast: contextlib.AbstractContextManager[Any] | None = None,
    **how: Any,
) -> tuple[Answers, list[dict[str, str]]]:
    """Decode what a loader plans; ``how`` goes to the model's ``decode`` (``beam_size`` ...).

    Returns:
        answers by mode and key, and what could not be read (``key``, ``cause``, ``detail``).
    """
    model.eval()
    loader.plan(0)
    answers: Answers = {mode: {} for mode in modes}
    skipped: list[dict[str, str]] = []
    bar = tqdm(total=len(loader.dataset.index), desc="recognize", unit="utt", disable=None)
    for batch in loader:
        skipped += batch["skipped"]
        bar.update(len(batch["keys"]) + len(batch["skipped"]))
        if not batch["keys"]:
            continue
        with autocast or contextlib.nullcontext():
            for mode, texts in answer_batch(model, batch, tokenizer, modes, device, **how).items():
                answers[mode].update(texts)
    bar.close()
    return answers, skipped


def answer_batch(
    model: Any, batch: Batch, tokenizer: Any, modes: list[str], device: torch.device, **how: Any
) -> Answers:
    """Decode a padded batch with one utterance or more; ``how`` as in ``recognize``."""
    results = model.decode(
        modes,
        batch["feats"].to(device),
        batch["feats_lengths"].to(device),
        **how,
        infos={"tasks": batch["tasks"], "langs": batch["langs"], "prompt": batch["prompt"]},
    )
    return {
        mode: {key: tokenizer.decode(result.tokens) for key, result in zip(batch["keys"], results[mode])}
        for mode in modes
    }


def write_answers(answers: Answers, keys: list[str], task: Task, result_dir: Path) -> None:
    """``RESULT_DIR/MODE/text`` (WeNet: key, blank, text) and ``answers.jsonl`` with the parsed fields, in
    the order of ``keys``; a key without an answer is left out of both."""
    for mode, texts in answers.items():
        done = [k for k in keys if k in texts]
        with atomic_write(result_dir / mode / "text") as f:
            f.writelines(f"{key} {' '.join(texts[key].split())}\n" for key in done)
        with atomic_write(result_dir / mode / "answers.jsonl") as f:
            for key in done:
                answer = task.parse(texts[key])
                row: dict[str, Any] = {
                    "key": key,
                    "task": task.name,
                    "raw": texts[key],
                    "text": answer.text,
                    **answer.labels,
                }
                if answer.words is not None:
                    row["align"] = [list(w) for w in answer.words]
                if task.reply:
                    row["reply"] = answer.reply
                if answer.problems:
                    row["problems"] = answer.problems
                f.write(json.dumps(row, ensure_ascii=False) + "\n")
