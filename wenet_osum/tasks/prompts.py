"""Which words a task is asked in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wenet_osum.tasks.task import Task
from wenet_osum.text.normalize import is_cjk


def prompt_text(task: Task, lang: str, conf: dict[str, Any], index: int, hotwords: Sequence[str] = ()) -> str:
    """The question put to the model: the task's tag, or its ``index``-th prompt in a language.

    ``conf`` is ``dataset_conf.prompt_conf``: ``style``, ``lang``. ``hotwords``, names and terms that may be said,
    are told behind the question.
    """
    lang = lang if conf["lang"] == "auto" else conf["lang"]
    text = task.tag if conf["style"] == "tag" else task.prompt(lang, index)
    return with_hotwords(text, lang, hotwords)


def question_of(sample: Mapping[str, Any], task: Task) -> str | None:
    """The utterance's own question in place of the task's: a task with a reply answers what is asked in writing
    about a recording, if there is such a question (``utt2question``), else what is asked in it."""
    return sample.get("question") if task.reply else None


def with_hotwords(text: str, lang: str, hotwords: Sequence[str]) -> str:
    """A question, and behind it the words that it names, if any."""
    if not hotwords:
        return text
    return text + (f" Hotwords: {', '.join(hotwords)}." if lang == "en" else f"热词：{'、'.join(hotwords)}。")


def language_of(text: str | None) -> str:
    """The language of an utterance that nobody named: ``en`` for a text without Chinese characters, else
    ``zh``, OSUM's own."""
    return "en" if text and not any(map(is_cjk, text)) else "zh"
