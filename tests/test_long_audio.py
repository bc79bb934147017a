"""Recordings of any length: read in blocks, cut at pauses, their answers joined."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from corrupt import corrupt_files
from hypothesis import given, settings
from hypothesis import strategies as st

from wenet_osum.dataset import audio
from wenet_osum.dataset.audio import audio_blocks, load_audio
from wenet_osum.dataset.resample import resample, resample_blocks
from wenet_osum.decode.cut import MARGIN, Piece, pieces
from wenet_osum.decode.join import Part, join
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.tasks import load_tasks
from wenet_osum.tasks.answer import Answer, Word

RATE = 16000
TASKS = load_tasks()


def encoded(wave: np.ndarray, rate: int = RATE, form: str = "WAV", subtype: str = "PCM_16") -> bytes:
    out = io.BytesIO()
    with sf.SoundFile(out, "w", rate, wave.shape[1] if wave.ndim > 1 else 1, subtype, format=form) as f:
        for i in range(0, len(wave), rate):  # libsndfile's ogg encoder takes no more at once
            f.write(wave[i : i + rate])
    return out.getvalue()


def talk(
    seed: int,
    seconds: float,
    rate: int = RATE,
    snr: float | None = 30.0,
    longest: float = 1.0,
    gaps: tuple[float, float] = (0.3, 1.5),
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Bursts of tone and of noise for words, the weakest ``snr`` dB above the noise between them (None: digital
    silence), and where they are, in seconds."""
    rng = np.random.default_rng(seed)
    wave = np.zeros(round(seconds * rate))
    loudness = 10 ** rng.uniform(-2.0, -0.5)
    bursts = []
    at = rng.uniform(0, 0.5) if seed % 2 else 0.0
    while True:
        length = rng.uniform(0.05, longest)
        first, last = round(at * rate), round((at + length) * rate)
        if last > len(wave):
            break
        t = np.arange(last - first) / rate
        sound = (
            np.sin(2 * np.pi * rng.uniform(150, 3000) * t)
            if rng.random() < 0.7
            else rng.standard_normal(len(t))
        )
        wave[first:last] = sound / np.sqrt(np.mean(sound**2)) * loudness * 10 ** (-rng.uniform(0, 0.7))
        bursts.append((first / rate, last / rate))
        at += length + (rng.uniform(3, 20) if rng.random() < 0.03 else rng.uniform(*gaps))
    if snr is not None:
        wave += rng.standard_normal(len(wave)) * loudness * 10 ** (-0.7 - snr / 20)
    return wave.astype(np.float32), bursts


def all_pieces(source: str | bytes, **how: Any) -> list[Piece]:
    return list(pieces(source, "a", **how))


def check_pieces(found: list[Piece], whole: np.ndarray, longest: float) -> None:
    """In order, apart, none too long, and each what the recording has there."""
    for before, after in pairwise(found):
        assert before.end <= after.start
    for piece in found:
        first = round(piece.start * RATE)
        assert piece.samples.dtype == np.float32 and 0 < len(piece.samples) <= longest * RATE
        assert piece.end - piece.start == pytest.approx(len(piece.samples) / RATE)
        np.testing.assert_allclose(piece.samples, whole[first : first + len(piece.samples)], atol=1e-5)


def homes(found: list[Piece], burst: tuple[float, float]) -> list[int]:
    """The pieces that have any of a burst."""
    return [i for i, p in enumerate(found) if p.start < burst[1] and burst[0] < p.end]


# Reading in blocks


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        [(8000, 16000), (44100, 16000), (22050, 16000), (48000, 16000), (11025, 16000), (16000, 8000)]
    ),
    st.lists(st.integers(0, 3000), min_size=1, max_size=8),
    st.integers(0, 99),
)
def test_long_audio_is_resampled_in_blocks_as_whole(
    rates: tuple[int, int], sizes: list[int], seed: int
) -> None:
    wave = np.random.default_rng(seed).standard_normal(sum(sizes) + 1).astype(np.float32)
    blocks = np.split(wave, np.cumsum(sizes))
    out = np.concatenate(list(resample_blocks(blocks, *rates)))
    np.testing.assert_allclose(out, resample(wave, *rates), atol=1e-5, strict=True)


