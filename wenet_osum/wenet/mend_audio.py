"""torchaudio's reading and writing by soundfile, where torchaudio itself no longer can.

From 2.9 on torchaudio reads and writes through torchcodec, a package of its own that needs FFmpeg's
libraries, and has no ``info``, ``sox_effects`` and ``sox_utils``; one WeNet or another calls all of them.
"""

from __future__ import annotations

import io
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import soundfile as sf
import torch
from torch import Tensor

from wenet_osum.errors import OsumError
from wenet_osum.wenet.mends import say

_INTEGERS = {
    "PCM_16": ("int16", torch.int16),
    "PCM_32": ("int32", torch.int32),
    "PCM_24": ("int32", torch.int32),
}


def load(
    uri: Any,
    frame_offset: int = 0,
    num_frames: int = -1,
    normalize: bool = True,
    channels_first: bool = True,
    **_: Any,
) -> tuple[Tensor, int]:
    """As ``torchaudio.load``: (channels, n) float32 in [-1, 1], or the file's own integers without
    ``normalize``; and the rate."""
    with sf.SoundFile(uri) as f:
        kind, _type = ("float32", None) if normalize else _INTEGERS.get(f.subtype, ("float32", None))
        f.seek(frame_offset)
        samples = f.read(num_frames, dtype=kind, always_2d=True)
        rate = f.samplerate
    return torch.from_numpy(np.ascontiguousarray(samples.T if channels_first else samples)), rate


def info(uri: Any, **_: Any) -> SimpleNamespace:
    """As ``torchaudio.info``."""
    with sf.SoundFile(uri) as f:
        bits = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32}
        return SimpleNamespace(
            sample_rate=f.samplerate,
            num_frames=f.frames,
            num_channels=f.channels,
            bits_per_sample=bits.get(f.subtype, 0),
            encoding=f.subtype,
        )


def save(
    uri: Any,
    src: Tensor,
    sample_rate: int,
    channels_first: bool = True,
    format: str | None = None,
    bits_per_sample: int | None = None,
    **_: Any,
) -> None:
    """As ``torchaudio.save``: integers as they are, floats as 16 bits unless told otherwise."""
    samples = (src.T if channels_first else src).contiguous().numpy()
    subtype = {None: None, 8: "PCM_U8", 16: "PCM_16", 24: "PCM_24", 32: "PCM_32"}[bits_per_sample]
    sf.write(uri, samples, sample_rate, format=format and format.upper(), subtype=subtype)


def apply_effects_tensor(tensor: Tensor, sample_rate: int, effects: list[list[str]]) -> tuple[Tensor, int]:
    """sox's ``speed`` and ``rate``, the two that WeNet asks for; (channels, n) in and out."""
    for name, _ in effects:
        if name not in ("speed", "rate"):
            raise OsumError("torchaudio.sox_effects", f"no effect {name!r} without sox", "leave it out")
    from torchaudio.functional import resample, speed

    for name, value in effects:
        if name == "speed":
            tensor = speed(tensor, sample_rate, float(value))[0]
        elif int(value) != sample_rate:
            tensor, sample_rate = resample(tensor, sample_rate, int(value)), int(value)
    return tensor, sample_rate


def mend_torchaudio() -> None:
    """Put the functions above into torchaudio where its own fail; nothing without torchaudio, which the
    import of WeNet tells.

    Raises:
        OsumError: a torchaudio that was built for another torch.
    """
    try:
        import torchaudio
    except ModuleNotFoundError:
        return
    except (ImportError, OSError, RuntimeError) as e:
        mend = "install the torchaudio that was built for this torch (pip index versions torchaudio)"
        raise OsumError("torchaudio", f"does not import here ({str(e).splitlines()[0]:.200})", mend) from None
    broken = []
    wav = io.BytesIO()
    sf.write(wav, np.zeros(160, np.int16), 16000, format="WAV")
    try:
        torchaudio.load(io.BytesIO(wav.getvalue()))
    except Exception:  # torchcodec's absence shows as ImportError, a missing FFmpeg as RuntimeError
        torchaudio.load = load
        broken.append("load")
    try:
        torchaudio.save(io.BytesIO(), torch.zeros(1, 160), 16000, format="wav", bits_per_sample=16)
    except Exception:
        torchaudio.save = save
        broken.append("save")
    if not hasattr(torchaudio, "info"):
        torchaudio.info = info
        broken.append("info")
    if not hasattr(torchaudio, "sox_effects"):
        effects = ModuleType("torchaudio.sox_effects")
        vars(effects).update(apply_effects_tensor=apply_effects_tensor)
        torchaudio.sox_effects = effects
        broken.append("sox_effects")
    if not hasattr(torchaudio.utils, "sox_utils"):  # WeNet before 2025-09 sets sox's buffer size
        sox = ModuleType("torchaudio.utils.sox_utils")
        vars(sox).update(set_buffer_size=lambda size: None)
        torchaudio.utils.sox_utils = sox
        broken.append("sox_utils")
    if broken:
        say(f"torchaudio {torchaudio.__version__}: {', '.join(broken)} by soundfile")
