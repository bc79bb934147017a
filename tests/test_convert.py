"""Model folders: written from our checkpoints, read by the other commands, merged, moved."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import (
    command,
    one_error_line,
    random_batch,
    run_config,
    stage1_config,
    stage2_config,
    write_corpus,
)

from wenet_osum.bin import convert, recognize, train
from wenet_osum.checkpoint.folder import take_files
from wenet_osum.checkpoint.lora import write_lora
from wenet_osum.checkpoint.weights import load_checkpoint, read_state, save_checkpoint
from wenet_osum.config import load_config, save_config
from wenet_osum.errors import OsumError
from wenet_osum.registry import init_model
from wenet_osum.text import init_tokenizer

DEVICE = torch.device("cpu")


def trained(folder: Path, config: dict[str, Any], seed: int = 0) -> Any:
    """A random model of a config, saved as training does: ``final.pt`` and ``train.yaml``."""
    configs = load_config(run_config(folder, config))
    configs.update(vocab_size=60, output_dim=60)
    configs["tokenizer_conf"]["special_tokens"] = {"eos": 2, "sos": 1}
    save_config(configs, folder / "train.yaml")
    torch.manual_seed(seed)
    model = init_model(configs).eval()
    for p in model.decoder.lora_parameters():
        p.data.normal_(std=0.3)
    save_checkpoint(model, folder / "final.pt", {})
    return model


def loaded(folder: Path) -> Any:
    model = init_model(convert.read_config(str(folder))).eval()
    load_checkpoint(model, folder)
    return model


@torch.no_grad()
def loss(model: Any) -> float:
    return float(model(random_batch([40, 61]), DEVICE)["loss"])


def configs(llm_folder: Path) -> dict[str, dict[str, Any]]:
    with_ctc = {**stage2_config()["model_conf"], "ctc_weight": 0.3}
    tied = {**stage2_config()["decoder_conf"]["llm_config"], "tie_word_embeddings": True}
    return {
        "random LLM": stage2_config(model_conf=with_ctc),
        "tied random LLM": stage2_config(decoder_conf={"llm_config": tied}),
        "random LLM under LoRA": stage2_config(
            decoder_conf={**stage2_config()["decoder_conf"], "lora": {"r": 2}}
        ),
        "LLM elsewhere under LoRA": stage2_config(decoder_conf={"llm": str(llm_folder), "lora": {"r": 2}}),
    }


@pytest.mark.parametrize(
    "name", ["random LLM", "tied random LLM", "random LLM under LoRA", "LLM elsewhere under LoRA"]
)
def test_from_train_and_back(tmp_path: Path, llm_folder: Path, monkeypatch, name: str):
    monkeypatch.chdir(tmp_path)
    model = trained(tmp_path, configs(llm_folder)[name])
    convert.main(["--from", "train", "final.pt", "model"])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model").rename(tmp_path / "elsewhere" / "model")
    (tmp_path / "units.txt").unlink()  # the folder has its own
    moved = Path("elsewhere/model")
    assert loss(loaded(moved)) == pytest.approx(loss(model), abs=1e-6)
    assert (moved / "tokenizer" / "units.txt").is_file()
    convert.main(["--to", "train", str(moved), "again/final.pt"])
    monkeypatch.chdir("/")
    configs_again = load_config(tmp_path / "again" / "train.yaml")
    again = init_model(configs_again).eval()
    load_checkpoint(again, tmp_path / "again" / "final.pt")
    assert loss(again) == pytest.approx(loss(model), abs=1e-6)


def test_merge_lora(tmp_path: Path, llm_folder: Path):
    model = trained(tmp_path, configs(llm_folder)["LLM elsewhere under LoRA"])
    convert.main(["--from", "train", f"{tmp_path}/final.pt", f"{tmp_path}/model"])
    convert.main(["--merge-lora", f"{tmp_path}/model", f"{tmp_path}/merged"])
    merged = loaded(tmp_path / "merged")
    assert not (tmp_path / "merged" / "lora").exists() and not merged.decoder.lora_parameters()
    assert loss(merged) == pytest.approx(loss(model), abs=1e-5)
    for p in model.decoder.lora_parameters():
        p.data.zero_()
    assert abs(loss(merged) - loss(model)) > 1e-3  # LoRA did count


@pytest.mark.integration
def test_the_other_commands_take_a_folder(tmp_path: Path, llm_folder: Path):
    trained(tmp_path, configs(llm_folder)["LLM elsewhere under LoRA"])
    data = write_corpus(tmp_path / "data", 3)
    # Its vocabulary is the table's here, not the 60 of the other tests.
    conf = load_config(tmp_path / "train.yaml")
    size = init_tokenizer(conf).vocab_size()
    conf.update(vocab_size=size, output_dim=size)
    conf["decoder_conf"] = {"llm_config": stage2_config()["decoder_conf"]["llm_config"], "lora": {"r": 2}}
    save_config(conf, tmp_path / "train.yaml")
    torch.manual_seed(0)
    save_checkpoint(init_model(conf), tmp_path / "final.pt", {})
    folder = tmp_path / "model"
    convert.main(["--from", "train", f"{tmp_path}/final.pt", str(folder)])
    wanted = ["--test_data", data, "--modes", "llm_greedy", "--num_threads", 1]
    first = [
        "--config",
        tmp_path / "train.yaml",
        "--checkpoint",
        tmp_path / "final.pt",
        "--result_dir",
        tmp_path / "a",
    ]
    assert command(recognize.main, *first, *wanted) == 0
    assert command(recognize.main, "--checkpoint", folder, "--result_dir", tmp_path / "b", *wanted) == 0
    texts = [(tmp_path / name / "llm_greedy" / "text").read_text(encoding="utf-8") for name in "ab"]
    assert texts[0] == texts[1] and len(texts[0].splitlines()) == 3
    args = ["--train_data", data, "--cv_data", data, "--tensorboard_dir", tmp_path / "t", "--num_threads", 1]
    tuned = ["--config", folder / "config.yaml", "--checkpoint", folder, "--model_dir", tmp_path / "tuned"]
    few = ["--override_config", "max_epoch=1"]
    assert command(train.main, *args, *tuned, *few) == 0
    start = ["--config", folder / "config.yaml", "--enc_init", folder, "--model_dir", tmp_path / "started"]
    assert command(train.main, *args, *start, *few) == 0
    state, before = read_state(tmp_path / "tuned" / "final.pt"), read_state(folder)
    assert any("lora_" in n for n in state) and set(state) == set(before)


def test_bad_input_convert(tmp_path: Path, llm_folder: Path, capsys):
    trained(tmp_path, configs(llm_folder)["LLM elsewhere under LoRA"])
    final, folder = f"{tmp_path}/final.pt", f"{tmp_path}/model"
    convert.main(["--from", "train", final, folder])

    def line(*argv: str) -> str:
        capsys.readouterr()
        assert command(convert.main, *argv) == 1
        return one_error_line(capsys.readouterr().err)

    assert "is there already" in line("--from", "train", final, folder)
    assert "embed_scale is 0.5" in line("--to", "osum", mend(folder, "embed_scale", 0.5), f"{tmp_path}/x.pt")
    assert "decoder_conf.lora has 3" in line("--to", "osum", mend(folder, "r", 3), f"{tmp_path}/x.pt")
    assert "no local folder" in line("--merge-lora", mend(folder, "llm", "nobody/nothing"), f"{tmp_path}/x")
    assert "no such config" in line("--to", "train", str(tmp_path), f"{tmp_path}/x/x.pt")
    assert "give the LLM's config.json" in line("--from", "osum", final, f"{tmp_path}/x")
    assert "has no LoRA" in line("--merge-lora", without_lora(tmp_path), f"{tmp_path}/x")
    (tmp_path / "one").mkdir()
    configs_of_stage1 = run_config(tmp_path / "one", stage1_config())
    assert "only osum has an LLM" in line(
        "--from", "train", final, f"{tmp_path}/x", "--config", str(configs_of_stage1)
    )
    assert not (tmp_path / "x").exists() and not (tmp_path / "x.pt").exists()


def mend(folder: str, key: str, value: Any) -> str:
    """A copy of a folder with another value in its config."""
    copied = Path(folder).with_name(f"copy_{key}")
    shutil.copytree(folder, copied)
    conf = yaml.safe_load((copied / "config.yaml").read_text(encoding="utf-8"))
    section = {"embed_scale": conf["model_conf"]["adapter_conf"], "r": conf["decoder_conf"]["lora"]}
    section.get(key, conf["decoder_conf"])[key] = value
    (copied / "config.yaml").write_text(yaml.safe_dump(conf), encoding="utf-8")
    return str(copied)


def without_lora(tmp_path: Path) -> str:
    folder = tmp_path / "plain"
    folder.mkdir()
    trained(folder, stage2_config())
    convert.main(["--from", "train", f"{folder}/final.pt", f"{folder}/model"])
    return f"{folder}/model"


def test_a_tokenizer_folder_that_is_here_by_chance_is_left_alone(tmp_path: Path, monkeypatch):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    configs = {"tokenizer_conf": {"model_path": "tokenizer"}, "tasks": None}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    take_files(tmp_path / "out", configs)
    assert configs["tokenizer_conf"] == {"model_path": "tokenizer"} and not any((tmp_path / "out").iterdir())


def test_bad_input_folder_with_another_llm_than_the_config(tmp_path: Path, llm_folder: Path):
    trained(tmp_path, configs(llm_folder)["random LLM"])
    convert.main(["--from", "train", f"{tmp_path}/final.pt", f"{tmp_path}/model"])
    conf = convert.read_config(f"{tmp_path}/model")
    model = init_model(conf)
    load_checkpoint(model, tmp_path / "model")
    model.decoder.source = str(llm_folder)
    with pytest.raises(OsumError, match="has an LLM of its own"):
        load_checkpoint(model, tmp_path / "model")


def test_bad_input_lora_that_is_not_plain(tmp_path: Path):
    with pytest.raises(OsumError, match="use_dora"):
        write_lora(tmp_path, {"use_dora": True}, {}, None)
