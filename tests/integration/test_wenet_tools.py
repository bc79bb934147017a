"""WeNet's tools on our files and ours on theirs: lists, shards, averaging, its shipped test data."""

from __future__ import annotations

import ast
import copy
import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
import yaml
from helpers import build, stage2_config, write_units, write_wav

from wenet_osum.bin import average_model, make_raw_list, make_shard_list
from wenet_osum.checkpoint.weights import save_checkpoint
from wenet_osum.config import DATASET_DEFAULTS
from wenet_osum.dataset.audio import load_audio
from wenet_osum.dataset.dataset import OsumDataset
from wenet_osum.dataset.index_build import build_index
from wenet_osum.dataset.lists import read_raw_list
from wenet_osum.dataset.loader import Loader
from wenet_osum.dataset.shard_reader import read_shard, read_tar_list
from wenet_osum.tasks import load_tasks
from wenet_osum.text import CharTokenizer

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("wenet_dir")]
needs_torchaudio = pytest.mark.skipif(
    importlib.util.find_spec("torchaudio") is None, reason="torchaudio is not installed, which WeNet needs"
)
MENDED = ("-m", "wenet_osum.wenet")
TEXTS = {"b1": "你好 world", "a.2": "IT'S OK", "c3": "", "d4": "三 四", "e5": "five"}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """wav.scp, text, and, for two long recordings, rec.scp and segments; the current folder is theirs."""
    (tmp_path / "wav").mkdir()
    for n, key in enumerate(TEXTS):
        write_wav(tmp_path / f"wav/{key}.wav", 0.4 + 0.1 * n, seed=n)
    files = {
        "wav.scp": "".join(f"{key} wav/{key}.wav\n" for key in sorted(TEXTS)),
        "text": "".join(f"{key} {text}\n" for key, text in TEXTS.items()),
        "rec.scp": "r1 wav/d4.wav\nr2 wav/e5.wav\n",
        "segments": "a.2 r2 0.1 0.45\nb1 r1 0 0.3\nc3 r1 0.30 0.5\nd4 r2 0.5 0.8\ne5 r2 0.25 0.50\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_of(segments: bool) -> list[str]:
    return ["--segments", "segments", "rec.scp", "text"] if segments else ["wav.scp", "text"]


@pytest.mark.parametrize("segments", [False, True])
def test_wenet_raw_lists_are_the_same(corpus: Path, wenet_dir: Path, python: Run, segments: bool) -> None:
    python(wenet_dir / "tools/make_raw_list.py", *files_of(segments), "theirs.list")
    make_raw_list.main([*files_of(segments), "ours.list"])
    theirs = [sample for _, sample in read_raw_list("theirs.list")]
    assert theirs == [sample for _, sample in read_raw_list("ours.list")]
    assert {s["key"]: s["txt"] for s in theirs} == TEXTS
    lines = [(corpus / f"{name}.list").read_text(encoding="utf-8") for name in ("theirs", "ours")]
    assert lines[0] == lines[1]


def flags_of(script: Path) -> tuple[dict[str, Any], list[str]]:
    """Flags with their defaults, and positional arguments, as a script's source gives them to argparse."""
    flags, positional = {}, []
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            (name,) = (ast.literal_eval(arg) for arg in node.args)
            default = {k.arg: k.value for k in node.keywords}.get("default")
            if name.startswith("--"):
                flags[name[2:]] = ast.literal_eval(default) if default else None
            else:
                positional.append(name)
    return flags, positional


@pytest.mark.parametrize("tool", [make_raw_list, make_shard_list])
def test_wenet_flags_defaults_and_arguments_are_taken(wenet_dir: Path, tool: Any) -> None:
    flags, positional = flags_of(wenet_dir / f"tools/{tool.__name__.rpartition('.')[2]}.py")
    assert "segments" in flags and "wav_file" in positional
    ours = vars(tool.get_args(positional))
    assert {name: ours[name] for name in flags} == flags
    assert ours["paths"] == positional
    given = {name: "7" if isinstance(default, int) else "x" for name, default in flags.items()}
    ours = vars(tool.get_args([f"--{name}={value}" for name, value in given.items()] + positional))
    assert {name: str(ours[name]) for name in flags} == given


@needs_torchaudio
@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("flags", [[], ["--num_utts_per_shard", "2", "--prefix", "x", "--num_threads", "2"]])
def test_wenet_shards_are_read_and_named_as_ours(
    corpus: Path, wenet_dir: Path, python: Run, segments: bool, flags: list[str]
) -> None:
    args = [*flags, *files_of(segments)]
    python(*MENDED, wenet_dir / "tools/make_shard_list.py", *args, "./theirs/", "theirs.list")
    make_shard_list.main([*args, "./ours/", "ours.list"])
    theirs, ours = ([tar for _, tar in read_tar_list(f"{name}.list")] for name in ("theirs", "ours"))
    assert [tar.replace("theirs/", "ours/") for tar in theirs] == ours
    assert len(ours) == (3 if flags else 1)
    samples = [sample for tar in theirs for sample in read_shard(tar)]
    assert [(s["key"], s["txt"]) for s in samples] == list(TEXTS.items())
    for sample, own in zip(samples, (s for tar in ours for s in read_shard(tar)), strict=True):
        one, other = load_audio(sample.pop("wav")), load_audio(own.pop("wav"))
        assert abs(len(one) - len(other)) <= 1  # where a segment's end falls between two samples
        n = min(len(one), len(other))
        assert np.abs(one[:n] - other[:n]).max() <= 2 / 32768
        assert sample == own


@needs_torchaudio
def test_wenet_reads_our_shards(corpus: Path, python: Run) -> None:
    for name in ("segments", "rec.scp"):
        (corpus / name).unlink()
    (corpus / "utt2emotion").write_text("b1 happy\n")
    for shard_type in ("shard", "shard_full_data"):
        make_shard_list.main(
            ["--data_dir", ".", "--shard_type", shard_type, shard_type, f"{shard_type}.list"]
        )
    (corpus / "read.py").write_text(
        "import json, sys\n"
        "from wenet.dataset.datapipes import WenetTarShardDatasetSource\n"
        "for path in sys.argv[1:]:\n"
        "    for s in WenetTarShardDatasetSource(path):\n"
        "        print(json.dumps([s['key'], s['txt'], len(s['wav']), s.get('emotion', b'').decode()]))\n"
    )
    for shard_type in ("shard", "shard_full_data"):
        out = python(*MENDED, corpus / "read.py", f"{shard_type}.list").stdout
        rows = [json.loads(line) for line in out.splitlines() if line.startswith("[")]
        assert {key: txt for key, txt, *_ in rows} == TEXTS
        assert [size for *_, size, _ in rows] == [
            (corpus / f"wav/{key}.wav").stat().st_size for key, *_ in rows
        ]
        assert {key for key, *_, emotion in rows if emotion} == (
            {"b1"} if shard_type == "shard_full_data" else set()
        )


LOSSES = {"epoch_0": 3.0, "epoch_1": 1.5, "epoch_2": 2.0, "step_19": 1.0}


@pytest.mark.parametrize("writer", ["ours", "wenet's"])
@pytest.mark.parametrize("flags", [["--val_best", "--num", "3"], ["--num", "4"]])
def test_wenet_averages_as_we_do(
    tmp_path: Path, wenet_dir: Path, python: Run, writer: str, flags: list[str]
) -> None:
    for step, (tag, loss) in enumerate(LOSSES.items(), 5):
        model = build(stage2_config(), seed=step)
        facts = {"epoch": step - 5, "step": step, "tag": tag, "loss_dict": {"loss": loss, "acc": 0.5}}
        if writer == "ours":
            save_checkpoint(model, tmp_path / f"{tag}.pt", facts)
        else:  # its yaml holds the whole config beside these
            torch.save(model.state_dict(), tmp_path / f"{tag}.pt")
            facts = {**stage2_config(), **facts, "lrs": [0.001], "save_time": "23/11/2026 20:00:00"}
            (tmp_path / f"{tag}.yaml").write_text(yaml.dump(facts))
    (tmp_path / "train.yaml").write_text("model: osum\n")
    args = ["--src_path", str(tmp_path), *flags, "--dst_model"]
    average_model.main([*args, str(tmp_path / "our_mean.bin")])
    python(wenet_dir / "wenet/bin/average_model.py", *args, tmp_path / "their_mean.bin")
    ours, theirs = (torch.load(tmp_path / f"{whose}_mean.bin") for whose in ("our", "their"))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name].to(tensor.dtype), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "data_type"), [("data.list", "raw"), ("data.shards.list", "shard")])
