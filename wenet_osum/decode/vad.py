"""What tells pauses in a recording: its energy, or Silero's network."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

from wenet_osum.errors import OsumError

RATE = 16000

_NOTHING = -90.0  # dB of full scale: digital silence, which says nothing about a room's noise
_LOUD = -40.0  # dB; a steady sound above it may be a pause between words but is never dropped as silence


class Detector(Protocol):
    """Gives every frame of a recording a level, low where nobody speaks. It is for one recording."""

    frame: int  # samples

    def levels(self, samples: np.ndarray) -> np.ndarray:
        """(n * frame,) 16 kHz samples that follow those of the call before -> (n,)."""
        ...

    def limits(self, levels: np.ndarray) -> tuple[float, float]:
        """The levels below which a frame belongs to a pause, and to silence that may be dropped, given the
        levels around it."""
        ...


class Energy:
    """Level: dB of full scale in 10 ms, without the mean (an offset is no sound).

    The noise floor is the tenth percentile of the levels around, the speech the 95th. A pause reaches above the
    floor by a quarter of the distance to the speech, at most 10 dB; silence by 3 dB (6 dB takes quiet voices in
    noise for silence now and then), and not above -40 dB. Where there is digital silence the floor may be quiet
    speech: a pause is then 25 dB below the speech at least, and nothing else is silence.
    """

    frame = RATE // 100

    def levels(self, samples: np.ndarray) -> np.ndarray:
        power = samples.reshape(-1, self.frame).var(axis=1, dtype=np.float64)
        return 10 * np.log10(power + 1e-10)

    def limits(self, levels: np.ndarray) -> tuple[float, float]:
        heard = levels[levels > _NOTHING]
        if not len(heard):
            return _NOTHING, _NOTHING
        floor, speech = np.percentile(heard, [10, 95])
        pause = float(floor + min((speech - floor) / 4, 10))
        if len(heard) > 0.99 * len(levels):
            return pause, min(floor + 3, _LOUD)
        return max(_NOTHING, min(pause, speech - 25)), _NOTHING


class Silero:
    """Level: the probability of speech in 32 ms, by the network of the package ``silero-vad`` (MIT licence;
    weights inside).

    Raises:
        OsumError: the package is not installed.
    """

    frame = 512
    _PAUSE, _SILENCE = 0.35, 0.15  # Silero's own limits: speech starts at 0.5 and ends below 0.35

    def __init__(self) -> None:
        threads = torch.get_num_threads()
        try:
            from silero_vad import load_silero_vad
        except ImportError:
            mend = "pip install wenet_osum[vad]"
            raise OsumError("vad", "silero-vad is not installed", mend) from None
        finally:
            torch.set_num_threads(threads)  # its import sets one thread for the whole process
        self._load = load_silero_vad
        self._net: Any = None

    @torch.no_grad()
    def levels(self, samples: np.ndarray) -> np.ndarray:
        if self._net is None:  # not before: recordings that are not cut do without
            self._net = self._load()
        frames = torch.from_numpy(samples).reshape(-1, self.frame)
        return np.array([self._net(frame, RATE).item() for frame in frames])

    def limits(self, levels: np.ndarray) -> tuple[float, float]:
        return self._PAUSE, self._SILENCE
