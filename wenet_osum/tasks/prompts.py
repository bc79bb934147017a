"""Which words a task is asked in."""

from __future__ import annotations

from typing import Any

from wenet_osum.tasks.task import Task
from wenet_osum.text.normalize import is_cjk


def prompt_text(task: Task, lang: str, conf: dict[str, Any], index: int) -> str:
    """The question put to the model: the task's tag, or its ``index``-th prompt in a language.

    ``conf`` is ``dataset_conf.prompt_conf``: ``style``, ``lang``.
    """
    if conf["style"] == "tag":
        return task.tag
    return task.prompt(lang if conf["lang"] == "auto" else conf["lang"], index)


def language_of(text: str | None) -> str:
    """The language of an utterance that nobody named: ``en`` for a text without Chinese characters, else
    ``zh``, OSUM's own."""
    return "en" if text and not any(map(is_cjk, text)) else "zh"
