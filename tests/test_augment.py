"""Augmentation: what each does to samples and features, and that each is drawn for itself."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import soundfile
import torch
from helpers import RATE, write_corpus, write_list, write_units, write_wav
from hypothesis import given, settings
from hypothesis import strategies as st

from wenet_osum.config import DATASET_DEFAULTS, check_config
from wenet_osum.dataset.audio import load_audio
from wenet_osum.dataset.augment import DRAWS, Augmentation, generators
from wenet_osum.dataset.augment_lists import AudioList
from wenet_osum.dataset.augment_wave import add_noise, add_reverb, fast_size, power, volume_perturb
from wenet_osum.dataset.dataset import OsumDataset
from wenet_osum.dataset.index_build import build_index
from wenet_osum.dataset.loader import Loader
from wenet_osum.dataset.plan import Item
from wenet_osum.dataset.shards import write_shards
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.tasks import load_tasks
from wenet_osum.text import CharTokenizer
from wenet_osum.wenet.loader import TaskSteps

TABLE = load_tasks()
ALL = ("speed_perturb", "add_reverb", "add_noise", "volume_perturb", "spec_aug", "spec_sub", "spec_trim")


def noise_of(seed: int, count: int, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def write_sounds(folder: Path) -> dict[str, str]:
    """``add_noise``: two noises, shorter and longer than the corpus's utterances; ``add_reverb``: two rooms."""
    for i, seconds in enumerate((0.2, 3.0)):
        soundfile.write(folder / f"noise{i}.wav", noise_of(i, round(seconds * RATE)), RATE)
        decay = np.exp(-np.arange(2000) / 300) * noise_of(9 + i, 2000, 0.3)
        decay[40] = 1
        soundfile.write(folder / f"room{i}.wav", decay, RATE, subtype="FLOAT")
    for name in ("noise", "room"):
        (folder / f"{name}.scp").write_text("".join(f"{i} {folder}/{name}{i}.wav\n" for i in range(2)))
    return {"add_noise": str(folder / "noise.scp"), "add_reverb": str(folder / "room.scp")}


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_sounds(tmp_path_factory.mktemp("lists"))


def conf_of(lists: dict[str, str], on: tuple[str, ...], **changes: Any) -> dict[str, Any]:
    """``dataset_conf`` with the named augmentations on, noise and rooms for every utterance."""
    conf = copy.deepcopy(DATASET_DEFAULTS)
    for name, path in lists.items():
        conf[f"{name}_conf"].update(list=path, prob=1.0)
    return {**conf, **dict.fromkeys(on, True), **changes}


def dataset_of(path: Path, conf: dict[str, Any], train: bool = True, seed: int = 777) -> OsumDataset:
    tokenizer = CharTokenizer(write_units(path.parent / "units.txt"))
    return OsumDataset(
        build_index(path, "raw", TABLE, tokenizer.encode, conf), TABLE, tokenizer, conf, seed, train
    )


# Mixing and rooms


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.floats(-20, 60), st.floats(1e-3, 1), st.floats(1e-3, 1))
def test_noise_is_mixed_at_the_snr(n: int, m: int, snr: float, loud: float, noise_loud: float):
    wave, noise = noise_of(1, n, loud), noise_of(2, m, noise_loud)
    added = add_noise(wave, noise, snr).astype(np.float64) - wave
    assert added.shape == wave.shape
    # What float32 rounds away of noise 60 dB below the voice is 0.1 % of it.
    assert 10 * np.log10(power(wave) / power(added)) == pytest.approx(snr, abs=0.1)
    scale = added[0] / noise[0]
    np.testing.assert_allclose(added, scale * np.resize(noise, n), atol=1e-6)


def test_silence_has_no_snr():
    wave, silence = noise_of(1, 100), np.zeros(50, np.float32)
    assert np.array_equal(add_noise(wave, silence, 5), wave)
    assert np.array_equal(add_noise(silence, wave, 5), silence)
    assert np.array_equal(add_reverb(silence, wave), silence) and np.array_equal(
        add_reverb(wave, silence), wave
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 900), st.integers(0, 899), st.floats(0.01, 30))
def test_an_impulse_changes_nothing(n: int, size: int, at: int, height: float):
    response = np.zeros(size, np.float32)
    response[at % size] = height
    wave = noise_of(3, n)
    np.testing.assert_allclose(add_reverb(wave, response), wave, atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(50, 4000), st.integers(2, 1500), st.integers(0, 60))
