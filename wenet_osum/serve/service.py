"""A model that answers requests: bytes of an upload and what is asked in, answers out. No HTTP here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from wenet_osum.decode.answer import Answered
from wenet_osum.decode.formats import Transcript
from wenet_osum.decode.load import LoadSpec
from wenet_osum.serve.settings import Limits
from wenet_osum.serve.stats import Stats


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


@dataclass
class Piece:
    """The answers to one piece of a recording, by task name.

    Attributes:
        start, end: seconds in the recording; times of words in ``answers`` count from ``start``.
        duration: seconds of the whole recording.
    """

    start: float
    end: float
    duration: float
    answers: dict[str, Answered]


@dataclass(frozen=True)
class TaskFacts:
    """A task of the loaded model: its tag, what its answers have, and its label fields with their values."""

    name: str
    tag: str
    transcript: bool
    align: bool
    reply: bool
    labels: dict[str, tuple[str, ...]]


class Service:
    """Answers requests by a model in a process of its own, which is started again when it ends.

    Args:
        load: which model, and how it is loaded.
        limits: bounds.

    Attributes:
        ready: a model is loaded and requests are answered.
        failed: why no model could be started, for good; None: all is well.
        stats: counts.
        model_name: the checkpoint's name without folder and suffix.
        tasks: task name -> what it is; after ``start``.
    """

    ready: bool
    failed: str | None
    stats: Stats
    model_name: str
    tasks: dict[str, TaskFacts]

    def __init__(self, load: LoadSpec, limits: Limits = Limits()):  # noqa: B008
        raise NotImplementedError

    async def start(self) -> None:
        """Load the model; comes back when it is ready. ``hear`` may be called before: such requests wait.

        Raises:
            OsumError: the config or the checkpoint is not usable.
        """

    async def stop(self, grace: float = 30.0) -> None:
        """Take no more requests, wait at most ``grace`` seconds for those that are open, end all processes."""

    async def hear(self, data: bytes, question: Question, name: str = "audio") -> Transcript:
        """The answers to a whole recording.

        What this gives is what ``osum transcribe`` gives for a file of that name (its folder plays no part).
        Cancel the task that waits here, and the pieces that wait leave the queue at once.

        Args:
            data: encoded audio: wave, flac, ogg, opus, mp3 ...
            name: of the file, as it is shown; never opened.

        Raises:
            ServeError: Busy, TooLarge, BadAudio, BadQuestion, WorkerLost, Closing, TimedOut.
        """
        raise NotImplementedError

    def stream(
        self, data: bytes, question: Question, name: str = "audio"
    ) -> AsyncIterator[Piece | Transcript]:
        """As ``hear``, piece by piece, in order; the last item is the whole, a ``Transcript``. Close it
        (``aclose``) to leave early.

        Raises:
            ServeError: as ``hear``; where it comes to it, after the pieces before.
        """
        raise NotImplementedError
