"""Why a request has no answer. Each is an ``OsumError``: where, what, mend."""

from __future__ import annotations

from wenet_osum.errors import OsumError


class ServeError(OsumError):
    """Base of all. ``outcome``: the slug under which it is counted."""

    outcome = "error"


class Busy(ServeError):
    """Too many wait already. ``retry_after``: seconds until there should be room."""

    outcome = "busy"

    def __init__(self, retry_after: float):
        super().__init__("server", "is busy", f"try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class TooLarge(ServeError):
    """The upload has more bytes, or the recording more seconds, than allowed."""

    outcome = "too_large"

    def __init__(self, what: str, mend: str = "cut it into parts"):
        super().__init__("audio", what, mend)


class BadAudio(ServeError):
    """The upload cannot be decoded."""

    outcome = "bad_audio"

    def __init__(self, what: str, mend: str = ""):
        super().__init__("audio", what, mend)


class BadQuestion(ServeError):
    """What is asked cannot be: an unknown task, a prompt that is too long ... ``where``: the field's name in
    ``Question``."""

    outcome = "bad_question"


class WorkerLost(ServeError):
    """The model's process ended, or hung, while it answered this request; or it cannot be started at all."""

    outcome = "worker_lost"

    def __init__(self, what: str, mend: str = "try again"):
        super().__init__("model", what, mend)


class Closing(ServeError):
    """The service is shutting down, and takes no more requests."""

    outcome = "closing"

    def __init__(self) -> None:
        super().__init__("server", "is shutting down", "try again later")


class TimedOut(ServeError):
    """No answer within ``Limits.request_seconds``."""

    outcome = "timed_out"

    def __init__(self, seconds: float):
        super().__init__(
            "server", f"no answer within {seconds:g} s", "send a shorter recording, or try later"
        )
