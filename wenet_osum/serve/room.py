"""What all routes share: the service, what is known of its model, and whether it may be asked."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from wenet_osum.serve.errors import WorkerLost
from wenet_osum.serve.errors_http import ApiError, later
from wenet_osum.serve.http_settings import HttpSettings
from wenet_osum.serve.model_facts import ModelFacts
from wenet_osum.serve.service import Service, TaskFacts
from wenet_osum.tasks.task import tag_atoms


@dataclass
class Room:
    """Attributes:
    started: the model was loaded once; when its process is started anew, requests wait for it.
    since: seconds since 1970 at which the server came up.
    """

    service: Service
    settings: HttpSettings
    facts: ModelFacts
    started: bool = False
    since: int = field(default_factory=lambda: int(time.time()))

    def check_started(self) -> None:
        """Raises:
        ApiError: the model is being loaded. WorkerLost: it cannot be.
        """
        if self.service.failed:
            raise WorkerLost(self.service.failed, "see the server's log")
        if not (self.started or self.service.ready):
            raise later(503, "the model is being loaded", "loading")

    def check_model(self, name: str | None) -> None:
        """Raises:
        ApiError: 404, as OpenAI's.
        """
        if name is not None and name not in self.settings.names:
            known = ", ".join(self.settings.names)
            raise ApiError(
                404, f"The model `{name[:200]}` does not exist; there is {known}", "model", "model_not_found"
            )

    def find_task(self, name_or_tag: str) -> TaskFacts | None:
        """The task with this name (any case) or tag (blanks between its atoms or none)."""
        name, atoms = name_or_tag.strip().lower(), tag_atoms(name_or_tag)
        tasks = self.service.tasks.values()
        return next((t for t in tasks if t.name == name or (atoms and tag_atoms(t.tag) == atoms)), None)