def test_wenet_shipped_test_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wenet_dir: Path, name: str, data_type: str
) -> None:
    monkeypatch.chdir(wenet_dir)  # its lists name files from there
    shipped = Path("test/resources/dataset")
    texts = dict(line.split(" ", 1) for line in (shipped / "text").read_text("utf-8").splitlines())
    tokenizer = CharTokenizer(write_units(tmp_path / "units.txt"))
    conf, table = copy.deepcopy(DATASET_DEFAULTS), load_tasks()
    index = build_index(shipped / name, data_type, table, tokenizer.encode, conf)
    assert index.skipped == []
    assert {s["key"]: s["txt"] for s in index.samples} == {k: v.strip() for k, v in texts.items()}
    loader = Loader(OsumDataset(index, table, tokenizer, conf, 0, train=False))
    loader.plan(0)
    seen = {}
    for batch in loader:
        assert batch["skipped"] == [] and torch.isfinite(batch["feats"]).all()
        for key, feats, frames in zip(batch["keys"], batch["feats"], batch["feats_lengths"], strict=True):
            seen[key] = feats[:frames]
    for key, feats in seen.items():
        assert feats.shape == (sf.info(f"{key}.wav").frames // 160, 80)
        assert feats.std() > 0.1
    assert seen.keys() == texts.keys()
