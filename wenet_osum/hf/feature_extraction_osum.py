"""Our log-mel features behind transformers' feature extractor surface."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, SequenceFeatureExtractor

from wenet_osum.dataset.features import log_mel_spectrogram
from wenet_osum.models.mask import length_mask


class OsumFeatureExtractor(SequenceFeatureExtractor):
    """Waves to (B, T, F) at true length; an utterance has the same features alone and in a batch.

    Args:
        feature_size: mel bins. n_fft, hop_length: samples. max_frames: the longest the encoder has positions for.
    """

    model_input_names = ["input_features", "input_features_mask"]  # noqa: RUF012

    def __init__(
        self,
        feature_size: int = 80,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        n_fft: int = 400,
        hop_length: int = 160,
        max_frames: int = 3000,
        **kwargs: Any,
    ):
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)
        self.n_fft, self.hop_length, self.max_frames = n_fft, hop_length, max_frames

    def __call__(self, audio: list[Any], sampling_rate: int | None = None, **kwargs: Any) -> BatchFeature:
        """``audio``: one-dimensional waves in [-1, 1].

        Raises:
            ValueError: another sampling rate than the model's, a wave that is empty, too short or too
                long, has several channels or is no finite number everywhere.
        """
        if sampling_rate != self.sampling_rate:
            raise ValueError(
                f"sampling_rate is {sampling_rate}, the model hears {self.sampling_rate}: "
                f"resample the audio and pass sampling_rate={self.sampling_rate}"
            )
        feats = []
        for i, wave in enumerate(audio):
            x = torch.as_tensor(np.asarray(wave), dtype=torch.float32)
            if x.dim() != 1:
                raise ValueError(f"audio {i} has the shape {tuple(x.shape)}: pass one channel, (samples,)")
            if not bool(x.isfinite().all()):
                raise ValueError(f"audio {i} holds NaN or infinity")
            if len(x) <= self.n_fft:
                raise ValueError(f"audio {i} has {len(x)} samples: pass more than {self.n_fft}")
            if len(x) // self.hop_length > self.max_frames:
                raise ValueError(
                    f"audio {i} has {len(x) / self.sampling_rate:.1f} s: cut it into pieces of "
                    f"{self.max_frames * self.hop_length / self.sampling_rate:g} s"
                )
            feats.append(
                log_mel_spectrogram(x, self.sampling_rate, self.n_fft, self.hop_length, self.feature_size)
            )
        lengths = torch.tensor([len(f) for f in feats])
        padded = pad_sequence(feats, batch_first=True, padding_value=self.padding_value)
        return BatchFeature({"input_features": padded, "input_features_mask": length_mask(lengths).long()})
