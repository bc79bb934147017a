"""Audio as the model wants it: mono, float32, one sample rate; anything amiss with it has a name."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import BinaryIO, Protocol

import numpy as np
import soundfile as sf

from wenet_osum.dataset.containers import WaveHeader, file_size, is_cut, read_wave_header
from wenet_osum.dataset.resample import resample, resample_blocks
from wenet_osum.dataset.sources import open_source
from wenet_osum.errors import BadUtterance

# As Kaldi's extract-segments: a segment may end this much (seconds) after its recording.
MAX_OVERSHOOT = 0.5

# Float samples are in [-1, 1]; mp3 and processing overshoot a little, 16-bit numbers kept as floats do not.
MAX_SAMPLE = 32.0

_BLOCK = 1 << 17  # frames decoded at a time
_MP3_PREROLL = 16 * 1152
_NO_END = 1 << 48  # libsndfile's frame count when the header has none is larger


class _Recording(Protocol):
    """An opened recording: what it declares, and its frames from any point on."""

    rate: int
    frames: int | None  # declared; None when the header does not tell
    slack: int  # how many frames fewer may come out without anything being wrong

    def blocks(self, first: int, count: int) -> Iterator[np.ndarray]:
        """Yield float32 ``(n, channels)`` in [-1, 1], ``count`` frames in all or as many as there are."""
        ...


class _Pcm16:
    """A 16-bit wave file, decoded by numpy: some ten times faster than through libsndfile."""

    slack = 0

    def __init__(self, stream: BinaryIO, header: WaveHeader):
        self._stream, self._header = stream, header
        self.rate = header.rate
        self.frames: int | None = header.declared // header.block

    def blocks(self, first: int, count: int) -> Iterator[np.ndarray]:
        block = self._header.block
        self._stream.seek(self._header.data_start + first * block)
        left = min(count, self._header.present // block - first)
        while left > 0:
            raw = self._stream.read(min(left, _BLOCK) * block)
            samples = np.frombuffer(raw, "<i2", len(raw) // block * self._header.channels)
            if not samples.size:
                return
            left -= len(raw) // block
            yield (samples.astype(np.float32) * np.float32(1 / 32768)).reshape(-1, self._header.channels)


class _OneWay(sf.SoundFile):
    """Read on without soundfile's seek after every read: after a jump some frames of an mp3 come out as
    silence (they draw on bits of the frames before)."""

    def seekable(self) -> bool:
        return False


class _Decoded:
    """Everything libsndfile reads: flac, mp3, ogg, opus, aiff, other wave codings ..."""

    def __init__(self, sound: sf.SoundFile):
        self._sound = sound
        self.rate = sound.samplerate
        self.frames: int | None = sound.frames if sound.frames < _NO_END else None
        self._mp3 = sound.format == "MP3"
        # The length in an mp3's first frame counts the padding that its decoder may leave out.
        self.slack = 2 * 1152 if self._mp3 else 0

    def blocks(self, first: int, count: int) -> Iterator[np.ndarray]:
        # What an mp3's decoder says right after a jump is not relied on, so it begins early.
        early = min(first, _MP3_PREROLL) if self._mp3 else 0
        count += early
        try:
            if first:
                self._sound.seek(first - early)
            while count > 0:
                samples = self._sound.read(min(count, _BLOCK), dtype="float32", always_2d=True)
                if not len(samples):
                    return
                count -= len(samples)
                if len(samples) > early:
                    yield samples[early:]
                early = max(0, early - len(samples))
        except sf.LibsndfileError:
            return  # broken from here on: too few frames come out, which the caller sees


def load_audio(
    source: str | bytes,
    start: float | None = None,
    end: float | None = None,
    sample_rate: int = 16000,
    key: str = "",
    channel: int | None = 0,
) -> np.ndarray:
    """Load an utterance as one channel at ``sample_rate``.

    A segment is sought, so the rest of a long recording is not decoded.

    Args:
        source: encoded audio as bytes (wav, flac, mp3, ogg, opus ...), or a path, ``command |`` or
            ``file.ark:offset``.
        start: first second of the segment in the recording; None for its beginning.
        end: last second of the segment; None or -1 for the recording's end, which it may pass by
            ``MAX_OVERSHOOT``.
        sample_rate: samples a second of the result.
        key: utterance id, for the error.
        channel: which one of several, from 0, as in WeNet; None for their mean.

    Returns:
        float32 ``(samples,)`` in about [-1, 1], at least one sample, all finite.

    Raises:
        BadUtterance: with one of the causes ``missing`` (no such file), ``unreadable`` (no audio, or a
            coding that is not known), ``truncated`` (less audio than the header declares), ``empty``,
            ``nan`` (samples that are not finite), ``too_loud`` (samples beyond ``MAX_SAMPLE``),
            ``pipe_failed``, ``segment_out_of_range``, ``no_channel``.
    """
    with open_source(source, key, keep=start is not None) as stream:
        recording = _open(stream, key)
        first, last = _span(recording, start, end, key)
        parts = [_mono(block, channel, key) for block in _whole(recording, first, last, key)]
    audio = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if recording.rate != sample_rate:
        audio = resample(audio, recording.rate, sample_rate)
    return np.ascontiguousarray(audio, dtype=np.float32)


def audio_blocks(
    source: str | bytes,
    seconds: float,
    start: float | None = None,
    end: float | None = None,
    sample_rate: int = 16000,
    key: str = "",
    channel: int | None = 0,
) -> Iterator[np.ndarray]:
    """What ``load_audio`` gives, in blocks of about ``seconds``, so that a file of any length can be read.

    A recording of at most ``seconds`` is one block, sample for sample that of ``load_audio``; the blocks of a
    longer one differ from it by rounding, and only where the rate is changed. About two blocks are held at a
    time (and, of a ``command |``, its output: encoded audio).

    Yields:
        float32 ``(samples,)``, at least one sample each, all finite.

    Raises:
        BadUtterance: as ``load_audio``, but when reading comes to it, after the blocks before.
    """
    with open_source(source, key, keep=start is not None) as stream:
        recording = _open(stream, key)
        first, last = _span(recording, start, end, key)
        mono = (_mono(block, channel, key) for block in _whole(recording, first, last, key))
        blocks = _regroup(mono, math.ceil(seconds * recording.rate) + 1)
        if recording.rate != sample_rate:
            blocks = resample_blocks(blocks, recording.rate, sample_rate)
        for block in blocks:
            yield np.ascontiguousarray(block, dtype=np.float32)


def audio_duration(source: str | bytes | BinaryIO, key: str = "", most: float = math.inf) -> float:
    """Seconds of a whole recording, from its header where that tells; a stream is closed. Where it does not, what
    is longer than ``most`` seconds is decoded no further than to see that.

    Raises:
        BadUtterance: as ``load_audio``, as far as it shows without decoding.
    """
    with open_source(source, key) as stream:
        recording = _open(stream, key)
        if recording.frames is not None:
            return recording.frames / recording.rate
        frames = 0
        for block in recording.blocks(0, _NO_END):
            frames += len(block)
            if frames > most * recording.rate:
                break
        return frames / recording.rate


def scan_audio(source: str | bytes, key: str = "") -> float:
    """Decode a whole recording, keeping nothing of it; seconds.

    Raises:
        BadUtterance: as ``load_audio``.
    """
    with open_source(source, key, keep=False) as stream:
        recording = _open(stream, key)
        first, last = _span(recording, None, None, key)
        frames = sum(len(block) for block in _whole(recording, first, last, key))
    return frames / recording.rate


def _open(stream: BinaryIO, key: str) -> _Recording:
    if not file_size(stream):
        raise BadUtterance(key, "empty", "zero bytes")
    header = read_wave_header(stream)
    if header is not None and header.pcm16 and header.rate:
        return _Pcm16(stream, header)
    if header is not None and header.present < header.declared:
        raise BadUtterance(
            key, "truncated", f"{header.present} bytes of samples where the header says {header.declared}"
        )
    if is_cut(stream):
        raise BadUtterance(key, "truncated", "the file breaks off")
    stream.seek(0)
    is_file = isinstance(getattr(stream, "raw", None), io.FileIO)
    try:
        # libsndfile reads a file itself, which is faster than through Python.
        return _Decoded(_OneWay(stream.name if is_file else stream))
    except (sf.LibsndfileError, TypeError) as e:  # TypeError: a ".raw" file, which has no header
        why = getattr(e, "error_string", str(e)).strip().rstrip(".")
        raise BadUtterance(
            key, "unreadable", f"not a known audio format ({why}); convert it to wav or flac"
        ) from None


def _span(recording: _Recording, start: float | None, end: float | None, key: str) -> tuple[int, int]:
    """First and last frame of a segment."""
    total = _NO_END if recording.frames is None else recording.frames
    if total <= 0:
        raise BadUtterance(key, "empty", "no samples")
    if start is None and end is None:
        return 0, total
    start = 0.0 if start is None else start
    whole = end is None or end == -1
    end = total / recording.rate if end is None or end == -1 else end
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end):
        raise BadUtterance(key, "segment_out_of_range", f"from {start:g} s to {end:g} s")
    first, last = round(start * recording.rate), round(end * recording.rate)
    too_far = not whole and last > total + round(MAX_OVERSHOOT * recording.rate)
    if too_far or first >= total:
        raise BadUtterance(
            key,
            "segment_out_of_range",
            f"from {start:g} s to {end:g} s, and the recording has {total / recording.rate:.3f} s",
        )
    last = min(last, total)
    if last == first:
        raise BadUtterance(key, "empty", f"no sample from {start:g} s to {end:g} s")
    return first, last


def _whole(recording: _Recording, first: int, last: int, key: str) -> Iterator[np.ndarray]:
    """The blocks of a span; at its end, an error if frames that were declared did not come."""
    wanted, got = last - first, 0
    for block in recording.blocks(first, wanted):
        got += len(block)
        if not np.isfinite(block).all():
            raise BadUtterance(key, "nan", "samples that are not finite numbers")
        if np.abs(block).max() > MAX_SAMPLE:
            what = f"float samples up to {np.abs(block).max():g}, full scale is 1"
            raise BadUtterance(key, "too_loud", what)
        yield block
    if recording.frames is not None and got < wanted - recording.slack:
        raise BadUtterance(key, "truncated", f"{got} samples where {wanted} are declared; cut off or corrupt")
    if not got:
        raise BadUtterance(key, "empty", "no samples")


def _regroup(blocks: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples in blocks of ``size``, the last one of 1 to ``size``."""
    held = np.zeros(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > size:
            yield held[:size]
            held = held[size:]
    yield held


def _mono(block: np.ndarray, channel: int | None, key: str) -> np.ndarray:
    """One channel, or the mean of all: ``(n, channels)`` -> ``(n,)``."""
    count = block.shape[1]
    if channel is not None and channel >= count:
        what = f"{count} channel(s), singal_channel_conf.channel is {channel}, counted from 0"
        raise BadUtterance(key, "no_channel", what)
    return block.mean(axis=1) if channel is None and count > 1 else block[:, channel or 0]
