"""What of a model the server itself must know, without its weights: how it is asked, and how tokens are counted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from wenet_osum.checkpoint.assemble import config_path, load_table, resolve_beside
from wenet_osum.config import load_config
from wenet_osum.decode.formats import Transcript
from wenet_osum.decode.load import LoadSpec
from wenet_osum.errors import OsumError
from wenet_osum.hf.export import strides_of
from wenet_osum.serve.service import Question
from wenet_osum.tasks import TaskTable
from wenet_osum.tasks.prompts import language_of, prompt_text, with_hotwords
from wenet_osum.text import init_tokenizer


class Usage(NamedTuple):
    """Tokens of a request: of the questions, of the audio, of the answers."""

    text: int
    audio: int
    output: int


@dataclass(frozen=True)
class ModelFacts:
    """Attributes:
    tokenizer: of the LLM. table: the tasks. prompt_conf: of the config.
    speech_rate: tokens that the LLM hears a second; None: an encoder or adapter whose rate is not known.
    """

    tokenizer: Any
    table: TaskTable
    prompt_conf: dict[str, Any]
    speech_rate: float | None

    def question_lang(self, language: str | None) -> str | None:
        """The language to ask in about audio in ``language``: the same where the model was trained with questions in
        both; else None, the only one that it knows."""
        return language if self.prompt_conf["lang"] == "auto" else None

    def usage(self, question: Question, done: Transcript, texts: list[str]) -> Usage | None:
        """Tokens as the LLM counts them, as if the recording was heard at one go; None: they cannot be counted."""
        if self.speech_rate is None:
            return None
        lang = question.lang or language_of(None)
        conf = {**self.prompt_conf, "lang": lang} if question.lang else self.prompt_conf
        asked = [
            with_hotwords(
                question.prompt, lang if conf["lang"] == "auto" else conf["lang"], question.hotwords
            )
            if question.prompt
            else prompt_text(self.table.find(task), lang, conf, 0, question.hotwords)
            for task in question.tasks
        ]
        audio = math.ceil(round(done.duration * self.speech_rate, 3))
        return Usage(sum(map(self.count, asked)), audio, sum(map(self.count, texts)))

    def count(self, text: str) -> int:
        return len(self.tokenizer.encode(text))

    def cut(self, text: str, tokens: int | None) -> str:
        """The text as far as so many tokens reach; None: all of it."""
        if tokens is None:
            return text
        ids = self.tokenizer.encode(text)
        if len(ids) <= tokens:
            return text
        # A character may be cut through: its bytes are left out, as those of a token that did not come.
        return str(self.tokenizer.decode(ids[:tokens])).rstrip("\ufffd")


def read_facts(spec: LoadSpec) -> ModelFacts:
    """The facts of the model that ``spec`` names.

    Raises:
        OsumError: a config or a tokenizer that cannot be read.
    """
    config = config_path(spec.config, spec.checkpoint)
    configs = load_config(config, list(spec.override_config))
    resolve_beside(configs, config)
    data = configs["dataset_conf"]
    frames = data["resample_conf"]["resample_rate"] / data["log_mel_spectrogram_conf"]["hop_length"]
    try:
        rate = frames / math.prod(strides_of(configs))
    except OsumError:
        rate = None
    return ModelFacts(init_tokenizer(configs), load_table(configs), data["prompt_conf"], rate)
