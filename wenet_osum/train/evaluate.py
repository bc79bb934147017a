"""Decoded scores on a part of the dev list, while training: what the loss does not tell."""

from __future__ import annotations

import zlib
from collections import Counter
from typing import Any

import numpy as np
import torch

from wenet_osum.dataset.batch import collate
from wenet_osum.dataset.dataset import OsumDataset
from wenet_osum.dataset.plan import Item
from wenet_osum.decode.answer import Answerer
from wenet_osum.decode.recognize import Ask, by_answerer, by_model
from wenet_osum.errors import OsumError
from wenet_osum.models.prompts import Prompts
from wenet_osum.score.bootstrap import Draws
from wenet_osum.score.score import score_task
from wenet_osum.tasks import TaskTable
from wenet_osum.train.engine import Engine


class DevScorer:
    """Decodes ``cv_decode_conf.utterances`` of the dev list for each task, the same ones every time, and scores
    them as ``osum score`` does.

    The batches and what is in them do not depend on the number of ranks, which take them in turn; so the
    scores do not either.

    Args:
        dataset: of the dev list. configs: of the run, for ``cv_decode_conf`` and ``seed``.
        engine: this rank among the others, its device.

    Raises:
        OsumError: ``cv_decode_conf.tasks`` names one that there is not, or that the dev list has no answer for;
            two of the utterances have one key.
    """

    def __init__(
        self, dataset: OsumDataset, tokenizer: Any, table: TaskTable, configs: dict[str, Any], engine: Engine
    ):
        self.dataset, self.tokenizer, self.table, self.engine = dataset, tokenizer, table, engine
        conf = configs["cv_decode_conf"]
        self.rows = {
            name: drawn(rows, conf["utterances"], configs["seed"], name)
            for name, rows in self.rows_by_task(conf["tasks"]).items()
        }
        self.batches: list[list[Item]] = []
        for name, rows in self.rows.items():
            keys = Counter(dataset.index.samples[row]["key"] for row in rows)
            key, times = keys.most_common(1)[0]
            if times > 1:  # of two lists in one YAML; told before an epoch is trained
                mend = "give each a key of its own, or set cv_decode_conf.utterances to 0"
                raise OsumError("--cv_data", f"{times} utterances of the dev list have the key {key}", mend)
            rows = sorted(rows, key=lambda row: int(dataset.index.frames[row]))
            for start in range(0, len(rows), conf["batch_size"]):
                self.batches.append([Item(r, name, 0) for r in rows[start : start + conf["batch_size"]]])

    def rows_by_task(self, asked: list[str]) -> dict[str, list[int]]:
        """The rows of the index that have an answer to each task: those asked for, or all that there are."""
        names = [self.table.find(name).name for name in asked]
        rows: dict[str, list[int]] = {name: [] for name in names}
        for row, offered in enumerate(self.dataset.index.tasks):
            for name in offered:
                if not names or name in rows:
                    rows.setdefault(name, []).append(row)
        if missing := [name for name in names if not rows[name]]:
            what = f"no utterance of the dev list is asked {missing[0]}"
            raise OsumError("cv_decode_conf.tasks", what, "take it out, or see dataset_conf.task_weights")
        return rows

    def __call__(self, model: Any) -> dict[str, float]:
        """Scores of ``model``, which runs on each rank by itself (``Engine.gathered``). By all ranks together.

        Returns:
            ``TASK/METRIC`` -> figure, see ``figures``; the same on every rank.
        """
        answers = self.answers(model)
        scores: dict[str, float] = {}
        for name, rows in self.rows.items():
            samples = [self.dataset.index.samples[row] for row in rows]
            # No intervals are shown, so one draw of the bootstrap is enough.
            scores |= figures(score_task(self.table[name], samples, answers[name], draws=Draws(1)))
        return scores

    def asking(self, model: Any) -> Ask:
        """How ``osum recognize`` asks by default."""
        conf, device = self.dataset.conf, self.engine.device
        if hasattr(model, "hear"):
            return by_answerer(Answerer(model, self.tokenizer, self.table, conf, device), self.table)
        prompts = Prompts(self.table, self.tokenizer.encode, conf["prompt_conf"])
        return by_model(model, self.tokenizer, self.table, prompts, model.modes[0], device)

    def answers(self, model: Any) -> dict[str, dict[str, str]]:
        """Task -> key -> decoded text, of all ranks; greedy, by the model's first mode. What cannot be read is
        left out, and counts as an error."""
        learning = model.training
        found: list[tuple[str, str, str]] = []
        model.eval()
        ask = self.asking(model)
        for items in self.batches[self.engine.rank :: self.engine.world_size]:
            with torch.autocast(self.engine.device.type, enabled=False):  # audio is read in fp32
                batch = collate([self.dataset[item] for item in items])
            if batch["keys"]:
                name = items[0].task
                found += [(name, row["key"], row["raw"]) for row in ask(batch, [name])[name]]
        model.train(learning)
        parts = [found]
        if self.engine.world_size > 1:
            parts = [[] for _ in range(self.engine.world_size)]
            torch.distributed.all_gather_object(parts, found)
        answers: dict[str, dict[str, str]] = {name: {} for name in self.rows}
        for name, key, text in (entry for part in parts for entry in part):
            answers[name][key] = text
        return answers


def drawn(rows: list[int], count: int, seed: int, name: str) -> list[int]:
    """``count`` of the rows, or all that there are; another task has other ones."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return [rows[i] for i in np.sort(rng.permutation(len(rows))[:count])]


def figures(result: dict[str, Any]) -> dict[str, float]:
    """What ``score.score_task`` found, as curves: its value under ``TASK/METRIC`` (``asr/mer``, ``ser/accuracy``,
    ``srwt/aas_ms``, ``sttc/exact``), and beside it

    - transcripts in one language alone: its own metric's name, ``asr/wer`` or ``asr/cer``; in several, each:
      ``asr/wer_en``;
    - ``srwt/aligned``, percent of words: a shift says little where few words have one;
    - ``ser/transcript_mer`` where a transcript stands before the answer;
    - ``age_gender/accuracy_age`` where there are several labels.

    A figure that the answers leave undefined is left out.
    """
    metric, by_lang, fields = result["metric"], result.get("by_lang", {}), result.get("fields", {})
    if len(by_lang) == 1:
        metric = next(iter(by_lang.values()))["metric"]
    found = {metric: result["value"], "aligned": result.get("aligned")}
    if len(by_lang) > 1:
        found |= {f"{p['metric']}_{lang.strip('<>').lower()}": p["value"] for lang, p in by_lang.items()}
    if "transcript" in result:
        found[f"transcript_{result['transcript']['metric']}"] = result["transcript"]["value"]
    if len(fields) > 1:
        found |= {f"accuracy_{name}": field["accuracy"] for name, field in fields.items()}
    return {f"{result['task']}/{name}": float(v) for name, v in found.items() if v is not None}
