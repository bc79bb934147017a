"""The life of the model's process: it loads the model, then answers batches until its parent is gone."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from wenet_osum.decode.answer import Answered, Answerer
from wenet_osum.decode.hearing import make_batch
from wenet_osum.decode.load import LoadSpec, check_answers, load_model, most_seconds
from wenet_osum.decode.transcribe import give_back
from wenet_osum.errors import OsumError
from wenet_osum.models.generation import Search
from wenet_osum.serve.question import Question
from wenet_osum.tasks import TaskTable
from wenet_osum.tasks.prompts import language_of
from wenet_osum.wenet.encoders import build_model


@dataclass(frozen=True)
class Facts:
    """What the parent learns of the model: ``dataset_conf``, the tasks, seconds of audio that it takes at a time."""

    conf: dict[str, Any]
    table: TaskTable
    most_seconds: float


def work(pipe: Connection, spec: LoadSpec) -> None:
    """Write ``Facts``; then for each ``(question, keys, features)`` read the answers of its rows by task. An
    ``OsumError`` in place of either: the model is not usable, or does not answer such a question."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    # The lock between processes that a bar would make is missed when this one is killed, as it always is.
    tqdm.set_lock(threading.RLock())
    try:
        asked = Asked(spec)
    except OsumError as e:
        return pipe.send(e)
    pipe.send(asked.facts)
    while True:
        question, keys, feats = pipe.recv()
        try:
            answers: Any = asked.answer(question, keys, feats)
        except OsumError as e:
            answers = e
        pipe.send(answers)
        give_back()


class Asked:
    """A model, asked a question at a time.

    Raises:
        OsumError: it cannot be loaded, or has no answers.
    """

    def __init__(self, spec: LoadSpec):
        loaded = load_model(spec, build_model)
        check_answers(loaded, spec.checkpoint)
        self._plain = Answerer(
            loaded.model,
            loaded.tokenizer,
            loaded.table,
            loaded.conf,
            loaded.engine.device,
            spec.mode,
            Search(beam_size=spec.beam_size),
            draft=spec.draft,
            autocast=loaded.engine.autocast,
        )
        self.facts = Facts(loaded.conf, loaded.table, most_seconds(loaded.conf))
        positions = getattr(loaded.model.decoder.causal_lm.config, "max_position_embeddings", None)
        self._longest = (positions or 4096) // 4  # tokens of a question: the rest is for audio and answer

    def answer(
        self, question: Question, keys: Sequence[str], feats: Sequence[np.ndarray]
    ) -> list[dict[str, Answered]]:
        """The answers of each row, by task.

        Raises:
            OsumError: its prompt has too many tokens.
        """
        answerer = self._for(question)
        for name in question.tasks:
            tokens = len(answerer.prompt_ids(answerer.table[name], language_of(None)))
            if not 0 < tokens <= self._longest:
                where = "prompt" if question.prompt else "hotwords"
                raise OsumError(where, f"{tokens} tokens", f"use 1 to {self._longest}")
        batch = make_batch(keys, [torch.from_numpy(f) for f in feats])
        found = answerer.answer(batch, question.tasks)
        return [{name: answers[row] for name, answers in found.items()} for row in range(len(keys))]

    def _for(self, question: Question) -> Answerer:
        """The answerer of a question: what it has worked out about tasks is the same for all."""
        answerer = copy.copy(self._plain)
        answerer.prompt, answerer.lang, answerer.hotwords = question.prompt, question.lang, question.hotwords
        answerer.prompts = {}
        if question.temperature > 0:
            # Drafts are for the likeliest answer.
            drawn: Any = {"do_sample": True, "temperature": question.temperature, "seed": question.seed}
            answerer.search = replace(answerer.search, relaxed=None, **drawn)
            answerer.draft = "none"
        return answerer
