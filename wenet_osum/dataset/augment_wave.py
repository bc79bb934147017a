"""Augmentation of samples: speed under WeNet's name; volume, noise and reverberation, which WeNet has not.

Samples are float32 (n,) in about [-1, 1]; what goes beyond is not clipped, features take it as it is.
``augment.Augmentation`` seeds the generators.
"""

from __future__ import annotations

import numpy as np


def speed_perturb(
    wave: np.ndarray, sample_rate: int, rng: np.random.Generator, speeds: tuple[float, ...] = (0.9, 1.0, 1.1)
) -> tuple[np.ndarray, float]:
    """Play (n,) samples at one of ``speeds`` times the speed (pitch moves along, as in Kaldi and WeNet).

    Returns:
        the samples and the speed; times in the audio are divided by it.
    """
    import soxr

    speed = speeds[rng.integers(len(speeds))]
    return (wave if speed == 1.0 else soxr.resample(wave, sample_rate * speed, sample_rate)), speed


def volume_perturb(wave: np.ndarray, rng: np.random.Generator, gain: tuple[float, float]) -> np.ndarray:
    """Make (n,) samples louder by ``gain[0]`` to ``gain[1]`` dB, drawn evenly."""
    return wave * np.float32(10 ** (rng.uniform(*gain) / 20))


def power(wave: np.ndarray) -> float:
    """Mean square of (n,) samples, summed in double precision."""
    return float(np.square(wave, dtype=np.float64).mean())


def add_noise(wave: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Mix noise into (n,) samples at ``snr`` dB, the ratio of their powers over the whole utterance.

    ``noise`` (m,) is cut at n, or repeated up to there. Where either is silent there is no such ratio, and
    the samples come back as they are.
    """
    noise = np.resize(noise, len(wave))
    ratio = power(wave) / max(power(noise), 1e-20)
    return wave + noise * np.float32(np.sqrt(ratio / 10 ** (snr / 10))) if power(noise) else wave


def add_reverb(wave: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Let (n,) samples sound in the room of an impulse response (m,), by FFT convolution.

    The response's direct path (its largest sample) is put at time 0, so that words stay at their times;
    what comes before it, from errors of measurement, stays before it. The echo past the end is cut off:
    the length is kept, and so is the power over the utterance (Kaldi's wav-reverberate does the same with
    ``--shift-output`` and ``--normalize-output``). A response of a single impulse changes nothing.
    """
    direct = int(np.abs(response).argmax())
    size = fast_size(len(wave) + len(response) - 1)
    # numpy's transform is two to four times as fast as torch's here (one thread, ten seconds of audio).
    spectrum = np.fft.rfft(wave.astype(np.float64), size) * np.fft.rfft(response.astype(np.float64), size)
    out = np.fft.irfft(spectrum, size)[direct : direct + len(wave)]
    level = power(out)
    return (out * np.sqrt(power(wave) / level)).astype(np.float32) if level else wave


def fast_size(least: int) -> int:
    """The smallest 2^i, 3 * 2^i or 5 * 2^i from ``least`` up: an FFT of a prime size takes far longer."""
    return min(m << max(0, (-(-least // m) - 1).bit_length()) for m in (1, 3, 5))
