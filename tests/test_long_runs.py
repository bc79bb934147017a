"""Every command and YAML of docs/long-runs.md is run, on a corpus of seconds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import command, write_corpus, write_units, write_wav
from test_readme import shell

from wenet_osum.bin import make_shard_list
from wenet_osum.config import check_config, load_config
from wenet_osum.train.phases import Phases
from wenet_osum.train.state import whole_states

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/long-runs.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's commands find its ``conf`` and ``data``: the demo's model with a character tokenizer."""
    here = tmp_path_factory.mktemp("long")
    for name, count, first in (("train", 8, 0), ("dev", 4, 8)):
        raw = write_corpus(here / "data" / name, count, first)
        (here / "data" / name / "wav.scp").write_text(
            "".join(f"{(s := json.loads(line))['key']} {s['wav']}\n" for line in raw.read_text().splitlines())
        )
        (here / "data" / name / "text").write_text(
            "".join(
                f"{(s := json.loads(line))['key']} {s['txt']}\n" for line in raw.read_text().splitlines()
            ),
            encoding="utf-8",
        )
        args = ["--data_dir", here / "data" / name, here / "data" / name / "shards", raw]
        assert command(make_shard_list.main, *args) == 0
    config = yaml.safe_load((ROOT / "conf/tiny.yaml").read_text(encoding="utf-8"))
    units = {"symbol_table_path": str(write_units(here / "units.txt"))}
    config.update(tokenizer="char", tokenizer_conf=units, max_epoch=1, ctc="none", ctc_conf={})
    config["dataset_conf"].update(task_weights={"asr": 1}, prompt_conf={"style": "tag"})
    (here / "conf").mkdir()
    (here / "conf/tiny.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    (here / "combine.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    return here


def test_long_runs_page_has_these_blocks():
    assert (len(blocks("bash")), len(blocks("yaml"))) == (6, 3)


@pytest.mark.slow
@pytest.mark.integration
def test_long_runs_resume_and_mixing(folder: Path):
    first, mixed, *_ = blocks("bash")
    shell(first, folder)
    assert len(list(whole_states(folder / "exp/long"))) == 1
    stamp = (folder / "exp/long/epoch_0.pt").stat().st_mtime_ns
    shell(first, folder)  # it is at its end
    assert (folder / "exp/long/epoch_0.pt").stat().st_mtime_ns == stamp
    shell(mixed, folder)
    assert (folder / "exp/mixed/final.pt").is_file()


@pytest.mark.slow
@pytest.mark.integration
def test_long_runs_tune_batch(folder: Path):
    assert "max_frames_in_batch" in shell(blocks("bash")[2], folder)
    assert load_config(folder / "tuned.yaml")["dataset_conf"]["batch_conf"]["max_frames_in_batch"] >= 1500


@pytest.mark.slow
@pytest.mark.integration
def test_long_runs_fsdp(folder: Path):
    shell(blocks("bash")[3], folder)
    assert (folder / "exp/fsdp/final.pt").is_file()
    shell(blocks("bash")[5], folder)
    assert len((folder / "exp/fsdp/decode/llm_greedy/text").read_text(encoding="utf-8").splitlines()) == 4


@pytest.mark.slow
@pytest.mark.integration
def test_long_runs_two_machines(folder: Path):
    """Two agents of torchrun that find each other by the rendezvous, as on two machines."""
    line = blocks("bash")[4].replace("torchrun", f"{sys.executable} -m torch.distributed.run")
    line = line.replace("29411", "29511") + " --device cpu --num_threads 1"
    line = line.replace("\\\n", " ").replace("\n", " ")
    agents = [
        subprocess.Popen(
            ["bash", "-c", f"PYTHONPATH={ROOT} OMP_NUM_THREADS=1 {line}"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    out = [agent.communicate(timeout=240)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], "\n".join(out)[-3000:]
    facts = json.loads((next(whole_states(folder / "exp/nodes")) / "state.json").read_text())
    assert facts["world_size"] == 2


def test_long_runs_yaml(tmp_path: Path):
    from helpers import build, stage2_config

    augment, learn = (yaml.safe_load(block) for block in blocks("yaml")[1:])
    config = check_config(augment, "page")["dataset_conf"]
    assert config["add_noise_conf"] == {"list": "noises.list", "prob": 0.5, "snr": [5, 20]}
    config = check_config(learn, "page")
    model = build(stage2_config(decoder_conf={**stage2_config()["decoder_conf"], "lora": {}}))
    assert Phases(config["phases"], model).at(6000) == 2
    assert config["cv_decode_conf"]["utterances"] == 64 and config["health_conf"]["max_bad_steps"] == 10
    for name in ("rirs", "noises"):
        wav = write_wav(tmp_path / f"{name}.wav", 0.2)
        (tmp_path / f"{name}.list").write_text(json.dumps({"key": "a", "wav": str(wav), "txt": ""}) + "\n")
    from wenet_osum.dataset.augment import Augmentation

    here = {
        n: {**augment["dataset_conf"][n], "list": str(tmp_path / f"{f}.list")}
        for n, f in (("add_reverb_conf", "rirs"), ("add_noise_conf", "noises"))
    }
    Augmentation({**check_config(augment, "page")["dataset_conf"], **here})
