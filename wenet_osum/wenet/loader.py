"""Our tasks in WeNet's own data loader.

WeNet's processors overwrite ``lang`` and ``task``, know one text an utterance, and drop every other key
when they pad. ``TaskSteps`` stands in for the five of them that matter; audio, features, augmentation,
shuffling and batching stay WeNet's.
"""

from __future__ import annotations

import json
import logging
import random
import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from wenet_osum.constants import IGNORE_ID
from wenet_osum.dataset.dataset import target_weights, transcript_of
from wenet_osum.dataset.filter import check_answer, check_length
from wenet_osum.dataset.index import allowed_tasks, target_text, task_weights
from wenet_osum.dataset.shards import JSON_SUFFIXES
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.tasks.prompts import language_of
from wenet_osum.wenet.mends import say
from wenet_osum.wenet.run import Run

Sample = dict[str, Any]


class TaskSteps:
    """Args:
    stock: WeNet's ``dataset.processor``. run: the config's.
    mode: ``train`` (an utterance's task is drawn anew each time), ``dev`` (drawn once for all) or ``decode``.
    asked: the task of an utterance that names none, in ``decode``.

    Raises:
        OsumError: the config asks for augmentation that WeNet's loader has not.
    """

    def __init__(self, stock: Any, run: Run, mode: str, asked: str):
        # By value: while a dataset is built, the module's own names stand for the steps below.
        self.stock_filter: Callable[..., bool] = stock.filter
        self.stock_padding: Callable[..., dict[str, Any]] = stock.padding
        self.table, self.conf, self.room = run.table, run.conf, run.room
        self.weights = task_weights(run.conf, run.table)
        self.mode, self.asked = mode, run.table.find(asked).name
        for name in ("add_reverb", "add_noise", "volume_perturb"):
            if mode == "train" and run.conf[name]:
                mend = "set dataset: osum, or leave it out"
                raise OsumError(f"dataset_conf.{name}", "WeNet's own loader has no such step", mend)

    def tokenize(self, sample: Sample, tokenizer: Any) -> Sample:
        """Give the sample its task, language and answer; ``label`` is the answer's ids."""
        fields = plain_fields(sample)
        name = self.task_of(fields)
        task = self.table[name or "asr"]
        text, training = "", self.mode != "decode"
        try:
            if name is None:
                raise BadUtterance(fields["key"], "no_task", "nothing that a task with a weight asks for")
            if task.supported_by(fields):
                text = target_text(fields, task, self.conf["time_step"])
        except BadUtterance as e:
            sample["set_aside"] = training
            if training:
                logging.warning("%s: set aside: %s: %s", e.key, e.cause, e.detail)
        sample["tokens"], sample["label"] = tokenizer.tokenize(text)
        sample["task"], sample["lang"] = (
            task.name,
            fields.get("lang") or language_of(fields.get("txt")),
        )
        sample["ctc_target"] = tokenizer.encode(transcript_of(fields, task, text))
        sample["target_weights"] = target_weights(
            task, text, len(sample["label"]), tokenizer.encode, self.conf["label_weight"]
        )
        return sample

    def task_of(self, fields: Sample) -> str | None:
        """The task asked of an utterance; None in training, when there is none with a weight.

        Raises:
            OsumError: it names a task that is not known.
        """
        if self.mode == "decode" and not fields.get("task"):
            return self.asked
        offered = allowed_tasks(fields, self.table, None, str(fields["key"]))
        if self.mode == "decode":
            return offered[0]
        chances = [self.weights.get(n, 0.0) if self.weights else 1.0 for n in offered]
        if not any(chances):
            return None
        rng = random if self.mode == "train" else random.Random(zlib.crc32(str(fields["key"]).encode()))
        return rng.choices(offered, chances)[0]

    def filter(self, sample: Sample, **conf: Any) -> bool:
        """WeNet's filter, after what had no answer and what the model has no positions for."""
        seconds = sample["wav"].size(1) / sample["sample_rate"]
        if self.mode == "train" and self.conf["speed_perturb"]:
            seconds /= 0.9
        try:
            frames = check_length(sample["key"], seconds, self.room)
            if self.mode != "decode":
                check_answer(sample["key"], len(sample["label"]), frames, self.room)
        except BadUtterance as e:
            logging.warning("%s: set aside: %s: %s", e.key, e.cause, e.detail)
            return False
        return not sample.get("set_aside") and self.stock_filter(sample, **conf)

    def detect_language(self, sample: Sample, limited_langs: list[str]) -> Sample:
        """WeNet's guesses over what the list says; here the list's word stands."""
        return sample

    def detect_task(self, sample: Sample) -> Sample:
        """As ``detect_language``: the task is the list's."""
        return sample

    def padding(self, data: list[Sample]) -> dict[str, Any]:
        """WeNet's batch, and ``ctc_target`` (B, C), ``target_weights`` (B, L + 1) beside it."""
        for sample in data:
            sample.pop("speaker", None)  # a name; WeNet would make a number of it
        batch = self.stock_padding(data)
        lengths = torch.tensor([x["feat"].size(0) for x in data], dtype=torch.int32)
        order = torch.argsort(lengths, descending=True).tolist()  # as WeNet's padding has it
        batch["ctc_target"] = pad_sequence(
            [torch.tensor(data[i]["ctc_target"], dtype=torch.long) for i in order],
            batch_first=True,
            padding_value=IGNORE_ID,
        )
        batch["target_weights"] = pad_sequence([data[i]["target_weights"] for i in order], batch_first=True)
        return batch


def plain_fields(sample: Sample) -> Sample:
    """A sample's text fields as our readers give them. WeNet's tar reader leaves every member but the
    text and the audio as bytes; our ``shard`` form keeps labels in ``KEY.json``.

    Raises:
        OsumError: a member that is not what it should be.
    """
    fields: Sample = {}
    for name, value in sample.items():
        if not isinstance(value, bytes) or name == "wav":
            fields[name] = value
            continue
        try:
            text = value.decode("utf-8").strip()
            if name == "json":
                fields.update(json.loads(text))
            else:
                fields[name] = json.loads(text) if name in JSON_SUFFIXES else text
        except UnicodeDecodeError:
            fields[name] = value  # speech tokens, say
        except (ValueError, TypeError):
            raise OsumError(f"{sample['key']}.{name}", "malformed JSON", "make the shard again") from None
    return fields


class WithoutSpeakerNames:
    """WeNet's padding for lists that name speakers, as ours do: without a ``speaker_conf`` it stumbles over
    the names, so they are left out."""

    def __init__(self, stock: Any):
        self.stock_padding: Callable[..., dict[str, Any]] = stock.padding
        self.told = False

    def __call__(self, data: list[Sample]) -> dict[str, Any]:
        named = [s for s in data if isinstance(s.get("speaker"), str)]
        for sample in named:
            del sample["speaker"]
        if named and not self.told:
            say("speaker names in the list, and no speaker_conf: left out")
            self.told = True
        return self.stock_padding(data)
