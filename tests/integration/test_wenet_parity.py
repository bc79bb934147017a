"""WeNet's own code beside ours: the flags its programs know, its recipes' YAMLs, filter, features, characters."""

from __future__ import annotations

import ast
import importlib
import logging
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import stage2_config

from wenet_osum.bin import average_model, recognize, train
from wenet_osum.config import DEFAULTS, load_config
from wenet_osum.dataset.features import log_mel_spectrogram
from wenet_osum.dataset.filter import check_answer, check_length
from wenet_osum.dataset.plan import plan_batches
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.text import CharTokenizer

PROGRAMS = {
    "train": (train, ["wenet/bin/train.py", "wenet/utils/train_utils.py"]),
    "recognize": (recognize, ["wenet/bin/recognize.py"]),
    "average_model": (average_model, ["wenet/bin/average_model.py"]),
}
REQUIRED = {
    "train": ["--config", "c", "--model_dir", "m", "--train_data", "t", "--cv_data", "v"],
    "recognize": ["--config", "c", "--test_data", "t", "--checkpoint", "p", "--result_dir", "r"],
    "average_model": ["--dst_model", "d", "--src_path", "s"],
}
# Defaults that differ, each told in docs/from-wenet.md.
OTHERWISE = {
    "--device": "cuda where there is one",
    "--dtype": "the config's",
    "--beam_size": "10, or the preset's",
    "--length_penalty": "0, or the preset's",
    "--timeout": "600 where none is given: WeNet's 30 is for the join alone",
    "--fsdp_sharding_strategy": "the same: zero2 where none is given",
    "--enc_init_mods": "the same, not yet split at commas",
    "--freeze_modules": "the same, not yet split at commas",
}


def flags_of(source: str) -> dict[str, dict[str, Any]]:
    """The ``add_argument`` calls of a source file: flag -> its keywords that are plain values."""
    flags = {}
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"):
            continue
        plain: dict[str, Any] = {}
        for keyword in node.keywords:
            try:
                plain[str(keyword.arg)] = ast.literal_eval(keyword.value)
            except ValueError:
                plain[str(keyword.arg)] = ast.unparse(keyword.value)
        flags[ast.literal_eval(node.args[0])] = plain
    return flags


@pytest.mark.parametrize("name", PROGRAMS)
def test_wenet_flags_are_all_taken_with_wenets_defaults(wenet_dir: Path, name: str):
    program, sources = PROGRAMS[name]
    flags: dict[str, dict[str, Any]] = {}
    for source in sources:
        flags.update(flags_of((wenet_dir / source).read_text(encoding="utf-8")))
    assert len(flags) >= 9
    required = [*REQUIRED[name], *(["--modes", "llm_greedy"] if name == "recognize" else [])]
    without = vars(program.get_args(required))
    for flag, how in flags.items():
        for value in how.get("choices") or [{"int": "3", "float": "0.5"}.get(how.get("type"), "x")]:
            words = [flag] if how.get("action") == "store_true" else [flag, str(value)]
            program.get_args([*required, *words])
        dest = how.get("dest", flag.lstrip("-"))
        if how.get("required") or flag in OTHERWISE or dest not in without or flag == "--modes":
            continue
        theirs = how.get("default", False if how.get("action") == "store_true" else None)
        ours = without[dest]
        assert ours == (sys.maxsize if theirs == "sys.maxsize" else theirs), flag


def shipped(wenet_dir: Path) -> list[Path]:
    """The YAMLs of WeNet's recipes; a few hold a part of one only."""
    found = sorted(wenet_dir.glob("examples/*/*/conf/*.yaml"))
    return [p for p in found if "dataset_conf" in (yaml.safe_load(p.read_text(encoding="utf-8")) or {})]


