"""What people say of the answers: checked, and kept as one JSON object a line."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from wenet_osum.errors import OsumError
from wenet_osum.serve.errors_http import SERVER, ApiError
from wenet_osum.serve.service import TaskFacts

MOST_BODY = 512 * 1024  # bytes of one request: the text of two hours, and its correction
MOST_FILE = 256 * 1024 * 1024  # bytes of the file: anyone who may ask may fill it
_Text = Annotated[str, Field(max_length=200_000)]


class Said(BaseModel):
    """An answer, or what would be right of it: each part may be missing."""

    model_config = ConfigDict(extra="forbid")

    text: _Text | None = None
    labels: Annotated[dict[str, Annotated[str, Field(max_length=64)]], Field(max_length=16)] = {}
    reply: _Text | None = None


class Feedback(BaseModel):
    """Right or wrong, for one task's answer to one recording.

    Attributes:
        file: the recording's name as the page shows it; it is stored and never opened. duration: its seconds.
        prompt: the question in the user's own words, if there was one.
        corrected: what would be right, as far as it was told.
    """

    model_config = ConfigDict(extra="forbid")

    task: Annotated[str, Field(max_length=64)]
    verdict: Literal["right", "wrong"]
    file: Annotated[str, Field(max_length=200)]
    duration: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    prompt: Annotated[str, Field(max_length=2000)] = ""
    answer: Said
    corrected: Said = Said()


def check(given: Feedback, tasks: Mapping[str, TaskFacts]) -> None:
    """Raises:
    ApiError: 400: an unknown task, or labels that are not this task's.
    """
    task = tasks.get(given.task)
    if task is None:
        raise ApiError(400, f"no task {given.task!r}; there are {', '.join(tasks)}", "task", "invalid_value")
    for part, said in (("answer", given.answer), ("corrected", given.corrected)):
        for field, value in said.labels.items():
            if value not in task.labels.get(field, ()):
                what = f"{task.name} has no {field} {value!r}"
                raise ApiError(400, what, f"{part}.labels", "invalid_value")


class FeedbackFile:
    """A file that grows by whole lines, from any number of threads.

    Raises:
        OsumError: it cannot be written. Told at the start, not when the first line comes.
    """

    def __init__(self, path: str | Path):
        self.path, self.lock = Path(path), threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(self.open())
        except OSError as e:
            raise OsumError(f"--feedback {path}", e.strerror or str(e), "give a file to write to") from None

    def open(self) -> int:
        # What people say is theirs: only the server's own user may read it.
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append an object, with the time (UTC) in front.

        Raises:
            ApiError: 507: the file or the disk is full. What was written of the line is taken back.
        """
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = (json.dumps({"time": now, **row}, ensure_ascii=False) + "\n").encode(errors="replace")
        with self.lock:
            file = self.open()
            try:
                before = os.fstat(file).st_size
                if before + len(line) > MOST_FILE:
                    raise ApiError(507, "the file for feedback is full", None, "full", SERVER)
                try:
                    whole = os.write(file, line) == len(line)
                except OSError:
                    whole = False
                if not whole:
                    os.ftruncate(file, before)
                    raise ApiError(507, "feedback cannot be stored: the disk is full", None, "full", SERVER)
            finally:
                os.close(file)
