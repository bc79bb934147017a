"""Small signal treatments, all on float32 mono arrays (n,); none moves the speech in time except `warp`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import fftconvolve

Signal = NDArray[np.float32]
Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def rms(x: Signal) -> float:
    """Root mean square; a tiny number for silence, so that one can divide by it."""
    return float(np.sqrt(np.mean(np.square(x), dtype=np.float64))) + 1e-9 if len(x) else 1e-9


def warp(
    x: Signal, times: NDArray[np.float64], speed: NDArray[np.float64]
) -> tuple[Signal, NDArray[np.float64]]:
    """Play `x` with a speed for each sample (n,): pitch rises with it. Returns the samples and `times` (in
    samples of x) as places in the result."""
    clock = np.concatenate([[0.0], np.cumsum(1.0 / speed)])  # where each input sample falls in the output
    out = np.interp(np.arange(int(clock[-1])), clock[:-1], x)
    return out.astype(np.float32), np.interp(times, np.arange(len(clock)), clock)


def equalise(x: Signal, rate: int, gain_db: Curve) -> Signal:
    """Filter with zero phase; gain_db gives the gain in dB for an array of frequencies in Hz."""
    size = next_fast_len(
        len(x) + 1024, real=True
    )  # 1024: room for the response, which would wrap around otherwise
    gain = gain_db(np.maximum(np.fft.rfftfreq(size, 1 / rate), 20.0)).astype(np.float32)
    return irfft(rfft(x.astype(np.float32), size) * 10 ** (gain / 20), size)[: len(x)]


def tilt(x: Signal, rate: int, db_per_octave: float) -> Signal:
    """Brighter (positive) or darker (negative) around 1 kHz, within 3 octaves of it."""
    return equalise(x, rate, lambda f: db_per_octave * np.clip(np.log2(f / 1000), -3, 3))


def band(x: Signal, rate: int, low: float, high: float) -> Signal:
    """Keep low..high Hz, with slopes of 36 dB an octave."""
    return equalise(
        x,
        rate,
        lambda f: -36 * (np.maximum(np.log2(low / f), 0) + np.maximum(np.log2(f / high), 0)).clip(0, 2),
    )


def modulate(x: Signal, rate: int, hertz: float, depth: float, phase: float) -> Signal:
    """Amplitude modulation by a raised sine: the level falls to 1 - depth in every cycle."""
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * hertz * np.arange(len(x)) / rate + phase)
    return (x * (1 - depth * wave)).astype(np.float32)


def distort(x: Signal, drive: float) -> Signal:
    """Soft clipping at the same level; drive 1 is slight, 8 is shouting into the microphone."""
    level = rms(x)
    y = np.tanh(x * (drive / (3 * level)))
    return (y * (level / rms(y))).astype(np.float32)


def envelope(x: Signal, rate: int, seconds: float = 0.02) -> Signal:
    """The level of x over a window of that length."""
    width = max(1, int(rate * seconds))
    sums = np.cumsum(np.concatenate([np.zeros(width), np.square(x, dtype=np.float64)]))
    return np.sqrt(np.maximum(sums[width:] - sums[:-width], 0) / width).astype(np.float32)


def breathe(x: Signal, rate: int, level: float, rng: np.random.Generator) -> Signal:
    """Add noise above 1.5 kHz that follows the level of the speech."""
    noise = band(rng.standard_normal(len(x)).astype(np.float32), rate, 1500, 6500)
    return x + level * noise * envelope(x, rate)


def reverberate(x: Signal, rate: int, seconds: float, level: float, rng: np.random.Generator) -> Signal:
    """Add an echo of decaying noise (60 dB in `seconds`); the result is longer by the half of that."""
    count = int(rate * seconds / 2)
    response = rng.standard_normal(count) * 10 ** (-3 * np.arange(count) / (rate * seconds))
    wet = fftconvolve(x, response.astype(np.float32))
    out = np.concatenate([x, np.zeros(len(wet) - len(x), np.float32)])
    return (out + wet * (level * rms(x) / rms(wet))).astype(np.float32)