def test_reverberation_keeps_length_level_and_time(n: int, size: int, before: int):
    """Against the sum written out: the echo of each sample begins where the sample is."""
    response = np.concatenate([np.zeros(before), [1.0], 0.4 * noise_of(4, size)]).astype(np.float32)
    wave = noise_of(5, n)
    out = add_reverb(wave, response)
    assert out.shape == wave.shape and out.dtype == np.float32
    assert power(out) == pytest.approx(power(wave), rel=1e-4)
    plain = np.convolve(wave, response[before:])[:n]
    np.testing.assert_allclose(out, plain * np.sqrt(power(wave) / power(plain)), atol=1e-5)


@given(st.integers(1, 10**7))
def test_fft_sizes_fit(least: int):
    size = fast_size(least)
    assert least <= size <= 2 * least and any(
        size % m == 0 and (size // m).bit_count() == 1 for m in (1, 3, 5)
    )


def test_volume_stays_within_its_gain():
    wave = noise_of(6, 500)
    gains = [
        10 * np.log10(power(volume_perturb(wave, np.random.default_rng(i), (-10, 6))) / power(wave))
        for i in range(200)
    ]
    assert -10.01 < min(gains) < -9 and 5 < max(gains) < 6.01
    assert volume_perturb(wave, np.random.default_rng(0), (0, 0)) == pytest.approx(wave)


# Drawing


def test_generators_differ_by_each_of_their_parts():
    keys = [(0, 0, "a", 0), (1, 0, "a", 0), (0, 1, "a", 0), (0, 0, "b", 0), (0, 0, "a", 1)]
    first = {(k, name): generators(*k)(name).random() for k in keys for name in DRAWS}
    assert len(set(first.values())) == len(keys) * len(DRAWS)
    assert all(generators(*k)(name).random() == value for (k, name), value in first.items())


def test_the_same_item_is_the_same_and_another_is_not(tmp_path: Path, lists: dict[str, str]):
    path = write_corpus(tmp_path / "data")
    conf = conf_of(lists, ALL)
    dataset, again = dataset_of(path, conf), dataset_of(path, conf)
    item = Item(5, "asr", 3)
    feats = dataset.example(item)["feats"]
    assert torch.equal(again.example(item)["feats"], feats)
    for other in (item._replace(epoch=4), item._replace(copy=1)):
        changed = dataset.example(other)["feats"]
        assert changed.shape != feats.shape or not torch.equal(changed, feats)
    assert not torch.equal(dataset_of(path, conf, seed=1).example(item)["feats"][:10], feats[:10])
    assert dataset_of(path, conf, train=False).augmentation is None


def test_an_utterance_is_augmented_the_same_wherever_it_stands_in_the_list(
    tmp_path: Path, lists: dict[str, str]
):
    path = write_corpus(tmp_path / "data")
    conf = conf_of(lists, ALL)
    row = dataset_of(path, conf).example(Item(5, "asr", 0))
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(reversed(lines)), encoding="utf-8")
    assert torch.equal(dataset_of(path, conf).example(Item(0, "asr", 0))["feats"], row["feats"])


def test_workers_change_nothing(tmp_path: Path, lists: dict[str, str]):
    path = write_corpus(tmp_path / "data")
    conf = conf_of(lists, ALL, batch_conf={"batch_type": "static", "batch_size": 2})

    def read(workers: int) -> list[Any]:
        loader = Loader(dataset_of(path, conf), num_workers=workers, prefetch=2)
        loader.plan(2)
        return [(b["keys"], b["feats"].sum().item(), b["prompt"].tolist()) for b in loader]

    assert read(1) == read(0)


@pytest.mark.parametrize("name", ["add_reverb", "add_noise", "volume_perturb"])
def test_one_augmentation_does_not_shift_the_draws_of_another(lists: dict[str, str], name: str):
    """With spans, bands and gain fixed by their own draws, switching ``name`` leaves the others as they were."""
    wave, feats = noise_of(7, RATE), torch.rand(100, 80)
    rest = tuple(n for n in ALL if n != name)
    with_it, without = (Augmentation(conf_of(lists, on)) for on in ((*rest, name), rest))
    for epoch in range(5):
        draw = generators(0, epoch, "a")
        speeds = [a.samples(wave, RATE, "a", draw, 1e9)[1] for a in (with_it, without)]
        assert speeds[0] == speeds[1]
        assert torch.equal(with_it.features(feats, draw), without.features(feats, draw))