@pytest.mark.parametrize(
    ("form", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
@pytest.mark.parametrize("span", [(None, None), (3.0, 17.5)])
@pytest.mark.parametrize("rate", [16000, 48000])
def test_long_audio_in_blocks_is_load_audio(
    form: str, subtype: str, span: tuple[Any, Any], rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(talk(1, 20, rate)[0], rate, form, subtype)
    whole = load_audio(data, *span)
    monkeypatch.setattr(audio, "_BLOCK", 7001)
    blocks = list(audio_blocks(data, 1.3, *span))
    assert len(blocks) > 10 and max(map(len, blocks)) < 1.4 * RATE
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-5, strict=True)
    assert (np.concatenate(list(audio_blocks(data, 20.1, *span))) == whole).all()


# Cutting


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    seconds=st.floats(0.3, 100),
    longest=st.sampled_from([2.0, 5.0, 12.3, 30.0]),
    rate=st.sampled_from([8000, 16000, 44100]),
    channels=st.integers(1, 2),
    snr=st.sampled_from([10.0, 20.0, 40.0, None]),
)
def test_long_audio_every_burst_is_in_one_piece(
    seed: int, seconds: float, longest: float, rate: int, channels: int, snr: float | None
) -> None:
    wave, bursts = talk(seed, seconds, rate, snr, longest=min(1.2, longest / 4))
    if channels == 2:
        wave = np.stack([wave, np.zeros_like(wave)], axis=1)
    data = encoded(wave, rate, subtype="FLOAT")
    found = all_pieces(data, max_seconds=longest)
    whole = load_audio(data)
    check_pieces(found, whole, longest)
    for burst in bursts:
        at = homes(found, burst)
        assert len(at) == 1
        assert found[at[0]].start <= burst[0] + 1e-3 and burst[1] - 1e-3 <= found[at[0]].end
    again = all_pieces(data, max_seconds=longest)
    assert [(p.start, p.end) for p in again] == [(p.start, p.end) for p in found]
    if len(whole) <= longest * RATE:
        assert len(found) == 1 if bursts else len(found) <= 1  # nothing but noise is silence
        assert all((p.samples == whole).all() for p in found)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("seconds", [0.05, 0.3, 3.0])
@pytest.mark.parametrize("vad", ["energy", "none"])
def test_long_audio_that_is_short_is_left_whole(rate: int, seconds: float, vad: str) -> None:
    click = np.zeros(round(seconds * rate), np.float32)
    click[0] = 0.5
    for wave in (talk(3, seconds, rate)[0] + click, click):
        data = encoded(wave, rate)
        (piece,) = all_pieces(data, max_seconds=3.0, vad=vad)
        assert (piece.samples == load_audio(data)).all() and piece.start == 0


def test_long_audio_pieces_are_cut_in_the_second_half() -> None:
    found = all_pieces(encoded(talk(5, 200, gaps=(0.3, 1.0))[0]), max_seconds=20)
    silences = [b.start - a.end for a, b in pairwise(found)]
    assert len(found) < 200 / 20 * 2 and max(silences) > 2.5
    for piece, silence in zip(found, silences):
        assert silence > 1.5 or piece.end - piece.start > 10 - 2 * MARGIN


def test_long_audio_without_pauses_is_cut_where_it_is_quietest() -> None:
    rng = np.random.default_rng(0)
    wave = 0.3 * rng.standard_normal(25 * RATE).astype(np.float32)
    dip = slice(8 * RATE, 8 * RATE + 480)
    wave[dip] *= 0.75  # not below what counts as a pause
    first, *rest = all_pieces(encoded(wave, subtype="FLOAT"), max_seconds=10)
    assert 8.0 <= first.end <= 8.03
    assert sum(len(p.samples) for p in (first, *rest)) == len(wave)


def test_long_audio_silence_is_dropped_but_for_a_margin() -> None:
    wave, _ = talk(2, 4, snr=40, gaps=(0.3, 0.4))
    noise = 1e-4 * np.random.default_rng(1).standard_normal(90 * RATE).astype(np.float32)
    start, *rest = all_pieces(encoded(np.concatenate([noise, wave, noise, wave, noise]), subtype="FLOAT"))
    assert 90 - MARGIN - 0.02 <= start.start <= 90
    assert len(rest) == 1 and 184 - MARGIN - 0.02 <= rest[0].start <= 184
    assert 188 - 0.5 <= rest[0].end <= 188 + MARGIN + 0.02


@pytest.mark.parametrize("seconds", [70, 20, 0.4])
@pytest.mark.parametrize("level", [0.0, 1e-4])
def test_long_audio_that_is_silent_has_no_piece(level: float, seconds: float) -> None:
    noise = level * np.random.default_rng(0).standard_normal(int(seconds * RATE))
    assert all_pieces(encoded(noise, subtype="FLOAT")) == []


def test_long_audio_that_is_quiet_but_no_silence_is_a_piece() -> None:
    wave, _ = talk(2, 4, snr=40, gaps=(0.3, 0.4))
    assert len(all_pieces(encoded(0.003 * wave, subtype="FLOAT"))) == 1


def test_long_audio_that_is_steady_and_loud_is_no_silence() -> None:
    hum = 0.2 * np.sin(2 * np.pi * 100 * np.arange(70 * RATE) / RATE)
    found = all_pieces(encoded(hum))
    assert sum(len(p.samples) for p in found) == len(hum)


def test_long_audio_that_is_clipped_is_cut_at_its_pauses() -> None:
    wave, bursts = talk(4, 100, snr=30)
    data = encoded(np.clip(wave * 50, -1, 1))
    found = all_pieces(data)
    check_pieces(found, load_audio(data), 30)
    assert all(len(homes(found, burst)) == 1 for burst in bursts)


def test_long_audio_a_segment_has_the_times_of_the_recording() -> None:
    wave, bursts = talk(6, 120)
    data = encoded(wave)
    found = all_pieces(data, start=20.5, end=100.0)
    assert found[0].start >= 20.5 and found[-1].end <= 100.0
    check_pieces(found, load_audio(data), 30)
    assert all(len(homes(found, b)) == 1 for b in bursts if b[0] >= 20.5 and b[1] <= 100)


def test_long_audio_of_another_channel() -> None:
    wave, bursts = talk(11, 70)
    data = encoded(np.stack([np.zeros_like(wave), wave], axis=1))
    found = all_pieces(data, channel=1)
    check_pieces(found, load_audio(data, channel=1), 30)
    assert all(len(homes(found, burst)) == 1 for burst in bursts) and all_pieces(data) == []


def test_long_audio_without_a_detector_is_cut_anywhere() -> None:
    wave = talk(7, 30.25)[0]
    found = all_pieces(encoded(wave), max_seconds=10, vad="none")
    assert [len(p.samples) for p in found] == [160000, 160000, 156000, 8000]
    assert (np.concatenate([p.samples for p in found]) == load_audio(encoded(wave))).all()


def test_long_audio_pieces_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(talk(8, 100, 44100)[0], 44100)
    expected = all_pieces(data, max_seconds=7)
    monkeypatch.setattr(audio, "_BLOCK", 12345)
    for a, b in zip(expected, all_pieces(data, max_seconds=7), strict=True):
        assert (a.start, a.end) == (b.start, b.end) and (a.samples == b.samples).all()


# Memory


def sparse_wave(path: Path, seconds: int) -> str:
    """A 16-bit wave file with a word every 7 s, most of it a hole on the disk."""
    size = 2 * seconds * RATE
    word = (0.3 * 32767 * np.sin(np.arange(8000) / 3)).astype("<i2").tobytes()
    with open(path, "wb") as f:
        f.write(struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", size))  # fmt: skip
        f.truncate(44 + size)
        for at in range(3, seconds - 1, 7):
            f.seek(44 + 2 * at * RATE)
            f.write(word)
    return str(path)


def peak_of(found: Iterator[Piece]) -> tuple[int, int]:
    """Number of pieces, and the most bytes of arrays there ever were."""
    tracemalloc.start()
    count = sum(1 for _ in found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return count, peak


def test_long_audio_of_two_hours_takes_the_memory_of_a_minute(tmp_path: Path) -> None:
    _, minute = peak_of(pieces(sparse_wave(tmp_path / "minute.wav", 60), "a"))
    count, hours = peak_of(pieces(sparse_wave(tmp_path / "hours.wav", 7200), "a"))
    assert count == 7200 // 7 and hours < 1.2 * minute


def test_long_audio_is_read_no_further_than_needed() -> None:
    taken = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal taken
        for _ in range(500):
            taken += 1
            yield np.ones(1000, np.float32)

    for given_out, _ in enumerate(resample_blocks(blocks(), 44100, 16000), 1):
        assert taken <= given_out + 1 or taken == 500


# What is wrong with a recording or a call


@pytest.mark.parametrize("name", sorted(corrupt_files()))
def test_long_audio_bad_input_is_named_as_by_load_audio(name: str) -> None:
    content, cause = corrupt_files()[name]
    for found in (pieces(content, "a"), pieces(content, "a", max_seconds=1.0)):
        with pytest.raises(BadUtterance) as e:
            list(found)
        with pytest.raises(BadUtterance) as expected:
            load_audio(content, key="a")
        assert (e.value.key, e.value.cause, e.value.detail) == ("a", cause, expected.value.detail)


@pytest.mark.parametrize(
    ("form", "subtype"), [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")]
)
def test_long_audio_bad_input_truncated(form: str, subtype: str) -> None:
    data = encoded(talk(9, 150)[0], RATE, form, subtype)
    with pytest.raises(BadUtterance, match="truncated"):
        all_pieces(data[: len(data) // 2])


def test_long_audio_bad_input_arguments(tmp_path: Path) -> None:
    data = encoded(np.zeros(100, np.float32))
    for how in ({"max_seconds": 0.5}, {"max_seconds": float("nan")}, {"min_pause": 0.0}, {"vad": "webrtc"}):
        with pytest.raises(OsumError, match="use "):
            pieces(data, "a", **how)  # type: ignore[arg-type]
    with pytest.raises(BadUtterance, match="missing"):
        all_pieces(str(tmp_path / "no.wav"))
    with pytest.raises(BadUtterance, match="segment_out_of_range"):
        all_pieces(data, start=5.0)


# Silero


def test_long_audio_silero_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(OsumError, match="pip install wenet_osum\\[vad\\]"):
        pieces(b"", "a", vad="silero")


def test_long_audio_silero_is_asked_frame_by_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its place a network that takes sound for speech."""
    asked = 0

    def network(frame: torch.Tensor, rate: int) -> torch.Tensor:
        nonlocal asked
        assert frame.shape == (512,) and rate == RATE
        asked += 1
        assert torch.get_num_threads() == 1
        return (frame.std() > 1e-3).float()

    monkeypatch.setitem(sys.modules, "silero_vad", SimpleNamespace(load_silero_vad=lambda: network))
    wave, bursts = talk(10, 100, snr=None)
    data = encoded(wave)
    threads = torch.get_num_threads()
    found = all_pieces(data, vad="silero")
    assert torch.get_num_threads() == threads
    check_pieces(found, load_audio(data), 30)
    assert len(found) > 3 and all(len(homes(found, burst)) == 1 for burst in bursts)
    assert asked == -(-len(wave) // 512)


def test_long_audio_silero_is_not_imported_unasked() -> None:
    assert "silero_vad" not in sys.modules and "torchaudio" not in sys.modules


# Joining


def test_long_audio_texts_are_joined() -> None:
    parts = [
        Part(0, 9, Answer("good morning")),
        Part(9, 12, Answer("")),
        Part(12, 20, Answer("今天")),
        Part(20, 30, Answer("天气 ok")),
    ]
    joined = join(parts, TASKS["asr"])
    assert joined.answer == Answer("good morning今天天气ok") and joined.probabilities == {}
    assert [(s.start, s.end, s.text) for s in joined.segments] == [
        (0, 9, "good morning"), (9, 12, ""), (12, 20, "今天"), (20, 30, "天气 ok"),
    ]  # fmt: skip
    assert join([Part(0, 1, Answer("a b")), Part(1, 2, Answer("c"))], TASKS["asr"]).answer.text == "a b c"


@given(st.lists(st.lists(st.tuples(st.floats(0, 12), st.floats(0, 3)), max_size=6), min_size=2, max_size=5))
def test_long_audio_timed_words_are_in_the_recordings_time(times: list[list[tuple[float, float]]]) -> None:
    parts = []
    for i, piece in enumerate(times):
        words = [Word(round(a, 2), round(a + b, 2), f"w{i}") for a, b in sorted(piece)]
        parts.append(Part(10.123 * i, 10.123 * (i + 1), Answer(" ".join(w.word for w in words), words=words)))
    answer = join(parts, TASKS["srwt"]).answer
    assert answer.words is not None and [w.word for w in answer.words] == (answer.text or "").split()
    assert [w.word for w in answer.words] == [f"w{i}" for i, piece in enumerate(times) for _ in piece]
    for before, after in pairwise(answer.words):
        assert before.start <= after.start
    assert all(
        w.start <= w.end and w == Word(round(w.start, 2), round(w.end, 2), w.word) for w in answer.words
    )
    assert TASKS["srwt"].parse(TASKS["srwt"].compose(answer)) == answer


def test_long_audio_timed_words_that_overrun_their_piece_end_with_it() -> None:
    first = Answer("so long", words=[Word(0.5, 1.0, "so"), Word(11.0, 12.0, "long")])
    second = Answer("you", words=[Word(0.1, 0.456, "you")])
    answer = join([Part(2.0, 12.0, first), Part(12.345, 20.0, second)], TASKS["srwt"]).answer
    assert answer.words == [Word(2.5, 3.0, "so"), Word(12.35, 12.35, "long"), Word(12.45, 12.8, "you")]


def test_long_audio_labels_are_the_mean_of_probabilities_or_the_majority_of_seconds() -> None:
    task = TASKS["ser"]

    def part(start: float, end: float, value: str | None, **shares: float) -> Part:
        labels = {} if value is None else {"emotion": value}
        return Part(start, end, Answer("a", labels), {"emotion": shares} if shares else {})

    by_seconds = join(
        [part(0, 4, "sad"), part(4, 10, "happy"), part(10, 13, "sad"), part(13, 40, None)], task
    )
    assert by_seconds.answer.labels == {"emotion": "sad"} and by_seconds.probabilities == {}
    sure = join([part(0, 10, "sad", sad=0.9, happy=0.1), part(10, 26, "happy", sad=0.4, happy=0.6)], task)
    assert sure.answer.labels == {"emotion": "sad"}
    assert sure.probabilities["emotion"] == pytest.approx({"sad": 15.4 / 26, "happy": 10.6 / 26})
    assert [s.labels for s in sure.segments] == [{"emotion": "sad"}, {"emotion": "happy"}]
    unlabelled = join([part(0, 1, None), part(1, 2, None)], task)
    assert unlabelled.answer.labels == {} and unlabelled.probabilities == {}


def test_long_audio_problems_and_replies_are_joined() -> None:
    task = TASKS["sttc"]
    parts = [Part(0, 29.5, task.parse("hello<开始回答>hi there")), Part(31, 40, task.parse("你好"))]
    answer = join(parts, task).answer
    assert answer.text == "hello你好" and answer.reply == "hi there"
    assert answer.problems == ["31.00-40.00 s: no <开始回答>"]
    parts[1].answer = task.parse("you<开始回答>fine")
    assert join(parts, task).answer == Answer("hello you", reply="hi there fine")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_long_audio_one_piece_has_its_own_answer_and_none_a_problem(name: str) -> None:
    answer = TASKS[name].parse("hello<happy>")
    assert join([Part(0, 2, answer)], TASKS[name]).answer == answer
    assert join([], TASKS[name]).answer.problems == ["nothing but silence"]