def test_wenet_yamls_load_once_their_model_is_ours(
    wenet_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    paths = shipped(wenet_dir)
    assert len(paths) > 40
    caplog.set_level(logging.INFO)
    for path in paths:
        whole = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "model" in whole:
            with pytest.raises(OsumError, match="model: .* is a model of WeNet's") as e:
                load_config(path)
            assert "\n" not in str(e.value)
        whole = {k: v for k, v in whole.items() if not k.startswith(("predictor", "joint"))}
        whole.pop("input_dim", None)
        whole.update(stage2_config(cmvn=None))
        whole["dataset_conf"]["feats_type"] = "log_mel_spectrogram"
        changed = tmp_path / "changed.yaml"
        changed.write_text(yaml.safe_dump(whole), encoding="utf-8")
        caplog.clear()
        configs = load_config(changed)
        (line,) = caplog.messages
        assert "dataset_conf.shuffle_conf" in line and "dataset_conf.sort_conf" in line, path
        own = whole["dataset_conf"]["filter_conf"]
        assert configs["dataset_conf"]["filter_conf"] == {**DEFAULTS["dataset_conf"]["filter_conf"], **own}


@pytest.fixture(scope="module")
def processor(wenet_dir: Path) -> Iterator[ModuleType]:
    """WeNet's processors, imported here and taken out again: other tests look for a WeNet that is not there."""
    pytest.importorskip("torchaudio", reason="torchaudio is not installed: WeNet's processors need it")
    from wenet_osum.wenet.find import import_wenet

    path = list(sys.path)
    import_wenet()
    yield importlib.import_module("wenet.dataset.processor")
    sys.path[:] = path
    for name in [n for n in sys.modules if n.partition(".")[0] == "wenet"]:
        del sys.modules[name]


def test_wenet_filter_keeps_the_same_utterances(processor: ModuleType):
    rng = random.Random(0)
    kept = 0
    for _ in range(3000):
        rate = rng.choice([8000, 16000, 22050])
        samples = rng.choice([rng.randint(1, 3 * rate), rate * rng.randint(1, 103), rate // 10, rate // 100])
        tokens = rng.choice([0, 1, 2, 199, 200, 201, round(samples * 100 / rate), rng.randint(0, 300)])
        limits = {**DEFAULTS["dataset_conf"]["filter_conf"], "max_output_input_ratio": rng.choice([1, 0.5])}
        sample = {"wav": torch.zeros(1, 1).expand(1, samples), "sample_rate": rate, "label": [0] * tokens}
        try:
            check_answer("a", tokens, check_length("a", samples / rate, limits), limits)
            ours = True
        except BadUtterance:
            ours = False
        assert ours == processor.filter(sample, **limits), (samples, rate, tokens)
        kept += ours
    assert 300 < kept < 2700


@pytest.mark.parametrize(
    "how",
    [{}, {"padding": 5000}, {"pad_or_trim": True, "max_duration": 1}, {"num_mel_bins": 128}, {"n_fft": 512}],
)
@pytest.mark.parametrize("seconds", [0.5, 1.7])
def test_wenet_features_are_ours(processor: ModuleType, how: dict[str, Any], seconds: float):
    wave = 0.1 * np.random.default_rng(0).standard_normal((2, int(16000 * seconds))).astype(np.float32)
    sample = {"key": "a", "wav": torch.from_numpy(wave), "sample_rate": 16000}
    sample = processor.compute_log_mel_spectrogram(processor.singal_channel(sample, 1), **how)
    torch.testing.assert_close(log_mel_spectrogram(wave[1], **how), sample["feat"], atol=1e-4, rtol=0)


def test_wenet_buckets_are_ours(processor: ModuleType):
    """The same utterances together, whatever the order of batches."""
    from torch.utils.data.datapipes.iter import IterableWrapper
    from wenet.dataset.datapipes import BucketBySequenceLengthDataPipe

    bounds, sizes = [100, 300, 700], [8, 4, 2, 1]
    frames = np.random.default_rng(0).integers(20, 700, 400)  # WeNet puts 700 and more into its first bucket
    conf = {"batch_type": "bucket", "bucket_boundaries": bounds, "bucket_batch_sizes": sizes}
    order, cuts = plan_batches(frames, np.ones_like(frames), conf, shuffle=False)
    ours = np.split(order, cuts[1:-1])
    pipe = BucketBySequenceLengthDataPipe(IterableWrapper(frames.tolist()), int, bounds, sizes, list)
    counts = [sorted(len(b) for b in batches) for batches in (ours, list(pipe))]
    assert counts[0] == counts[1]


CHARACTERS = "abcxyzABC 你好今天气 ,.'<>[]{}é"


@pytest.mark.parametrize("symbols", [False, True])
@pytest.mark.parametrize("split_with_space", [False, True])
def test_wenet_characters_have_our_ids(
    wenet_dir: Path, processor: ModuleType, tmp_path: Path, symbols: bool, split_with_space: bool
):
    theirs_cls = importlib.import_module("wenet.text.char_tokenizer").CharTokenizer
    words = ["abc", "{NOISE}", "[LAUGH]", "<SPN>", "你好"]
    units = ["<blank>", "<unk>", "▁", *dict.fromkeys("abcxyABC你好今天,.'<>[]{}"), *words, "<sos/eos>"]
    (tmp_path / "units.txt").write_text("".join(f"{u} {i}\n" for i, u in enumerate(units)), encoding="utf-8")
    (tmp_path / "symbols.txt").write_text("{NOISE}\n[LAUGH]\n<SPN>\n", encoding="utf-8")
    non_lang = str(tmp_path / "symbols.txt") if symbols else None
    theirs = theirs_cls(str(tmp_path / "units.txt"), non_lang, split_with_space)
    ours = CharTokenizer(str(tmp_path / "units.txt"), non_lang, split_with_space)
    rng = random.Random(0)
    for _ in range(200):
        pieces = [*CHARACTERS, *(["{noise}", "[LAUGH]", "<SPN>", " "] if symbols else ["  "])]
        # An empty text has no ids here; WeNet's split_with_space gives it one <unk>.
        text = "".join(rng.choices(pieces, k=rng.randint(1, 30))).strip() or "abc"
        assert ours.encode(text) == theirs.tokens2ids(theirs.text2tokens(text)), text
    assert ours.vocab_size() == theirs.vocab_size() and ours.symbol_table == theirs.symbol_table
