"""Recordings of any length as pieces that a model takes, cut at pauses; read block by block, so that memory
does not grow with the length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wenet_osum.dataset.audio import audio_blocks
from wenet_osum.decode.vad import RATE, Detector, Energy, Silero
from wenet_osum.errors import OsumError

MARGIN = 0.16  # seconds of silence that stay behind what is said
LEAD = 0.05  # and in front: the demo's model, whose utterances begin at once, mishears a word behind 0.16
LONG_SILENCE = 2.0  # seconds of silence that end a piece wherever they come
SHORTEST = 0.5  # seconds; nothing shorter is cut off
PAST = 30.0  # seconds before a piece by which its noise floor is told too

_DEEPEST = 20.0  # dB that a frame of a pause counts at most, or digital silence would win whatever its length

VADS = ("energy", "silero", "none")


@dataclass
class Piece:
    """A stretch of a recording.

    Attributes:
        start, end: seconds in the recording.
        samples: float32 ``(n,)``, mono, 16 kHz.
    """

    start: float
    end: float
    samples: np.ndarray


def pieces(
    source: str | bytes,
    key: str,
    max_seconds: float = 30.0,
    min_pause: float = 0.2,
    vad: str = "energy",
    start: float | None = None,
    end: float | None = None,
    channel: int | None = 0,
) -> Iterator[Piece]:
    """Cut a recording into pieces of at most ``max_seconds``, in order and without overlap.

    A recording that is silent throughout has no pieces: a model would make words up. Any other of at most
    ``max_seconds`` is one piece, sample for sample what ``load_audio`` gives. Of a longer one:

    - A piece ends in the best pause (the longest and deepest) of the second half of what may belong to it. If
      there is none, the best pause before is taken, then the best dip shorter than ``min_pause``, and only if
      nothing dips the quietest moment of the second half.
    - Silence of ``LONG_SILENCE`` or more always ends a piece.
    - Silence at a piece's ends is dropped but for ``LEAD`` and ``MARGIN`` seconds; nothing else is. Silence is
      what lies at the noise floor and is not loud in itself (``Energy``), or is not speech (``Silero``).

    Args:
        source: as in ``load_audio``.
        key: utterance id, for errors.
        max_seconds: length of the longest piece, at least 1.
        min_pause: seconds that a pause lasts.
        vad: what tells pauses: ``energy``; ``silero``, a network (extra ``[vad]``); ``none``, nothing: the
            recording is cut every ``max_seconds``, wherever that is.
        start, end: the segment of the recording that is cut, seconds; as in ``load_audio``.
        channel: which one of several; None for their mean.

    Raises:
        OsumError: an argument that cannot be; ``silero`` that is not installed.
        BadUtterance: as ``load_audio``; where reading comes to it, after the pieces before.
    """
    if not 1 <= max_seconds < float("inf"):
        raise OsumError("max_seconds", f"{max_seconds:g} s a piece", "use 1 or more")
    if not min_pause > 0:
        raise OsumError("min_pause", f"a pause of {min_pause:g} s", "use more than 0")
    if vad not in VADS:
        raise OsumError("vad", f"unknown {vad!r}", f"use one of {', '.join(VADS)}")
    blocks = audio_blocks(source, max_seconds, start, end, RATE, key, channel)
    longest, offset = int(max_seconds * RATE + 1e-6), start or 0.0
    if vad == "none":
        return _cut_anywhere(blocks, longest, offset)
    return _cut_at_pauses(blocks, longest, offset, min_pause, Silero() if vad == "silero" else Energy())


def _cut_anywhere(blocks: Iterator[np.ndarray], longest: int, offset: float) -> Iterator[Piece]:
    window = _Window(blocks, longest + int(SHORTEST * RATE), 1)
    while window.fill():
        first = window.first
        yield _piece(first, window.take(_latest(len(window.samples), longest)), offset)


def _cut_at_pauses(
    blocks: Iterator[np.ndarray], longest: int, offset: float, min_pause: float, detector: Detector
) -> Iterator[Piece]:
    frame = detector.frame
    window = _Window(blocks, longest + int(SHORTEST * RATE), frame)
    if window.fill() <= longest:
        if not _silent(window.samples):
            yield _piece(0, window.samples, offset)
        return
    margin, before, long, short = (
        round(seconds * RATE / frame) for seconds in (MARGIN, LEAD, LONG_SILENCE, SHORTEST)
    )
    # A pause has a frame less than it is long where it does not begin with one.
    enough = max(1, int(min_pause * RATE / frame) - 1)
    while count := window.fill():
        levels = window.look(detector)
        pause, silence = detector.limits(np.concatenate([window.past, levels]))
        silent = levels < silence
        lead = len(silent) if silent.all() else int(silent.argmin())
        if lead > before:
            window.take((lead - before) * frame)
            continue
        if lead == len(silent):
            return
        latest = _latest(count, longest)
        cut = _long_silence(silent, long, latest // frame)
        if cut is None and latest < count:
            cut = _best_cut(levels, pause, enough, short, latest // frame)
        if cut is None:
            cut = len(levels)
        said = cut - int(silent[:cut][::-1].argmin())  # frames up to the last that is not silent
        first = window.first
        yield _piece(first, window.take(min(cut * frame, count))[: (said + margin) * frame], offset)


def _silent(samples: np.ndarray) -> bool:
    """By its energy, whoever tells pauses: to Silero a cough is silence."""
    energy = Energy()
    whole = len(samples) // energy.frame * energy.frame
    levels = energy.levels(samples[:whole])
    return bool(whole and (levels < energy.limits(levels)[1]).all())


def _piece(first: int, samples: np.ndarray, offset: float) -> Piece:
    return Piece(offset + first / RATE, offset + (first + len(samples)) / RATE, samples)


def _latest(count: int, longest: int) -> int:
    """How many of a window's ``count`` samples a piece may have at most."""
    return count if count <= longest else min(longest, count - int(SHORTEST * RATE))


