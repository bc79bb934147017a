"""Every command of the README is run: here, or (make demo, make test) by .ci/run itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import osum_reference
import pytest
import soundfile as sf
import torch
import yaml

from wenet_osum.config import load_config
from wenet_osum.tasks import load_tasks

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def make_data_dir(path: Path, first: int, count: int) -> None:
    """A Kaldi data dir of noise with every label file; one recording is an mp3, one a stereo wav at 22.05 kHz."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(first)
    tables: dict[str, list[str]] = {}
    for n in range(first, first + count):
        key, speaker = f"spk{n % 3}-u{n:03d}", f"spk{n % 3}"
        rate = 22050 if n % 3 == 1 else 16000
        wave = 0.1 * rng.standard_normal(rate).astype(np.float32)
        name = f"{key}.{'mp3' if n % 3 == 2 else 'wav'}"
        sf.write(path / name, np.stack([wave, wave], 1) if n % 3 == 1 else wave, rate)
        chinese = n % 2
        for file, value in {
            "wav.scp": name if n % 4 else f"cat {path / name} |",
            "text": "小狗 跑" if chinese else "the dog runs",
            "utt2spk": speaker,
            "utt2emotion": ("happy", "sad")[n % 2],
            "utt2style": ("新闻科普", "客服")[n % 2],
            "utt2event": ("laugh", "cough")[n % 2],
            "utt2gender": "mf"[n % 2],
            "utt2age": ("child", "70")[n % 2],
            "utt2reply": "好" if chinese else "yes",
        }.items():
            tables.setdefault(file, []).append(f"{key} {value}")
        words = ["小", "狗", "跑"] if chinese else ["the", "dog", "runs"]
        tables.setdefault("ctm", []).extend(
            f"{key} 1 {0.1 + 0.2 * i:.2f} 0.20 {w}" for i, w in enumerate(words)
        )
    for file, lines in tables.items():
        (path / file).write_text("".join(f"{line}\n" for line in sorted(lines, key=lambda x: x.split()[0])))


def shell(commands: str, folder: Path) -> str:
    bin_dir = str(Path(sys.executable).parent)
    env = {
        **os.environ,
        "PATH": f"{bin_dir}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_make_targets_are_run_by_ci():
    ci = (ROOT / ".ci/run").read_text()
    assert blocks("bash")[0].split("\n")[:2] == ["make demo", "make test"]
    assert re.search("^make demo", ci, re.M) and re.search("^make test", ci, re.M)


@pytest.mark.slow
@pytest.mark.integration
def test_commands_for_own_data(tmp_path):
    for split, first, count in (("train", 0, 12), ("dev", 12, 3), ("test", 15, 6)):
        make_data_dir(tmp_path / "my_data" / split, first, count)
    recipe = tmp_path / "examples/osum"
    recipe.mkdir(parents=True)
    for name in ("run.sh", "path.sh", "parse_options.sh", "stoppable.sh"):
        (recipe / name).symlink_to(ROOT / "examples/osum" / name)
    for name in ("conf", "local"):
        (recipe / name).symlink_to(ROOT / name)
    commands = blocks("bash")[1:]
    assert len(commands) == 5
    out = shell(commands[0], tmp_path)
    assert "0 faults" in out
    scores = yaml.safe_load((recipe / "exp/my_data/scores.json").read_text())
    assert list(scores) == ["asr", "srwt", "ved", "ser", "ssr", "sgc", "sap", "sttc"]
    assert all(s["counts"]["utterances"] == 6 and s["counts"]["missing"] == 0 for s in scores.values())
    assert "exp/my_data/report.html" in out and (recipe / "exp/my_data/report.html").is_file()
    shell(commands[1], tmp_path)
    decoded = recipe / "exp/my_data/decode_test/asr/llm_greedy/text"
    assert len(decoded.read_text().splitlines()) == 6
    assert len(shell(commands[2], tmp_path).splitlines()) >= 6
    assert len(shell(commands[3], tmp_path).splitlines()) == 12


@pytest.mark.slow
@pytest.mark.integration
def test_commands_for_real_models(tmp_path, hf_folder, monkeypatch):
    """On a tiny file in the release's layout; of the released model only the end id's number differs."""
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    make_data_dir(tmp_path / "my_data/test", 0, 3)
    shutil.copytree(hf_folder, tmp_path / "Qwen2-7B")
    monkeypatch.setitem(osum_reference.LLM, "vocab_size", 300)
    (tmp_path / "Qwen2-7B/config.json").write_text(json.dumps(osum_reference.LLM))
    torch.save(osum_reference.release_state(), tmp_path / "infer.pt")
    lines = blocks("bash")[5].replace("--llm-config", "--eos-id 256 --llm-config")
    out = shell("osum make_raw_list --data_dir my_data/test test.list\n" + lines, tmp_path)
    assert "402" in out and "8.02" in out
    assert len((tmp_path / "decode/osum/llm_greedy/text").read_text().splitlines()) == 3
    assert (tmp_path / "osum_hf/config.json").is_file()


def test_yaml_of_a_larger_model(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(blocks("yaml")[0])
    assert load_config(path)["decoder_conf"] == {"llm": "Qwen/Qwen2-7B", "lora": {}}


def test_yaml_of_a_ninth_task(tmp_path):
    path = tmp_path / "accent.yaml"
    path.write_text(blocks("yaml")[1], encoding="utf-8")
    task = load_tasks(path)["accent"]
    sample = {"key": "a", "txt": "hi there", "accent": "north"}
    assert task.compose(task.answer_of(sample)) == "hi there<north>"
