"""Utterance and answer lengths as two corpora have them, for the benchmarks of the index and the plan.

Audio: quantiles that icefall's ``display_manifest_statistics.py`` tells, of LibriSpeech's three training sets
(weighted by their size; there at three speeds) and of WenetSpeech's M set, which is a tenth of L drawn at random
and which a log-normal distribution meets: of quantiles 25, 50, 75, 99, 99.9 % (1.4, 2.0, 2.9, 8.0, 12.1 s) it has
1.3, 2.0, 3.0, 8.1, 12.8. Answers: 2.7 words a second of 1.25 tokens, and 4.5 characters a second of 0.65, which
is about what Qwen2's tokenizer makes of them; speakers differ.
"""

from __future__ import annotations

import numpy as np

_LIBRISPEECH = {
    **{0: 1.0, 0.001: 1.75, 0.005: 2.15, 0.01: 2.4, 0.05: 3.8, 0.1: 5.6, 0.25: 10.5, 0.5: 13.55},
    **{0.75: 15.2, 0.9: 16.55, 0.95: 17.25, 0.99: 18.1, 0.995: 18.4, 0.999: 18.85, 1: 24.5},
}


def draw(corpus: str, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(count,) lengths in 10 ms frames, and answers in tokens; ``corpus``: LibriSpeech or WenetSpeech."""
    rng = np.random.default_rng(seed)
    if corpus == "LibriSpeech":
        seconds = np.interp(rng.random(count), list(_LIBRISPEECH), list(_LIBRISPEECH.values()))
        rate = 2.7 * 1.25 * np.exp(rng.normal(0, 0.15, count))
    else:
        seconds = np.clip(2.0 * np.exp(rng.normal(0, 0.6, count)), 0.2, 20)
        rate = 4.5 * 0.65 * np.exp(rng.normal(0, 0.2, count))
    tokens = np.maximum(1, np.round(seconds * rate))
    return np.round(seconds * 100).astype(np.int32), tokens.astype(np.int32)
