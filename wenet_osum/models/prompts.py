"""Questions as token ids, made by the model itself where the loader knows tasks and languages only (WeNet's)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wenet_osum.constants import IGNORE_ID
from wenet_osum.tasks import TaskTable
from wenet_osum.tasks.prompts import prompt_text


class Prompts:
    """Args:
    table: the tasks. encode: text -> ids. conf: ``dataset_conf.prompt_conf``.
    """

    def __init__(self, table: TaskTable, encode: Callable[[str], list[int]], conf: dict[str, Any]):
        self.table, self.encode, self.conf = table, encode, conf
        self.known: dict[tuple[str, str, int], Tensor] = {}

    def ids(self, task: str, lang: str, index: int) -> Tensor:
        """(n,) ids of the ``index``-th wording. ``task``: a name, a tag, or WeNet's ``transcribe``."""
        key = (task, lang, index)
        if key not in self.known:
            found = self.table.find("asr" if task == "transcribe" else task)
            self.known[key] = torch.tensor(self.encode(prompt_text(found, lang, self.conf, index)))
        return self.known[key]

    def batch(self, tasks: Sequence[str], langs: Sequence[str], draw: bool) -> Tensor:
        """(B, P) ids padded with -1; the wording drawn among ``conf["number"]`` (torch's generator), or the first."""
        count = len(tasks)
        indices = torch.randint(self.conf["number"], (count,)).tolist() if draw else [0] * count
        rows = [self.ids(t, lang, i) for t, lang, i in zip(tasks, langs, indices)]
        return pad_sequence(rows, batch_first=True, padding_value=IGNORE_ID)
