"""Reading a run's YAML strictly."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from wenet_osum.config import DEFAULTS, load_config, save_config
from wenet_osum.errors import OsumError


@pytest.fixture
def config(tmp_path: Path):
    """Load a YAML text with overrides."""

    def load(text: str = "", *overrides: str):
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, list(overrides))

    return load


def test_empty_file_is_all_defaults(config):
    assert config() == DEFAULTS


def test_empty_sections_are_not_one_object(config):
    configs = config()
    configs["ctc_conf"]["ctc_blank_id"] = 3
    assert configs["model_conf"] == configs["encoder_conf"] == {} == DEFAULTS["ctc_conf"]


def test_given_keys_overlay_the_defaults(config):
    before = copy.deepcopy(DEFAULTS)
    got = config(
        "max_epoch: 3\ndataset_conf:\n  batch_conf: {batch_size: 5}\nencoder_conf: {num_blocks: 2}\n"
    )
    assert got["max_epoch"] == 3 and got["encoder_conf"] == {"num_blocks": 2}
    assert got["dataset_conf"]["batch_conf"]["batch_size"] == 5
    assert got["dataset_conf"]["batch_conf"]["batch_type"] == "dynamic"
    got["dataset_conf"]["batch_conf"]["batch_size"] = 99
    assert before == DEFAULTS  # a run's config is no alias of the defaults


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("max_epochs: 3", "max_epochs", "max_epoch"),
        ("dataset_conf: {batch_conf: {batch_sizes: 3}}", "dataset_conf.batch_conf.batch_sizes", "batch_size"),
        ("optim_conf: {zzzz: 1}", "optim_conf.zzzz", "weight_decay"),
        ("1: 2", "1", "known"),
    ],
)
def test_bad_input_unknown_key_is_named(config, text: str, where: str, hint: str):
    with pytest.raises(OsumError, match="unknown key") as e:
        config(text)
    assert e.value.where.endswith(f"run.yaml: {where}") and hint in e.value.mend


@pytest.mark.parametrize(
    "text",
    [
        "max_epoch: many",
        "max_epoch: 1.5",
        "seed: true",
        "grad_clip: much",
        "grad_clip: true",
        "model: 5",
        "optim_conf: 3",
        "optim_conf: [lr]",
        "optim_conf: {betas: 0.9}",
        "dataset_conf: {speed_perturb: 1}",
        "max_epoch: {a: 1}",
        "max_epoch: ",  # a value forgotten
        "seed: ",
        "save_interval: often",
        "dataset_conf: {prompt_conf: {number: 0}}",
    ],
)
def test_bad_input_wrong_type_names_the_key(config, text: str):
    with pytest.raises(OsumError, match=text.partition(":")[0]):
        config(text)


@pytest.mark.parametrize(
    "text",
    [
        "optim: sgdx",
        "scheduler: cosine",
        "max_epoch: 0",
        "accum_grad: -1",
        "input_dim: 128",  # the features have 80 bins
        "dataset_conf: {feats_type: fbank}",
        "dataset_conf: {batch_conf: {batch_type: bucket}}",  # without its buckets
        "dataset_conf: {prompt_conf: {style: chat}}",
        "cmvn: global_cmvn",  # no part of this model takes one
    ],
)
def test_bad_input_value_out_of_range(config, text: str):
    with pytest.raises(OsumError):
        config(text)


def test_bad_input_yaml_error_has_its_line(config):
    with pytest.raises(OsumError, match=r"run\.yaml:3: not YAML"):
        config("seed: 1\nmax_epoch: 2\n\tlog_interval: 3\n")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words"])
def test_bad_input_not_a_mapping(config, text: str):
    with pytest.raises(OsumError, match="mapping"):
        config(text)


def test_bad_input_missing_or_not_utf8(tmp_path: Path):
    with pytest.raises(OsumError, match="no such config"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"model: \xe9\xe8")
    with pytest.raises(OsumError, match=r"latin\.yaml"):
        load_config(tmp_path / "latin.yaml")


def test_numbers_that_yaml_reads_as_text(config):
    assert config("optim_conf: {lr: 1e-3}")["optim_conf"]["lr"] == 1e-3
    assert config("grad_clip: 5")["grad_clip"] == 5.0


@pytest.mark.parametrize("item", ["optim_conf.lr=1e-3", "optim_conf.lr 1e-3", "optim_conf.lr=0.001"])
def test_override_forms(config, item: str):
    assert config("optim_conf: {lr: 1, eps: 2}", item)["optim_conf"]["lr"] == 1e-3
    assert config("optim_conf: {eps: 2}", item)["optim_conf"]["eps"] == 2.0


def test_override_makes_sections_and_reads_yaml(config):
    got = config(
        "encoder_conf:\n", "encoder_conf.conv_strides=[2, 2]", "decoder_conf.llm_config.hidden_size=8"
    )
    assert got["encoder_conf"] == {"conv_strides": [2, 2]}
    assert got["decoder_conf"] == {"llm_config": {"hidden_size": 8}}
    assert config("", "model_conf.note=a=b c")["model_conf"] == {"note": "a=b c"}


@pytest.mark.parametrize("item", ["seed", "=3", "sed=3", "seed=many", "optim_conf.lrr=1", "seed=[1"])
def test_bad_input_override(config, item: str):
    with pytest.raises(OsumError):
        config("", item)


def test_saved_config_reads_back_the_same(config, tmp_path: Path):
    before = config("tokenizer_conf: {model_path: 模型}\ndataset_conf: {task_weights: {asr: 0.5}}")
    save_config(before, tmp_path / "train.yaml")
    assert load_config(tmp_path / "train.yaml") == before
    assert "模型" in (tmp_path / "train.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent.parent / "conf").glob("*.yaml")), ids=lambda p: p.name
)
def test_shipped_configs_are_valid(path: Path):
    if isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict):
        load_config(path)
