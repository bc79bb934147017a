"""Log-mel features against a reference written out by hand, and augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank

from wenet_osum.dataset.augment_feats import spec_aug, spec_sub, spec_trim
from wenet_osum.dataset.augment_wave import speed_perturb
from wenet_osum.dataset.features import log_mel_spectrogram, mel_filters


def slaney_mel(hertz: np.ndarray) -> np.ndarray:
    """Slaney's scale: 3 mels per 200 Hz below 1 kHz, logarithmic with 27 mels per factor 6.4 above."""
    above = 15 + 27 * np.log(np.maximum(hertz, 1e-9) / 1000) / np.log(6.4)
    return np.where(hertz < 1000, hertz * 3 / 200, above)


def slaney_hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


def reference(wave: np.ndarray, bins: int) -> np.ndarray:
    """Whisper's features with loops and an explicit Fourier sum, in double precision."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    padded = np.pad(wave.astype(np.float64), 200, mode="reflect")
    k, n = np.arange(201)[:, None], np.arange(400)[None]
    fourier = np.exp(-2j * np.pi * k * n / 400)
    frames = [padded[160 * t : 160 * t + 400] * window for t in range(len(wave) // 160)]
    power = np.abs(fourier @ np.stack(frames, axis=1)) ** 2
    corners = slaney_hertz(np.linspace(slaney_mel(np.array(0.0)), slaney_mel(np.array(8000.0)), bins + 2))
    centres = np.arange(201) * 16000 / 400
    filters = np.zeros((bins, 201))
    for i in range(bins):
        low, mid, high = corners[i : i + 3]
        triangle = np.minimum((centres - low) / (mid - low), (high - centres) / (high - mid))
        filters[i] = np.maximum(triangle, 0) * 2 / (high - low)  # each of area 1 in hertz
    log = np.log10(np.maximum(filters @ power, 1e-10))
    return ((np.maximum(log, log.max() - 8) + 4) / 4).T


@pytest.mark.parametrize(("samples", "bins"), [(16000, 80), (12345, 80), (8000, 128), (401, 80)])
def test_log_mel_is_whispers(samples: int, bins: int):
    rng = np.random.default_rng(samples)
    wave = 0.2 * rng.standard_normal(samples) + 0.3 * np.sin(np.arange(samples) * 0.4)
    wave[: samples // 3] *= 1e-4  # a quiet part, so that the floor is reached
    feats = log_mel_spectrogram(wave.astype(np.float32), num_mel_bins=bins)
    assert feats.shape == (samples // 160, bins) and feats.dtype == torch.float32
    np.testing.assert_allclose(feats.numpy(), reference(wave.astype(np.float32), bins), atol=1e-4)


@pytest.mark.parametrize("bins", [40, 80, 128])
@pytest.mark.parametrize(("rate", "n_fft"), [(16000, 400), (8000, 256), (44100, 1024)])
def test_mel_filters_are_those_of_transformers(rate: int, n_fft: int, bins: int):
    theirs = mel_filter_bank(n_fft // 2 + 1, bins, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    np.testing.assert_allclose(mel_filters(rate, n_fft, bins).numpy(), theirs, atol=1e-8)


def test_floor_is_the_utterances_own():
    wave = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    feats = log_mel_spectrogram(np.concatenate([wave, np.zeros(8000, np.float32)]))
    assert float(feats.max() - feats.min()) == pytest.approx(2.0, abs=1e-5)  # 8 decades over 4


def test_silence_is_finite():
    feats = log_mel_spectrogram(np.zeros(1600, np.float32))
    torch.testing.assert_close(feats, torch.full((10, 80), -1.5))  # (log10(1e-10) + 4) / 4


def test_speed_perturb_changes_the_length_by_its_speed():
    wave = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    speeds = set()
    for seed in range(20):
        out, speed = speed_perturb(wave, 16000, np.random.default_rng(seed))
        speeds.add(speed)
        assert abs(len(out) - 16000 / speed) <= 2 and out.dtype == np.float32
    assert speeds == {0.9, 1.0, 1.1}


@pytest.mark.parametrize("frames", [5, 40, 300])
def test_spec_aug_hides_no_more_than_asked(frames: int):
    feats = torch.ones(frames, 80)
    for seed in range(20):
        out = spec_aug(feats, np.random.default_rng(seed), num_t_mask=1, num_f_mask=0, max_t=50)
        assert 0 < int((out == 0).all(1).sum()) <= max(1, min(50, frames // 10))
        out = spec_aug(feats, np.random.default_rng(seed), num_t_mask=0, num_f_mask=1, max_f=10)
        assert 0 < int((out == 0).all(0).sum()) <= 10
        torch.testing.assert_close(out, spec_aug(feats, np.random.default_rng(seed), 0, 1, 50, 10))
    assert bool((feats == 1).all())  # the input is left alone


@pytest.mark.parametrize("frames", [3, 40, 300])
def test_spec_sub_puts_earlier_frames_in_the_place_of_later_ones(frames: int):
    feats = torch.arange(frames)[:, None].repeat(1, 4).float()
    moved = 0
    for seed in range(20):
        out = spec_sub(feats, np.random.default_rng(seed), max_t=5, num_t_sub=2)
        assert out.shape == feats.shape and bool((out <= feats).all()) and bool((out >= 0).all())
        changed = (out != feats).any(1)
        assert int(changed.sum()) <= 10
        moved += int(changed.any())
        torch.testing.assert_close(out, spec_sub(feats, np.random.default_rng(seed), 5, 2))
    assert moved > 5 and feats[-1, 0] == frames - 1  # the input is left alone


def test_spec_trim_cuts_the_end_of_what_is_long_enough():
    feats = torch.arange(30)[:, None].float()
    left = {len(spec_trim(feats, np.random.default_rng(seed), max_t=20)) for seed in range(200)}
    assert left == {*range(16, 30), 30}  # 15 frames and more are half of it: then all stay
    assert torch.equal(
        spec_trim(feats, np.random.default_rng(0), 3),
        feats[: len(spec_trim(feats, np.random.default_rng(0), 3))],
    )


def test_padding_and_trimming_come_before_the_features():
    wave = np.random.default_rng(0).standard_normal(16000).astype(np.float32) / 10
    longer = np.concatenate([wave, np.zeros(16000, np.float32)])
    torch.testing.assert_close(log_mel_spectrogram(wave, padding=16000), log_mel_spectrogram(longer))
    two = log_mel_spectrogram(wave, pad_or_trim=True, max_duration=2)
    torch.testing.assert_close(two, log_mel_spectrogram(longer))
    one = log_mel_spectrogram(longer, padding=99, pad_or_trim=True, max_duration=1)
    torch.testing.assert_close(one, log_mel_spectrogram(wave))
