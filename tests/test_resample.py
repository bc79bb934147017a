"""The resampling filter."""

from __future__ import annotations

import numpy as np
import pytest

from wenet_osum.dataset.resample import phases, resample

RATES = pytest.mark.parametrize(
    ("old", "new"), [(8000, 16000), (44100, 16000), (22050, 16000), (48000, 16000), (16000, 8000)]
)


@RATES
def test_a_tone_stays_the_tone(old: int, new: int):
    """Within a thousandth of the tone sampled at the new rate, away from the ends."""
    tone = [np.sin(2 * np.pi * 440 * np.arange(rate) / rate + 0.3).astype(np.float32) for rate in (old, new)]
    out = resample(tone[0], old, new)
    assert out.shape == (new,) and out.dtype == np.float32
    np.testing.assert_allclose(out[200:-200], tone[1][200:-200], atol=1e-3)


@RATES
def test_what_the_new_rate_cannot_hold_is_taken_out(old: int, new: int):
    if new > old:
        return
    tone = np.sin(2 * np.pi * 0.7 * new * np.arange(old) / old).astype(np.float32)
    assert np.abs(resample(tone, old, new)[200:-200]).max() < 0.01


@pytest.mark.parametrize("length", [1, 2, 159, 160, 161, 16001])
def test_length(length: int):
    assert len(resample(np.ones(length, np.float32), 44100, 16000)) == -(-length * 160 // 441)


def test_a_filter_passes_a_constant():
    weights, _ = phases(3, 1)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=2e-3)
