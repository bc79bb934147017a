"""From an index row to an example: read, augment, features, prompt and answer ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wenet_osum.dataset.audio import load_audio
from wenet_osum.dataset.augment import Augmentation, generators
from wenet_osum.dataset.batch import Batch, collate
from wenet_osum.dataset.features import log_mel_spectrogram
from wenet_osum.dataset.index import Index, audio_source, target_text, task_weights
from wenet_osum.dataset.plan import Item, Plan, plan_epoch
from wenet_osum.errors import BadUtterance
from wenet_osum.registry import DATASETS
from wenet_osum.tasks import Task, TaskTable
from wenet_osum.tasks.prompts import language_of, prompt_text, question_of
from wenet_osum.text.normalize import process_text


@DATASETS.register("osum")
class OsumDataset(Dataset[Any]):
    """Examples by random access.

    Args:
        index: what there is. table: the tasks. tokenizer: WeNet's surface plus ``encode``.
        conf: ``dataset_conf``. seed: of the run.
        train: augmentation on, the prompt drawn; otherwise none and the first prompt.
    """

    def __init__(
        self, index: Index, table: TaskTable, tokenizer: Any, conf: dict[str, Any], seed: int, train: bool
    ):
        self.index, self.table, self.tokenizer, self.conf = index, table, tokenizer, conf
        self.seed, self.train = seed, train
        self.augmentation = Augmentation(conf) if train else None
        self.prompts: dict[str, list[int]] = {}  # the few texts there are, encoded

    def __getitem__(self, item: Item) -> dict[str, Any] | BadUtterance:
        """One example, or the reason why there is none (returned, so that the batch lives on)."""
        try:
            return self.example(item)
        except BadUtterance as e:
            return e

    def batch(self, items: list[Item], at: Callable[[int], None] | None = None) -> Batch:
        """Read a batch; ``at`` is told each row before it is read."""
        examples = []
        for item in items:
            if at:
                at(item.row)
            examples.append(self[item])
        return collate(examples, pack=self.conf["batch_conf"]["batch_type"] == "pack")

    def plan(self, epoch: int, group: int = 1) -> Plan:
        """The batches of an epoch over all ranks; their number is a multiple of ``group``, see ``plan_batches``."""
        mel = self.conf["log_mel_spectrogram_conf"]
        return plan_epoch(
            self.index,
            self.conf["batch_conf"],
            task_weights(self.conf, self.table),
            self.seed,
            epoch,
            group,
            shuffle=self.train and self.conf["shuffle"],
            mix=self.train,
            every=mel["max_duration"] * 100 if mel["pad_or_trim"] else None,
        )

    def example(self, item: Item, keep_speed: bool = False) -> dict[str, Any]:
        """``key``; ``feats`` (T, F); ``prompt``, ``target``, ``ctc_target`` 1-d ids; ``target_weights`` (n + 1,)
        of the target's ids and the end; ``task``; ``lang``."""
        sample, task = self.index.samples[item.row], self.table[item.task]
        draw = generators(self.seed, item.epoch, sample["key"], item.copy)
        rate = self.conf["resample_conf"]["resample_rate"]
        wave = load_audio(
            audio_source(sample),
            sample.get("start"),
            sample.get("end"),
            rate,
            sample["key"],
            self.conf["singal_channel_conf"]["channel"],
        )
        longest = self.conf["filter_conf"]["max_length"]
        if (
            len(wave) - 1
        ) * 100 > longest * rate:  # the list's duration was wrong; resampling may add a sample
            raise BadUtterance(
                sample["key"], "too_long", f"{len(wave) / rate:.2f} s of audio, at most {longest / 100:.2f} s"
            )
        if self.augmentation:
            # The times in an answer that a list has ready-made are those of the recording.
            keep_speed = keep_speed or (bool(sample.get("task")) and task.align)
            most = longest * rate / 100
            wave, speed = self.augmentation.samples(wave, rate, sample["key"], draw, most, keep_speed)
            if speed != 1 and "align" in sample:
                align = [[s / speed, e / speed, w] for s, e, w in sample["align"]]
                sample = {**sample, "align": align}
        mel = self.conf["log_mel_spectrogram_conf"]
        if len(wave) < max(mel["n_fft"] // 2 + 1, mel["hop_length"]):
            raise BadUtterance(sample["key"], "too_short", f"{len(wave)} samples")
        feats = log_mel_spectrogram(wave, rate, **mel)
        if self.augmentation:
            feats = self.augmentation.features(feats, draw)
        lang = sample.get("lang") or language_of(sample.get("txt"))
        prompts = self.conf["prompt_conf"]
        number = int(draw("prompt").integers(prompts["number"])) if self.train else 0
        # Decoding asks tasks that an utterance has no answer for; its target is empty.
        text = target_text(sample, task, self.conf["time_step"]) if task.supported_by(sample) else ""
        transcript = transcript_of(sample, task, text)
        encode = self.tokenizer.encode
        question = question_of(sample, task)
        prompt = (
            encode(question) if question else self.encode_prompt(prompt_text(task, lang, prompts, number))
        )
        target = torch.tensor(encode(text), dtype=torch.long)
        # Slower speech has later times, which may take more tokens than there is room for.
        if self.augmentation and speed != 1 and len(target) > self.conf["filter_conf"]["token_max_length"]:
            return self.example(item, keep_speed=True)
        return {
            "key": sample["key"],
            "feats": feats,
            "prompt": torch.tensor(prompt, dtype=torch.long),
            "target": target,
            "target_weights": target_weights(task, text, len(target), encode, self.conf["label_weight"]),
            "ctc_target": torch.tensor(encode(transcript), dtype=torch.long),
            "task": task.name,
            "lang": lang,
            "question": sample.get("question"),
        }

    def encode_prompt(self, text: str) -> list[int]:
        if text not in self.prompts:
            self.prompts[text] = self.tokenizer.encode(text)
        return self.prompts[text]


def transcript_of(sample: dict[str, Any], task: Task, text: str) -> str:
    """What the CTC head is to hear: the words of a ready-made answer, or the line's own transcript."""
    return (task.parse(text).text or "") if sample.get("task") else process_text(sample.get("txt") or "")


def target_weights(
    task: Task, text: str, length: int, encode: Callable[[str], list[int]], label_weight: float
) -> Tensor:
    """(length + 1,) what each token of an answer and its end counts in the loss: ``label_weight`` for
    the pieces of its labels, else 1. A piece over the edge of a label counts as outside."""
    weights = torch.ones(length + 1)
    if label_weight != 1:
        start, end = task.label_span(text)
        first, last = (len(encode(text[:n])) for n in (start, end))
        weights[first:last] = label_weight
    return weights
