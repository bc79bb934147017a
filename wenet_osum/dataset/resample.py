"""Change of sample rate by the filter that WeNet and OSUM resample with, so that features are theirs.

torchaudio's ``Resample`` is that filter; it is written out here because torchaudio cannot be required.
"""

from __future__ import annotations

import functools
import math

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
    common = math.gcd(old_rate, new_rate)
    old, new = old_rate // common, new_rate // common
    weights, reach = phases(old, new)
    padded = F.pad(torch.as_tensor(wave, dtype=torch.float32), (reach, reach + old))
    out = F.conv1d(padded[None, None], weights, stride=old)[0]  # (new, periods)
    return out.T.reshape(-1)[: -(-new * len(wave) // old)].numpy()
