"""Change of sample rate by the filter that WeNet and OSUM resample with, so that features are theirs.

torchaudio's ``Resample`` is that filter; it is written out here because torchaudio cannot be required.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ZEROS = 6  # zero crossings of the sinc on each side
ROLLOFF = 0.99  # cut-off, as a share of the lower rate's Nyquist frequency


@functools.lru_cache(maxsize=32)
def phases(old: int, new: int) -> tuple[Tensor, int]:
    """The filter at each of the ``new`` phases that output samples have between ``old`` input samples.

    Output sample ``p`` of a period lies at input time ``p / new`` (in periods of ``old`` samples). With
    ``c = ROLLOFF * min(old, new)`` and ``t = c * (i / old - p / new)`` for the input sample ``i``, its
    weight is ``c / old * sinc(t) * cos(pi t / (2 ZEROS))^2``, nothing beyond ``|t| = ZEROS``
    (band-limited interpolation, J. O. Smith; a Hann window).

    Returns:
        (new, 1, 2 * reach + old) weights and the reach, in input samples.
    """
    cutoff = ROLLOFF * min(old, new)
    reach = math.ceil(ZEROS * old / cutoff)
    i = torch.arange(-reach, reach + old, dtype=torch.float64)
    p = (torch.arange(new) / new).double()  # rounded to float32 in torchaudio, so here as well
    t = (cutoff * (i / old - p[:, None])).clamp(-ZEROS, ZEROS)
    weights = cutoff / old * torch.sinc(t) * torch.cos(torch.pi * t / (2 * ZEROS)).square()
    return weights[:, None].float(), reach


def resample(wave: np.ndarray, old_rate: int, new_rate: int) -> np.ndarray:
    """(n,) float32 samples at ``old_rate`` -> (ceil(n * new_rate / old_rate),) at ``new_rate``."""
    return next(resample_blocks([wave], old_rate, new_rate))


def resample_blocks(blocks: Iterable[np.ndarray], old_rate: int, new_rate: int) -> Iterator[np.ndarray]:
    """``resample`` of the blocks joined, in blocks as they come; no more is held than the filter reaches.

    A block alone gives what ``resample`` gives, bit for bit; several the same up to the rounding of sums.
    """
    common = math.gcd(old_rate, new_rate)
    old, new = old_rate // common, new_rate // common
    weights, reach = phases(old, new)

    def filtered(wave: Tensor) -> Tensor:
        out = F.conv1d(wave[None, None], weights, stride=old)[0]  # (new, periods)
        return out.T.reshape(-1)

    held = torch.zeros(reach)  # as if silence came before
    taken = given = 0
    waiting = torch.zeros(0)  # the newest block: if it is the last one, it is filtered with its end
    for block in blocks:
        held = torch.cat([held, waiting])
        periods = (len(held) - 2 * reach) // old
        if periods > 0:
            out = filtered(held[: periods * old + 2 * reach])
            held = held[periods * old :]
            given += len(out)
            yield out.numpy()
        waiting = torch.as_tensor(block, dtype=torch.float32)
        taken += len(waiting)
    out = filtered(F.pad(torch.cat([held, waiting]), (0, reach + old)))
    yield out[: -(-new * taken // old) - given].numpy()
