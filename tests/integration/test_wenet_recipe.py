"""A recipe of WeNet's, AISHELL's ``run.sh``, on our ``bin/``: script paths and the config changed, nothing else."""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from helpers import RATE, stage2_config

from wenet_osum.config import load_config
from wenet_osum.registry import ENCODERS, load_models

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "docs" / "from-wenet.md").read_text(encoding="utf-8")
SED, RUN, OWN = re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)
WORDS = ["今天 天气 好", "打开 门", "一 二 三", "好 天气", "门 打开 一 二"]
COUNTS = {"train": 30, "dev": 6, "test": 6}


def write_kaldi_dir(folder: Path, count: int) -> None:
    """``wav.scp`` and ``text`` of tones: each character has its own pitch."""
    folder.mkdir(parents=True)
    pitches = {c: 200 + 90 * i for i, c in enumerate(sorted(set("".join(WORDS)) - {" "}))}
    scp, text = [], []
    for i in range(count):
        words = WORDS[i % len(WORDS)]
        t = np.arange(RATE // 6) / RATE
        wave = np.concatenate([0.3 * np.sin(2 * np.pi * pitches[c] * t) for c in words.replace(" ", "")])
        wave += 0.01 * np.random.default_rng(i).standard_normal(len(wave))
        path = folder / f"u{i:02}.wav"
        soundfile.write(path, wave, RATE, subtype="PCM_16")
        scp.append(f"u{i:02} {path}\n")
        text.append(f"u{i:02} {words}\n")
    (folder / "wav.scp").write_text("".join(scp), encoding="utf-8")
    (folder / "text").write_text("".join(text), encoding="utf-8")


def write_config(wenet_dir: Path, path: Path) -> None:
    """The recipe's own YAML with the parts of the model changed, tiny, and the features."""
    stock = wenet_dir / "examples" / "aishell" / "s0" / "conf" / "train_conformer.yaml"
    config: dict[str, Any] = yaml.safe_load(stock.read_text(encoding="utf-8"))
    config.update(stage2_config(cmvn=None, max_epoch=3, accum_grad=1, log_interval=5))
    config["dataset_conf"]["feats_type"] = "log_mel_spectrogram"
    config["model_conf"]["ctc_weight"] = 0.3
    config["scheduler_conf"]["warmup_steps"] = 5
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")


def environment() -> dict[str, str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    env["PYTHONPATH"] = f"{REPO}{os.pathsep}{env.get('PYTHONPATH', '')}"
    return env


def shell(commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-euo", "pipefail", "-c", commands]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
    return done


def copy_run_sh(wenet_dir: Path, recipe: str, folder: Path) -> None:
    """A copy of a recipe's folder with some lines of run.sh changed: fewer than ten in the diff."""
    folder.mkdir(parents=True)
    for name in ("tools", "wenet"):
        (folder / name).symlink_to(wenet_dir / name)
    stock = wenet_dir / "examples" / "aishell" / recipe
    (folder / "path.sh").symlink_to(stock / "path.sh")
    before = (stock / "run.sh").read_text(encoding="utf-8").splitlines()
    shutil.copyfile(stock / "run.sh", folder / "run.sh")
    shell(SED, folder)
    after = (folder / "run.sh").read_text(encoding="utf-8").splitlines()
    diff = list(difflib.unified_diff(before, after, "theirs", "ours", "", "", 0, ""))
    print("\n".join(diff))
    changed = [line for line in diff if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert len(changed) == (8 if recipe == "s0" else 6)
    write_config(wenet_dir, folder / "conf" / "osum.yaml")


@pytest.fixture(scope="module")
def recipe(wenet_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AISHELL's s0 in a tree of WeNet's shape, with data dirs as its stage 0 leaves them."""
    if importlib.util.find_spec("torchaudio") is None:
        pytest.skip("torchaudio is not installed: WeNet's tools/compute_cmvn_stats.py needs it")
    root = tmp_path_factory.mktemp("checkout")
    for name in ("tools", "wenet"):
        (root / name).symlink_to(wenet_dir / name)
    folder = root / "examples" / "aishell" / "s0"
    copy_run_sh(wenet_dir, "s0", folder)
    for name, count in COUNTS.items():
        write_kaldi_dir(folder / "data" / name, count)
    return folder


@pytest.mark.slow
@pytest.mark.integration
def test_wenet_recipe_runs_on_our_programs(recipe: Path):
    modes = ["llm_greedy", "ctc_greedy_search"]
    assert RUN.rstrip().endswith("llm_greedy")
    done = shell(RUN.replace("llm_greedy", f'"{" ".join(modes)}"'), recipe)
    told = done.stderr.splitlines()
    idle = "--deepspeed_config, --deepspeed.save_states, --pin_memory"
    import torch

    if not torch.cuda.is_available():
        assert f"no effect here: {idle}" in told
        assert "torch sees no CUDA device: this runs on the CPU" in told
    assert "no effect here: --blank_penalty, --ctc_weight, --reverse_weight" in told
    (keys,) = {line for line in told if line.startswith("conf/osum.yaml: no effect here: ")}
    assert all(k in keys for k in ("cmvn_conf", "dataset_conf.shuffle_conf", "dataset_conf.fbank_conf"))

    data, exp = recipe / "data", recipe / "exp" / "osum"
    assert json.loads((data / "train" / "global_cmvn").read_text())["frame_num"] > 0
    units = (data / "dict" / "lang_char.txt").read_text(encoding="utf-8").splitlines()
    assert len(units) == 3 + len(set("".join(WORDS)) - {" "})
    assert len((data / "train" / "data.list").read_text().splitlines()) == COUNTS["train"]

    tags = ["init", "epoch_0", "epoch_1", "epoch_2"]
    files = {*(f"{t}.{end}" for t in tags for end in ("pt", "yaml")), "train.yaml", "final.pt", "avg_2.pt"}
    files |= {"log.jsonl", ".lock"}
    files.add("decode.skipped.jsonl")  # not training's
    assert {p.name for p in exp.iterdir() if p.is_file()} == files
    losses = [yaml.safe_load((exp / f"epoch_{n}.yaml").read_text())["loss_dict"]["loss"] for n in range(3)]
    assert losses[2] < losses[0]
    assert list((recipe / "tensorboard" / "osum").glob("events*"))
    for mode in modes:
        lines = (exp / mode / "text").read_text(encoding="utf-8").splitlines()
        assert [line.split(" ")[0] for line in lines] == [f"u{i:02}" for i in range(COUNTS["test"])]
        assert "Overall -> " in (exp / mode / "wer").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.integration
def test_wenet_whisper_recipe_runs_on_our_programs(wenet_dir: Path, recipe: Path):
    """After s0, whose data it takes."""
    folder = recipe.parent / "whisper"
    copy_run_sh(wenet_dir, "whisper", folder)
    (folder / "data").symlink_to("../s0/data")
    (besides,) = re.findall(r"The whisper recipe takes `(.*?)` besides", PAGE)
    options = f"{besides} --stop_stage 2 --data_type raw"
    shell(RUN.rstrip().replace("--stage 1", "--stage 0") + f" {options}", folder)
    (decoded,) = (folder / "exp" / "osum").glob("avg_2.pt_chunk-1_ctc0.3_reverse0.0/llm_greedy")
    assert len((decoded / "text").read_text(encoding="utf-8").splitlines()) == COUNTS["test"]
    assert "Overall -> " in (decoded / "wer").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.integration
def test_wenet_page_commands_for_its_own_programs(recipe: Path):
    """After s0's stages, in its folder."""
    shell(f"set +u; . ./path.sh; set -u; {OWN}", recipe)
    lines = (recipe / "exp" / "wenet" / "llm_greedy" / "text").read_text(encoding="utf-8").splitlines()
    assert sorted(line.split(" ")[0] for line in lines) == [f"u{i:02}" for i in range(COUNTS["test"])]


def test_wenet_page_yaml_over_a_recipes_own(wenet_dir: Path, tmp_path: Path):
    """At its real size; weights are not looked at."""
    stock = wenet_dir / "examples" / "aishell" / "s0" / "conf" / "train_conformer.yaml"
    config = yaml.safe_load(stock.read_text(encoding="utf-8"))
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    config.update(yaml.safe_load(block))
    config["dataset_conf"].update(yaml.safe_load(re.findall(r"`(feats_type: .*?)`", PAGE)[0]))
    (tmp_path / "osum.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    configs = load_config(tmp_path / "osum.yaml")
    assert configs["decoder_conf"]["llm"] == "Qwen/Qwen2-0.5B" and configs["max_epoch"] == 240
    load_models()
    ENCODERS.build(configs["encoder"], 80, conf={**configs["encoder_conf"], "num_blocks": 1})
