"""What is asked of a recording."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from wenet_osum.errors import OsumError
from wenet_osum.serve.errors import BadQuestion
from wenet_osum.tasks import TaskTable

LANGS = ("zh", "en")
HOTTEST = 2.0  # temperature, as in OpenAI's interface
COLDEST = 0.01  # below it the likeliest answer is as good as sure, and numbers overflow


@dataclass(frozen=True)
class Question:
    """What is asked of a recording. Requests with equal questions share batches.

    Attributes:
        tasks: names or tags.
        prompt: a question in your own words in place of the tasks' own.
        lang: of the question, ``zh`` or ``en``; None: the config's.
        hotwords: words that may be said.
        temperature: 0: the likeliest answer; above: drawn, by ``seed``.
    """

    tasks: tuple[str, ...]
    prompt: str | None = None
    lang: str | None = None
    hotwords: tuple[str, ...] = ()
    temperature: float = 0.0
    seed: int = 0

    def checked(self, table: TaskTable, max_prompt: int) -> Question:
        """The same, with the names of tasks, each once; equal where the answers are.

        Raises:
            BadQuestion: there is no such task, language or temperature; or too many words.
        """
        if not self.tasks:
            raise BadQuestion("tasks", "no task is asked", f"name some of {', '.join(table)}")
        try:
            names = dict.fromkeys(table.find(name).name for name in self.tasks)
        except OsumError as e:
            raise BadQuestion("tasks", f"unknown task {e.where[:80]!r}", e.mend) from None
        if self.lang not in (None, *LANGS):
            raise BadQuestion("lang", f"unknown language {self.lang[:80]!r}", f"use {' or '.join(LANGS)}")
        for where, text in (("prompt", self.prompt or ""), ("hotwords", "".join(self.hotwords))):
            if len(text) > max_prompt:
                raise BadQuestion(where, f"{len(text)} characters", f"use {max_prompt} at most")
            if not text.isascii() and any(0xD800 <= ord(c) < 0xE000 for c in text):
                raise BadQuestion(where, "halves of characters (UTF-16 surrogates)", "send whole ones")
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= HOTTEST):
            raise BadQuestion("temperature", f"is {self.temperature:g}", f"use 0 to {HOTTEST:g}")
        if not 0 <= self.seed < 1 << 31:
            raise BadQuestion("seed", f"is {self.seed}", "use 0 to 2147483647")
        drawn = self.temperature >= COLDEST
        return replace(
            self,
            tasks=tuple(names),
            prompt=self.prompt if self.prompt and self.prompt.strip() else None,
            hotwords=tuple(word.strip() for word in self.hotwords if word.strip()),
            temperature=self.temperature if drawn else 0.0,
            seed=self.seed if drawn else 0,
        )
