"""Loading audio: what comes out, and a name for everything that can be wrong with it."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile as sf

from wenet_osum.dataset import sources
from wenet_osum.dataset.audio import audio_duration, load_audio, scan_audio
from wenet_osum.errors import BadUtterance

RATE = 16000
FORMATS = [
    ("WAV", "PCM_16", 1e-4),
    ("WAV", "PCM_24", 1e-6),
    ("WAV", "FLOAT", 1e-7),
    ("WAV", "ULAW", 0.02),
    ("WAVEX", "PCM_16", 1e-4),
    ("AIFF", "PCM_16", 1e-4),
    ("FLAC", "PCM_16", 1e-4),
    ("OGG", "VORBIS", 0.05),
    ("OGG", "OPUS", 0.05),
    ("MP3", "MPEG_LAYER_III", 0.05),
]


def tone(seconds: float = 1.0, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encode(samples: np.ndarray, rate: int = RATE, form: str = "WAV", subtype: str = "PCM_16") -> bytes:
    out = io.BytesIO()
    sf.write(out, samples, rate, format=form, subtype=subtype)
    return out.getvalue()


def cause(source: str | bytes, **kwargs: float) -> str:
    with pytest.raises(BadUtterance) as e:
        load_audio(source, key="utt", **kwargs)
    assert e.value.key == "utt" and e.value.detail and "\n" not in e.value.detail
    return e.value.cause


@pytest.mark.parametrize(("form", "subtype", "tolerance"), FORMATS)
def test_formats_from_bytes_and_path(tmp_path: Path, form: str, subtype: str, tolerance: float) -> None:
    x = tone()
    data = encode(x, RATE, form, subtype)
    path = tmp_path / "a.audio"
    path.write_bytes(data)
    for source in (data, str(path)):
        y = load_audio(source)
        assert y.dtype == np.float32 and y.shape == x.shape and y.flags.c_contiguous
        assert np.abs(y[800:-800] - x[800:-800]).max() < tolerance
        assert audio_duration(source) == pytest.approx(1.0, abs=1e-3)
        assert scan_audio(source) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("form", "subtype", "tolerance"), FORMATS)
def test_segment_is_a_slice_of_the_whole(form: str, subtype: str, tolerance: float) -> None:
    data = encode(tone(3.0), RATE, form, subtype)
    whole = load_audio(data)
    part = load_audio(data, 1.25, 2.5)
    assert part.shape == (20000,)
    assert np.abs(part - whole[20000:40000]).max() < 5e-3
    assert len(load_audio(data, 2.5)) == len(load_audio(data, 2.5, -1)) == 8000
    assert len(load_audio(data, 2.5, 3.4)) == 8000  # a little past the end, as Kaldi allows


def test_long_mp3_has_no_holes() -> None:
    y = load_audio(encode(tone(70.0), RATE, "MP3", "MPEG_LAYER_III"))
    level = np.abs(y[: 70 * RATE].reshape(-1, 400)).max(axis=1)
    assert level[2:-2].min() > 0.4


def test_16_bit_is_exact() -> None:
    samples = np.array([-32768, -1, 0, 1, 32767], np.int16)
    assert (load_audio(encode(samples)) * 32768 == samples).all()


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_one_channel_of_several_or_their_mean(subtype: str) -> None:
    left, right = tone(hertz=300), tone(hertz=500)
    both = encode(np.stack([left, right], 1), RATE, "WAV", subtype)
    assert np.abs(load_audio(both) - left).max() < 1e-4
    assert np.abs(load_audio(both, channel=1) - right).max() < 1e-4
    assert np.abs(load_audio(both, channel=None) - (left + right) / 2).max() < 1e-4


@pytest.mark.parametrize("channel", [1, 2])
def test_bad_input_channel_that_a_recording_has_not(channel: int) -> None:
    samples = tone() if channel == 1 else np.stack([tone(), tone()], 1)
    with pytest.raises(BadUtterance, match=f"no_channel: {channel} channel") as e:
        load_audio(encode(samples), key="a", channel=channel)
    assert e.value.cause == "no_channel"


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_resampling_keeps_pitch_and_length(rate: int) -> None:
    y = load_audio(encode(tone(1.0, rate), rate))
    assert abs(len(y) - RATE) <= 1
    assert np.abs(np.fft.rfft(y)).argmax() == 440
    assert len(load_audio(encode(tone(1.0, rate), rate), sample_rate=8000)) == pytest.approx(8000, abs=1)


def test_pipe_and_its_stream_header(tmp_path: Path) -> None:
    data = encode(tone())
    assert data[36:40] == b"data"
    for made_up in (0xFFFFFFFF, 0x7FFFF000):  # what ffmpeg and sox write into a pipe
        streamed = data[:40] + struct.pack("<I", made_up) + data[44:]
        (tmp_path / "s.wav").write_bytes(streamed)
        assert (load_audio(f"cat '{tmp_path}/s.wav' |") == load_audio(data)).all()
        assert audio_duration(f"cat '{tmp_path}/s.wav' | cat |") == 1.0
    unclosed = data[:4] + bytes(4) + data[8:40] + bytes(4) + data[44:]
    assert (load_audio(unclosed) == load_audio(data)).all()


def test_pipe_runs_once_for_the_segments_of_a_recording(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode(tone()))
    command = f"echo x >> '{tmp_path}/runs'; cat '{tmp_path}/a.wav' |"
    assert len(load_audio(command, 0.0, 0.5)) == len(load_audio(command, 0.5, 1.0)) == 8000
    assert (tmp_path / "runs").read_text() == "x\n"


def test_kaldi_ark_of_wav_and_of_flac(tmp_path: Path) -> None:
    x, y = tone(hertz=300), tone(0.5, hertz=500)
    ark = tmp_path / "a b.ark"
    first, second = encode(x), encode(y)
    ark.write_bytes(b"one " + first + b"two " + second)
    assert (load_audio(f"{ark}:4") == load_audio(first)).all()
    assert (load_audio(f"{ark}:{8 + len(first)}") == load_audio(second)).all()
    assert cause(f"{ark}:5") == "unreadable"
    ark.write_bytes(b"one " + first[:-10])
    assert cause(f"{ark}:4") == "truncated"

    entries = {"one": (RATE, (x * 32767).astype(np.int16)), "two": (RATE, (y * 32767).astype(np.int16))}
    scp = str(tmp_path / "a.scp")
    kaldiio.save_ark(str(ark), entries, scp, write_function="soundfile", write_kwargs={"format": "flac"})
    sources_by_key = dict(line.split(" ", 1) for line in (tmp_path / "a.scp").read_text().splitlines())
    assert np.abs(load_audio(sources_by_key["two"]) - y).max() < 1e-3


def test_file_whose_name_looks_like_an_ark(tmp_path: Path) -> None:
    path = tmp_path / "take:12"
    path.write_bytes(encode(tone()))
    assert len(load_audio(str(path))) == RATE


def test_16_bit_wav_is_fast() -> None:
    """Far above what a training reads (150 utterances a second), whatever else the machine does."""
    data = encode(tone(3.2))
    best = min(timed(lambda: load_audio(data)) for _ in range(50))
    assert best < 0.001


def timed(call) -> float:  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@pytest.mark.parametrize(("form", "subtype", "tolerance"), FORMATS)
def test_bad_input_truncated(form: str, subtype: str, tolerance: float) -> None:
    data = encode(tone(3.0), RATE, form, subtype)
    assert cause(data[: len(data) // 2]) == "truncated"
    with pytest.raises(BadUtterance, match="truncated"):
        scan_audio(data[: len(data) // 2])
    for size in range(1, 100, 7):
        assert cause(data[:size]) in ("truncated", "unreadable", "empty")


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG"])
def test_bad_input_truncated_by_a_few_bytes(form: str) -> None:
    data = encode(tone(3.0), RATE, form, {"OGG": "VORBIS"}.get(form, "PCM_16"))
    assert cause(data[:-3]) == "truncated"


def test_bad_input_segment_before_the_cut_is_still_good() -> None:
    data = encode(tone(2.0))[: 44 + 2 * RATE]
    assert len(load_audio(data, 0.0, 1.0)) == RATE
    assert cause(data, start=0.5, end=1.5) == "truncated"


def test_bad_input_missing_empty_and_unreadable(tmp_path: Path) -> None:
    assert cause(str(tmp_path / "no.wav")) == "missing"
    assert cause(str(tmp_path / "no.ark:7")) == "missing"
    assert cause(str(tmp_path)) == "unreadable"
    assert cause("a\0b.wav") == "unreadable"
    assert cause(b"these are words and not audio, whatever the name says") == "unreadable"
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    assert cause(str(tmp_path / "a.raw")) == "unreadable"
    assert cause(b"") == "empty"
    for form, subtype in (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16")):
        assert cause(encode(np.zeros(0, np.float32), RATE, form, subtype)) == "empty"


def test_bad_input_nan() -> None:
    x = tone()
    for value in (np.nan, np.inf, -np.inf):
        x[5000] = value
        data = encode(x, RATE, "WAV", "FLOAT")
        assert cause(data) == "nan"
        with pytest.raises(BadUtterance, match="nan"):
            scan_audio(data)
        assert len(load_audio(data, 0.5, 1.0)) == 8000  # the bad sample is not in it


def test_bad_input_segments() -> None:
    data = encode(tone(2.0))
    for start, end in (
        (-0.1, 1),
        (1, 1),
        (1.5, 1),
        (2.0, 2.4),
        (0, 2.6),
        (3, 4),
        (float("nan"), 1),
        (0, float("inf")),
    ):
        assert cause(data, start=start, end=end) == "segment_out_of_range"
    assert cause(data, start=0.5, end=0.50001) == "empty"


def test_bad_input_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cause("echo reading >&2; echo no such disk >&2; exit 3 |") == "pipe_failed"
    with pytest.raises(BadUtterance, match="exit status 3: no such disk"):
        load_audio("echo no such disk >&2; exit 3 |")
    assert cause("no-such-command-anywhere |") == "pipe_failed"
    assert cause("true |") == "pipe_failed"
    assert cause("echo hello |") == "unreadable"
    monkeypatch.setattr(sources, "PIPE_SECONDS", 0.2)
    start = time.monotonic()
    assert cause("sleep 30 | cat |") == "pipe_failed"
    assert time.monotonic() - start < 10


def test_bad_input_float_samples_beyond_full_scale() -> None:
    """In a raw list the features would be NaN, and in a shard the samples would be clipped to noise."""
    for factor in (1e30, 32768):
        assert cause(encode(tone() * np.float32(factor), subtype="FLOAT")) == "too_loud"
    assert np.abs(load_audio(encode(tone() * 3, subtype="FLOAT"))).max() > 1  # a little overshoot is none


def test_bad_input_ark_offset_beyond_any_file(tmp_path: Path) -> None:
    (tmp_path / "a.ark").write_bytes(b"a " + encode(tone()))
    for offset in ("9" * 12, "9" * 30):
        assert cause(f"{tmp_path / 'a.ark'}:{offset}") == "unreadable"
