"""Our resampling beside torchaudio's, which WeNet uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from wenet_osum.dataset.resample import resample


@pytest.mark.integration
@pytest.mark.parametrize("old", [8000, 11025, 12345, 22050, 24000, 32000, 44100, 48000])
def test_wenet_resamples_to_the_same_samples(old: int, wenet_dir: Path):
    torchaudio = pytest.importorskip("torchaudio")
    wave = np.random.default_rng(old).standard_normal(2 * old + 17).astype(np.float32)
    theirs = torchaudio.transforms.Resample(old, 16000)(torch.from_numpy(wave)[None])[0].numpy()
    np.testing.assert_allclose(resample(wave, old, 16000), theirs, atol=1e-6)