def test_noise_and_gain_as_drawn(lists: dict[str, str]):
    """The list, the span and the ratio follow from the generator alone, in the order the code says."""
    conf = conf_of(lists, ("add_noise",))
    wave = noise_of(8, RATE)
    for epoch in range(6):
        draw = generators(7, epoch, "a")
        out, speed = Augmentation(conf).samples(wave, RATE, "a", draw, 1e9)
        rng = draw("add_noise")
        rng.random()
        snr = rng.uniform(5, 20)
        assert speed == 1
        assert 10 * np.log10(power(wave) / power(out.astype(np.float64) - wave)) == pytest.approx(
            snr, abs=0.1
        )


def test_prob_is_the_share_of_utterances(lists: dict[str, str]):
    conf = conf_of(lists, ("add_noise",))
    conf["add_noise_conf"]["prob"] = 0.3
    augmentation, wave = Augmentation(conf), noise_of(1, 800)
    changed = sum(
        not np.array_equal(
            augmentation.samples(wave, RATE, "k", generators(0, 0, f"k{i}"), 1e9)[0],
            wave,
        )
        for i in range(300)
    )
    assert 60 < changed < 120


def test_speeds_move_word_times_along(tmp_path: Path, lists: dict[str, str]):
    wav = write_wav(tmp_path / "a.wav", 1.0)
    align = [[0.0, 0.5, "no"], [0.5, 1.0, "no"]]
    path = write_list(tmp_path / "a.list", [{"key": "a", "wav": str(wav), "txt": "no no", "align": align}])
    conf = conf_of(lists, ("speed_perturb", "add_reverb"), speed_perturb_conf={"speeds": [0.8, 1.25]})
    dataset, seen = dataset_of(path, conf), set()
    for epoch in range(12):
        got = dataset.example(Item(0, "srwt", epoch))
        seen.add((len(got["feats"]), dataset.tokenizer.decode(got["target"].tolist())))
    slow, fast = (
        "<0.00>no<0.62><0.62>no<1.25>",
        "<0.00>no<0.40><0.40>no<0.80>",
    )
    assert seen == {(125, slow), (80, fast)}


# Lists


def test_every_form_of_list_gives_the_same_sound(tmp_path: Path):
    wav = write_wav(tmp_path / "n.wav", 0.5)
    whole = load_audio(str(wav))
    raw, scp, cut = (tmp_path / name for name in ("raw.list", "wav.scp", "cut.list"))
    raw.write_text(json.dumps({"key": "n", "wav": str(wav)}) + "\n\n")
    scp.write_text(f"n {wav}\n")
    cut.write_text(json.dumps({"key": "n", "wav": str(wav), "start": 0.1, "end": 0.3}) + "\n")
    shards = write_shards(
        [{"key": "n", "wav": str(wav), "txt": "x"}], tmp_path / "tars", tmp_path / "tar.list"
    )
    assert shards is not None
    for path in (raw, scp, tmp_path / "tar.list"):
        got = AudioList(str(path), "list").draw(np.random.default_rng(0), "u", RATE)
        np.testing.assert_allclose(got, whole, atol=1e-4)
    part = AudioList(str(cut), "list")
    assert part.entries[0][2] == pytest.approx(0.2)
    np.testing.assert_array_equal(part.draw(np.random.default_rng(0), "u", RATE), whole[1600:4800])


