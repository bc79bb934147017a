"""On the same list and config, our loader and WeNet's processors: the same utterances, the same features."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers import run_config, stage2_config, write_units

# Read in a process of its own: WeNet is imported there.
BOTH = """
import sys, torch, yaml
from wenet_osum import register
from wenet_osum.checkpoint.assemble import load_table, prepare_configs
from wenet_osum.config import load_config
from wenet_osum.dataset.dataset import OsumDataset
from wenet_osum.dataset.index_build import build_index
from wenet_osum.dataset.loader import Loader
from wenet_osum.text import init_tokenizer

config, data_list, data_type, out = sys.argv[1:]
configs = load_config(config)
tokenizer = init_tokenizer(configs)
prepare_configs(configs, tokenizer)
table, conf = load_table(configs), configs["dataset_conf"]
index = build_index(data_list, data_type, table, tokenizer.encode, conf)
loader = Loader(OsumDataset(index, table, tokenizer, conf, 777, train=False))
loader.plan(0)

def rows(batches):
    found = {}
    for batch in batches:
        for i, key in enumerate(batch["keys"]):
            length = int(batch["feats_lengths"][i])
            target = batch["target"][i]
            found[key] = (batch["feats"][i, :length].clone(), target[target >= 0].tolist(), batch["tasks"][i])
    return found

ours = rows(loader)
register()
from wenet.utils.init_dataset import init_dataset
from wenet.utils.init_tokenizer import init_tokenizer as theirs_tokenizer

theirs_configs = yaml.safe_load(open(config))
tokenizer = theirs_tokenizer(theirs_configs)
theirs = rows(init_dataset("asr", data_type, data_list, tokenizer, theirs_configs["dataset_conf"], False, "cv"))
torch.save({"ours": ours, "theirs": theirs}, out)
"""


def write_list(folder: Path) -> Path:
    """Recordings of several rates, codings and channels; some that the filter is to take out."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []

    def add(key: str, seconds: float, text: str, rate: int = 16000, channels: int = 1, suffix: str = "wav"):
        n = round(seconds * rate)
        tone = np.sin(2 * np.pi * 300 * np.arange(n)[:, None] / rate) * 0.3
        path = folder / f"{key}.{suffix}"
        soundfile.write(path, tone + 0.1 * rng.standard_normal((n, channels)), rate)
        rows.append({"key": key, "wav": str(path), "txt": text, "task": "<TRANSCRIBE>", "lang": "en"})

    for i, rate in enumerate((8000, 11025, 16000, 22050, 44100, 48000)):
        add(f"rate{rate}", 0.7 + 0.13 * i, "good morning", rate)
    add("stereo", 1.0, "open the door", 44100, channels=2)
    add("flac", 1.1, "open the door", 16000, suffix="flac")
    add("ogg", 1.2, "no", 16000, suffix="ogg")
    for tens in (9, 10, 11):  # around min_length, in 10 ms frames
        add(f"short{tens}", tens / 100, "no")
    add("exactly_short", 0.09995, "no")
    add("long", 3.01, "no")
    add("just_long_enough", 3.0, "no")
    add("wordy", 0.5, "where is my blue hat " * 3)  # over token_max_length
    add("dense", 0.2, "where is my hat no no no")  # over max_output_input_ratio
    add("silent", 2.5, "")
    add("sparse", 2.6, "n")  # under min_output_input_ratio
    (folder / "data.list").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return folder / "data.list"


@pytest.mark.integration
@pytest.mark.parametrize("data_type", ["raw", "shard"])
def test_wenet_features_and_filter_are_ours(
    data_type: str, tmp_path: Path, python: Callable[..., Any], wenet_dir: Path
):
    data = write_list(tmp_path)
    if data_type == "shard":
        from wenet_osum.dataset.lists import read_raw_list
        from wenet_osum.dataset.shards import write_shards

        tars = tmp_path / "shards.list"
        write_shards((s for _, s in read_raw_list(data)), tmp_path / "shards", tars, num_utts_per_shard=7)
        data = tars
    write_units(tmp_path / "units.txt")
    limits = {"max_length": 300, "token_max_length": 60, "min_output_input_ratio": 0.005}
    config = run_config(
        tmp_path,
        stage2_config(),
        dataset_conf={
            "filter_conf": limits,
            "batch_conf": {"batch_type": "static", "batch_size": 4},
            "spec_aug": False,
        },
    )
    (tmp_path / "both.py").write_text(BOTH, encoding="utf-8")
    python(tmp_path / "both.py", config, data, data_type, tmp_path / "rows.pt")
    found = torch.load(tmp_path / "rows.pt")
    ours, theirs = found["ours"], found["theirs"]
    gone = {"short9", "exactly_short", "long", "wordy", "dense", "silent", "sparse"}
    assert set(ours) == set(theirs)
    assert gone.isdisjoint(ours) and len(ours) == 12
    for key, (feats, target, task) in ours.items():
        torch.testing.assert_close(feats, theirs[key][0], atol=1e-4, rtol=0)
        assert (target, task) == theirs[key][1:]


@pytest.mark.integration
@pytest.mark.parametrize(("name", "data_type"), [("data.list", "raw"), ("data.shards.list", "shard")])
def test_wenet_test_data_goes_through_both_loaders(
    name: str, data_type: str, tmp_path: Path, python: Callable[..., Any], wenet_dir: Path
):
    units = sorted(set("".join(map(chr, range(32, 127)))) - {" "})
    config = run_config(tmp_path, stage2_config(), dataset_conf={"batch_conf": {"batch_type": "static"}})
    table = ["<blank>", "<unk>", "<sos/eos>", "▁", *units]
    (tmp_path / "units.txt").write_text("".join(f"{u} {i}\n" for i, u in enumerate(table)), encoding="utf-8")
    (tmp_path / "both.py").write_text(BOTH, encoding="utf-8")
    data = wenet_dir / "test/resources/dataset" / name
    python(tmp_path / "both.py", config, data, data_type, tmp_path / "rows.pt", cwd=wenet_dir)
    found = torch.load(tmp_path / "rows.pt")
    assert len(found["ours"]) == len(found["theirs"]) > 0
    for key, (feats, target, _) in found["ours"].items():
        torch.testing.assert_close(feats, found["theirs"][key][0], atol=1e-4, rtol=0)
        assert target == found["theirs"][key][1]