def _long_silence(silent: np.ndarray, long: int, latest: int) -> int | None:
    """The middle of the first silence of ``long`` frames, at most ``latest``; None if there is none."""
    for a, b in _runs(silent):
        if b - a >= long and a < latest:
            return min((a + b) // 2, latest)
    return None


def _best_cut(levels: np.ndarray, pause: float, enough: int, short: int, latest: int) -> int:
    """The frame before which to cut, ``latest`` at most."""
    half = latest // 2
    depths = np.cumsum(np.append(0, np.minimum(pause - levels, _DEEPEST)))
    runs = [(a, b, depths[b] - depths[a]) for a, b in _runs(levels < pause)]
    for earliest, frames in ((half, enough), (short, enough), (half, 1)):
        # In the middle, or as far in as the piece may reach: not at an edge, where a word may fade.
        cuts = [(depth, min((a + b) // 2, latest), a) for a, b, depth in runs if b - a >= frames]
        found = [(depth, cut) for depth, cut, a in cuts if cut >= earliest and cut - a >= frames // 2]
        if found:
            return max(found)[1]
    pairs = np.maximum(levels[half - 1 : latest - 1], levels[half:latest])
    return half + int(pairs.argmin())


def _runs(where: np.ndarray) -> list[tuple[int, int]]:
    """First and past-the-last index of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


class _Window:
    """The stretch of a recording that is looked at.

    Args:
        blocks: the recording.
        size: how many samples are looked at; made a multiple of ``frame``.

    Attributes:
        samples: ``(n,)``, ``size`` of them, fewer at the end; after ``fill``.
        first: the recording's sample at which they begin.
        past: the levels of the ``PAST`` seconds before.
    """

    def __init__(self, blocks: Iterator[np.ndarray], size: int, frame: int):
        self._blocks, self._size, self._frame = blocks, -(-size // frame) * frame, frame
        self._read = np.zeros(0, np.float32)
        self._levels = self.past = np.zeros(0)
        self.first = 0

    @property
    def samples(self) -> np.ndarray:
        return self._read[: self._size]

    def fill(self) -> int:
        """Read on until the window is full or the recording ends; how many samples it has now."""
        while len(self._read) < self._size:
            block = next(self._blocks, None)
            if block is None:
                break
            self._read = np.concatenate([self._read, block])
        return len(self.samples)

    def look(self, detector: Detector) -> np.ndarray:
        """The level of every frame; of the recording's last, if it is not whole, with its samples repeated."""
        fresh = self.samples[len(self._levels) * self._frame :]
        if rest := len(fresh) % self._frame:
            fresh = np.append(fresh[:-rest], np.resize(fresh[-rest:], self._frame))
        if len(fresh):
            self._levels = np.append(self._levels, detector.levels(fresh))
        return self._levels

    def take(self, count: int) -> np.ndarray:
        """The first ``count`` samples, whole frames or all; they leave the window."""
        taken = self._read[:count].copy()
        self._read = self._read[count:]
        frames = -(-count // self._frame)
        self.past = np.append(self.past, self._levels[:frames])[-int(PAST * RATE / self._frame) :]
        self._levels = self._levels[frames:]
        self.first += count
        return taken