def test_noise_is_a_span_of_a_long_file_and_all_of_a_short_one(tmp_path: Path):
    wav = write_wav(tmp_path / "n.wav", 1.0)
    path = tmp_path / "wav.scp"
    path.write_text(f"n {wav}\n")
    noises, whole = AudioList(str(path), "list"), load_audio(str(wav))
    starts = set()
    for seed in range(10):
        span = noises.draw(np.random.default_rng(seed), "u", RATE, 0.25)
        at = next(
            i for i in range(len(whole) - len(span) + 1) if np.array_equal(whole[i:][: len(span)], span)
        )
        starts.add(at)
        assert abs(len(span) - 4000) <= 1
        turned = noises.draw(np.random.default_rng(seed), "u", RATE, 9.0)
        assert len(turned) == len(whole) and sorted(turned.tolist()) == sorted(whole.tolist())
    assert len(starts) == 10 and max(starts) > 6000 > min(starts)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("n {folder}/none.wav", "missing"),
        ("n {folder}/text.wav", "unreadable"),
        ("n {folder}/cut.wav", "truncated"),
        ("n {folder}/cut.flac", "truncated"),
        ("n sox in.wav -t wav - |", "is a command"),
        ("lonely", "is neither KEY PATH"),
        ('{{"key": "n"}}', "no JSON object with a wav"),
        ('{{"wav": "{folder}/good.wav", "start": "1"}}', "start is '1'"),
        ('{{"wav": "{folder}/good.wav", "start": 1, "end": 3}}', "segment_out_of_range"),
        ("{folder}/none.tar", "no such file"),
    ],
)
def test_bad_input_in_a_list_is_told_with_its_line(tmp_path: Path, line: str, says: str):
    good = write_wav(tmp_path / "good.wav", 0.5)
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "cut.wav").write_bytes(good.read_bytes()[:-4000])
    soundfile.write(tmp_path / "whole.flac", noise_of(0, 40000), RATE)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "whole.flac").read_bytes()[:-9000])
    path = tmp_path / "noise.list"
    path.write_text(f"good {good}\n{line.format(folder=tmp_path)}\n")
    with pytest.raises(OsumError) as e:
        AudioList(str(path), "dataset_conf.add_noise_conf.list")
    assert says in str(e.value)
    assert e.value.where.startswith(f"{path}:2")


def test_bad_input_a_noise_that_vanished_sets_its_utterance_aside(tmp_path: Path, lists: dict[str, str]):
    data = write_corpus(tmp_path / "data")
    noise = write_wav(tmp_path / "n.wav", 2.0)
    path = tmp_path / "wav.scp"
    path.write_text(f"n {noise}\n")
    dataset = dataset_of(data, conf_of({"add_noise": str(path)}, ("add_noise",)))
    noise.unlink()
    got = dataset[Item(0, "asr", 0)]
    assert isinstance(got, BadUtterance)
    assert (got.key, got.cause) == ("u00", "bad_noise") and f"{path}:1: missing" in got.detail


@pytest.mark.parametrize(
    "section",
    [
        {"add_noise": True},
        {"add_reverb": True, "add_reverb_conf": {"prob": 1.0}},
        {"add_noise_conf": {"list": 5}},
        {"add_noise_conf": {"prob": 1.5}},
        {"add_noise_conf": {"snr": [20, 5]}},
        {"add_noise_conf": {"snr": [5]}},
        {"add_noise_conf": {"snr": [5, "x"]}},
        {"volume_perturb_conf": {"gain": [0, 99]}},
        {"volume_perturb_conf": {"gains": [0, 9]}},
        {"speed_perturb_conf": {"speeds": []}},
        {"speed_perturb_conf": {"speeds": [0]}},
        {"speed_perturb_conf": {"speeds": 0.9}},
        {"spec_aug_conf": {"max_f": 0}},
    ],
)
def test_bad_input_in_the_config_names_its_key(section: dict[str, Any]):
    key = next((k for k in section if k.endswith("_conf")), next(iter(section)))
    with pytest.raises(OsumError) as e:
        check_config({"dataset_conf": section}, "run.yaml")
    assert f"run.yaml: dataset_conf.{key}" in e.value.where


@pytest.mark.parametrize("name", ["add_reverb", "add_noise", "volume_perturb"])
def test_bad_input_wenets_own_loader_has_no_such_step(lists: dict[str, str], name: str):
    stock = SimpleNamespace(filter=None, padding=None)
    run = SimpleNamespace(table=TABLE, conf=conf_of(lists, (name,)), room=None)
    TaskSteps(stock, cast(Any, run), "dev", "asr")
    with pytest.raises(OsumError, match=rf"dataset_conf\.{name}: .*; set dataset: osum"):
        TaskSteps(stock, cast(Any, run), "train", "asr")
