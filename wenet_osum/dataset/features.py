"""Whisper's log-mel features, as the released OSUM computes them (no 30 s padding).

16 kHz samples in [-1, 1]; periodic Hann window of 400, hop 160, reflect-centred STFT, last frame
dropped, so T = n // 160 frames; Slaney mel filters; ``log10(max(mel, 1e-10))``; floor at the
utterance's own maximum less 8; ``(x + 4) / 4``. (openai-whisper ``audio.py``; OSUM ``compute_log_mel_spectrogram``.)
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_BLOCK = 512  # frames whose spectra stay in the processor's cache


@functools.cache
def mel_filters(sample_rate: int, n_fft: int, bins: int) -> Tensor:
    """(n_fft // 2 + 1, bins) triangles, each of area 1 in hertz, evenly apart on Slaney's scale: linear up to 1 kHz,
    15 mels of 200 / 3 Hz, above it 27 mels to a factor of 6.4 (Auditory Toolbox; librosa's default).

    Cached: WeNet builds it anew for every utterance, a third of its feature time. As ``mel_filter_bank`` of
    transformers, whose import would take longer than reading the first batch.
    """
    step = np.log(6.4) / 27
    top = 15 + np.log(sample_rate / 2 / 1000) / step
    mels = np.linspace(0, top, bins + 2)
    corners = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * step))
    low, mid, high = corners[:-2], corners[1:-1], corners[2:]
    hertz = np.arange(n_fft // 2 + 1)[:, None] * (sample_rate / n_fft)
    triangles = np.minimum((hertz - low) / (mid - low), (high - hertz) / (high - mid))
    return torch.from_numpy((np.maximum(triangles, 0) * 2 / (high - low)).astype(np.float32))


@functools.cache
def window(n_fft: int) -> Tensor:
    return torch.hann_window(n_fft)


def log_mel_spectrogram(
    wave: np.ndarray | Tensor,
    sample_rate: int = 16000,
    n_fft: int = 400,
    hop_length: int = 160,
    num_mel_bins: int = 80,
    padding: int = 0,
    pad_or_trim: bool = False,
    max_duration: int = 30,
) -> Tensor:
    """(n,) samples -> (n // hop_length, num_mel_bins) float32. Needs n > n_fft // 2 (reflection).

    As in WeNet, ``padding`` samples of silence come behind the wave first, and with ``pad_or_trim`` it is then
    brought to ``max_duration`` seconds.
    """
    x = torch.as_tensor(wave, dtype=torch.float32)
    end = max_duration * sample_rate if pad_or_trim else len(x) + padding
    if end != len(x):
        x = F.pad(x[:end], (0, max(0, end - len(x))))
    reach = n_fft // 2
    padded = torch.cat(
        [x[1 : reach + 1].flip(0), x, x[-reach - 1 : -1].flip(0)]
    )  # F.pad's reflection is slow
    frames = padded.unfold(0, n_fft, hop_length)[: len(x) // hop_length]
    filters = mel_filters(sample_rate, n_fft, num_mel_bins)
    log = torch.empty(len(frames), num_mel_bins)
    for i in range(0, len(frames), _BLOCK):
        spectrum = torch.fft.rfft(frames[i : i + _BLOCK] * window(n_fft)).numpy()
        power = np.square(
            spectrum.real
        )  # numpy goes through the parts of complex numbers twice as fast as torch
        power += np.square(spectrum.imag)
        torch.mm(torch.from_numpy(power), filters, out=log[i : i + _BLOCK])
    log.clamp_(min=1e-10).log10_()
    return log.clamp_(min=float(log.max()) - 8).add_(4).div_(4)
