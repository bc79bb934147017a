"""Augmentation of features under WeNet's names; ``augment.Augmentation`` seeds the generators."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def spec_aug(
    feats: Tensor,
    rng: np.random.Generator,
    num_t_mask: int = 2,
    num_f_mask: int = 2,
    max_t: int = 50,
    max_f: int = 10,
) -> Tensor:
    """Mask ``num_t_mask`` spans of 1 to ``max_t`` frames and ``num_f_mask`` bands of 1 to ``max_f`` bins of
    feats (T, F) with 0 (Park et al. 2019; WeNet's ``spec_aug``). A time mask hides at most a tenth of a short
    utterance's frames, which WeNet's does not ensure."""
    feats = feats.clone()
    frames, bins = feats.shape
    for _ in range(num_t_mask):
        start, width = int(rng.integers(frames)), int(rng.integers(1, max(1, min(max_t, frames // 10)) + 1))
        feats[start : start + width] = 0
    for _ in range(num_f_mask):
        start, width = int(rng.integers(bins)), int(rng.integers(1, max_f + 1))
        feats[:, start : start + width] = 0
    return feats


def spec_sub(feats: Tensor, rng: np.random.Generator, max_t: int = 20, num_t_sub: int = 3) -> Tensor:
    """Put ``num_t_sub`` spans of 1 to ``max_t`` earlier frames over later ones of feats (T, F) (U2++, Wu et al.
    2021, section 3.2.3; WeNet's ``spec_sub``)."""
    out = feats.clone()
    frames = len(feats)
    for _ in range(num_t_sub):
        start = int(rng.integers(frames))
        end = min(frames, start + int(rng.integers(1, max_t + 1)))
        back = int(rng.integers(start + 1))
        out[start:end] = feats[start - back : end - back]
    return out


def spec_trim(feats: Tensor, rng: np.random.Generator, max_t: int = 20) -> Tensor:
    """Cut 1 to ``max_t`` frames off the end of feats (T, F), where they are less than half of it (TrimTail, Song
    et al. 2022; WeNet's ``spec_trim``)."""
    cut = int(rng.integers(1, max_t + 1))
    return feats[:-cut] if cut < len(feats) / 2 else feats
