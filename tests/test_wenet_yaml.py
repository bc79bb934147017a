"""YAML that WeNet's trainer needs, read as ours: what has a meaning gets it, the rest is named or refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from wenet_osum.config import DEFAULTS, check_config, load_config
from wenet_osum.dataset.filter import check_answer, check_length
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.text import init_tokenizer
from wenet_osum.wenet_keys import NO_EFFECT, WENET_MODELS, take_out

# What a WeNet recipe's YAML has around the model, every key of its loader among them.
AROUND: dict[str, Any] = {
    "cmvn": None,
    "cmvn_conf": {"cmvn_file": None, "is_json_cmvn": None},
    "ctc": "ctc",
    "ctc_conf": {"ctc_blank_id": 0},
    "dataset": "asr",
    "dataset_conf": {
        "cycle": 2,
        "list_shuffle": True,
        "list_shuffle_conf": {"shuffle_size": 15000},
        "singal_channel_conf": {"channel": 1},
        "filter_conf": {"max_length": 40960, "min_length": 0, "token_max_length": 200, "token_min_length": 1},
        "resample_conf": {"resample_rate": 16000},
        "speed_perturb": True,
        "feats_type": "log_mel_spectrogram",
        "fbank_conf": {"num_mel_bins": 80, "frame_shift": 10, "frame_length": 25, "dither": 0.1},
        "log_mel_spectrogram_conf": {"n_fft": 400, "hop_length": 160, "num_mel_bins": 128, "padding": 0},
        "spec_aug": True,
        "spec_aug_conf": {"num_t_mask": 2, "num_f_mask": 2, "max_t": 50, "max_f": 10, "max_w": 80},
        "spec_sub": True,
        "spec_sub_conf": {"max_t": 30, "num_t_sub": 3},
        "spec_trim": False,
        "language_conf": {"limited_langs": ["zh"]},
        "shuffle": True,
        "shuffle_conf": {"shuffle_size": 1500},
        "sort": True,
        "sort_conf": {"sort_size": 500},
        "batch_conf": {"batch_type": "static", "batch_size": 16},
    },
    "grad_clip": 5,
    "accum_grad": 4,
    "max_epoch": 240,
    "log_interval": 100,
    "optim": "adam",
    "optim_conf": {"lr": 0.002},
    "scheduler": "warmuplr",
    "scheduler_conf": {"warmup_steps": 25000},
}
# What WeNet's train.py adds when it writes train.yaml.
WRITTEN = {"dtype": "fp16", "use_amp": True, "save_states": "model+optimizer", "train_engine": "deepspeed"}
WRITTEN |= {
    "vocab_size": 4233,
    "output_dim": 4233,
    "model_dir": "exp/osum",
    "input_dim": 128,
    "lora_conf": {},
}


def write(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    return path


@pytest.mark.parametrize("written", [False, True], ids=["recipe", "train.yaml"])
def test_a_recipes_yaml_loads_and_one_line_names_what_has_no_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, written: bool
):
    path = write(tmp_path / "conformer.yaml", {"model": "osum", **AROUND, **(WRITTEN if written else {})})
    with caplog.at_level(logging.INFO):
        configs = load_config(path)
    assert configs["dataset"] == "osum" and configs["input_dim"] == 128
    data = configs["dataset_conf"]
    assert data["filter_conf"]["max_length"] == 40960 and data["filter_conf"]["max_output_input_ratio"] == 1
    assert data["singal_channel_conf"] == {"channel": 1} and data["spec_sub_conf"]["max_t"] == 30
    (line,) = caplog.messages
    assert line == f"{path}: no effect here: " + ", ".join(
        name for name in NO_EFFECT if name in line and name.split(".")[-1] in str(AROUND) + str(WRITTEN)
    )
    expected = {
        "cmvn_conf",
        "dataset_conf.cycle",
        "dataset_conf.sort_conf",
        "dataset_conf.spec_aug_conf.max_w",
    }
    assert expected <= set(line.partition("here: ")[2].split(", "))
    if written:
        assert configs["use_amp"] is True and configs["dtype"] == "fp16" and "lora_conf" in line


def test_all_that_has_no_effect_is_taken_out_and_nothing_else():
    given: dict[str, Any] = {"seed": 1, "dataset_conf": {"shuffle": False, "spec_aug_conf": {"max_t": 3}}}
    for name in NO_EFFECT:
        *path, last = name.split(".")
        section = given
        for key in path:
            section = section[key]
        section[last] = 5
    left, names = take_out(given)
    assert tuple(names) == NO_EFFECT
    assert left == {"seed": 1, "dataset_conf": {"shuffle": False, "spec_aug_conf": {"max_t": 3}}}
    assert take_out({"dataset_conf": None}) == ({"dataset_conf": None}, [])


def test_adam_is_torchs_where_the_yaml_is_silent():
    own, theirs = check_config({}, "x")["optim_conf"], check_config({"optim": "adam"}, "x")["optim_conf"]
    assert own == DEFAULTS["optim_conf"]
    assert (theirs["betas"], theirs["eps"], theirs["weight_decay"]) == ([0.9, 0.999], 1e-8, 0.0)
    given = {"optim": "adam", "optim_conf": {"weight_decay": 0.1}}
    assert check_config(given, "x")["optim_conf"]["weight_decay"] == 0.1


@pytest.mark.parametrize("model", WENET_MODELS)
def test_bad_input_another_model_is_the_first_complaint(tmp_path: Path, model: str):
    path = write(tmp_path / "c.yaml", {"joint": "transducer_joint", "encodr": 1, "model": model})
    with pytest.raises(OsumError, match=f"c.yaml: model: '{model}' is a model of WeNet's") as e:
        load_config(path)
    assert "python -m wenet_osum.wenet wenet.bin.train" in e.value.mend


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cmvn": "global_cmvn"}, "cmvn: is 'global_cmvn'"),
        ({"dataset_conf": {"feats_type": "fbank"}}, "feats_type: is 'fbank'"),
        (
            {"dataset_conf": {"fbank_conf": {"num_mel_bins": 80}}},
            "feats_type: is not given beside fbank_conf",
        ),
        ({"dataset_conf": {"mfcc_conf": {}}}, "feats_type: is not given beside mfcc_conf"),
        ({"dataset_conf": {"cyle": 2}}, "dataset_conf.cyle: unknown key"),
        ({"dataset_conf": {"singal_channel_conf": {"channel": -1}}}, "channel: is -1"),
        ({"dataset_conf": {"singal_channel_conf": {"channel": "left"}}}, "channel: is 'left'"),
        ({"dataset_conf": {"spec_trim_conf": {"max_t": 0}}}, "spec_trim_conf.max_t: is 0"),
        ({"dataset_conf": {"log_mel_spectrogram_conf": {"padding": -1}}}, "padding: is -1"),
        ({"dataset_conf": {"batch_conf": {"batch_type": "bucket"}}}, "bucket_boundaries: is"),
        ({"optim_conf": {"lr": [1e-3, 1e-4]}}, "optim_conf.lr: is .* beside 0 modules"),
        ({"optim_conf": {"lr": 1e-3, "modules": ["encoder"]}}, "optim_conf.lr: is 0.001 beside 1 modules"),
        ({"optim_conf": {"lr": [1e-3, "x"], "modules": ["encoder"]}}, "optim_conf.lr: is 'x'"),
        ({"optim_conf": {"lr": [1, 2], "modules": [3]}}, "optim_conf.modules: is"),
        ({"scheduler_conf": {"warmup_steps": [1, 2]}}, "warmup_steps: is"),
        ({"scheduler_conf": {"warmup_ratio": 2}}, "warmup_ratio: is 2"),
        (
            {"optim_conf": {"lr": [1, 2], "modules": ["encoder"]}, "scheduler": "linear"},
            "scheduler: rates by module",
        ),
        (
            {"optim_conf": {"lr": [1, 2], "modules": ["encoder"], "lr_scale": {"llm": 1}}},
            "lr_scale: stands beside modules",
        ),
    ],
)
def test_bad_input_what_would_change_the_result_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(OsumError, match=message):
        check_config({"model": "osum", **change}, "c.yaml")


@pytest.mark.parametrize(
    ("bounds", "sizes", "key"),
    [([500, 300], [4, 2, 1], "boundaries"), ([300], [4], "batch_sizes"), ([300], [4, 0], "batch_sizes")],
)
def test_bad_input_buckets(bounds: list[int], sizes: list[int], key: str):
    conf = {"batch_type": "bucket", "bucket_boundaries": bounds, "bucket_batch_sizes": sizes}
    with pytest.raises(OsumError, match=f"bucket_{key}"):
        check_config({"dataset_conf": {"batch_conf": conf}}, "c.yaml")


def test_the_mean_of_all_channels_is_null():
    given = {"dataset_conf": {"singal_channel_conf": {"channel": None}}}
    assert check_config(given, "x")["dataset_conf"]["singal_channel_conf"]["channel"] is None
    assert DEFAULTS["dataset_conf"]["singal_channel_conf"]["channel"] == 0


def test_filter_defaults_are_wenets():
    assert DEFAULTS["dataset_conf"]["filter_conf"] == {
        "max_length": 10240,
        "min_length": 10,
        "token_max_length": 200,
        "token_min_length": 1,
        "min_output_input_ratio": 0.0005,
        "max_output_input_ratio": 1,
    }


LIMITS = DEFAULTS["dataset_conf"]["filter_conf"]


@pytest.mark.parametrize(
    ("seconds", "tokens", "cause"),
    [
        (102.4, 100, None),
        (102.401, 100, "too_long"),  # 10240.1 frames: not rounded
        (0.1, 5, None),
        (0.0999, 5, "too_short"),
        (10, 200, None),
        (10, 201, "answer_too_long"),
        (10, 0, "answer_too_short"),
        (20, 1, None),
        (20.01, 1, "answer_sparse"),
        (0.5, 50, None),
        (0.5, 51, "answer_dense"),
    ],
)
def test_filter_is_exact_at_its_limits(seconds: float, tokens: int, cause: str | None):
    try:
        check_answer("a", tokens, check_length("a", seconds, LIMITS), LIMITS)
        found = None
    except BadUtterance as e:
        found = e.cause
        assert "filter_conf." in e.detail
    assert found == cause


def test_an_empty_recording_passes_a_filter_that_is_open():
    limits = {**LIMITS, "min_length": 0, "token_min_length": 0}
    check_answer("a", 0, check_length("a", 0.0, limits), limits)


# --- WeNet's tokenizer_conf ---

UNITS = ["<blank>", "<unk>", *"ABab ▁你好".replace(" ", ""), "{NOISE}", "<happy>", "hi", "<sos/eos>"]


def char(tmp_path: Path, **conf: Any) -> Any:
    units = tmp_path / "units.txt"
    units.write_text("".join(f"{u}\t{i}\n" for i, u in enumerate(UNITS)), encoding="utf-8")
    (tmp_path / "symbols.txt").write_text("{NOISE}\n[LAUGH]\n", encoding="utf-8")
    return init_tokenizer({"tokenizer": "char", "tokenizer_conf": {"symbol_table_path": str(units), **conf}})


def test_keys_of_other_tokenizers_are_left(tmp_path: Path, hf_folder: Path):
    theirs = {"bpe_path": None, "non_lang_syms_path": None, "is_multilingual": False, "num_languages": 1}
    theirs |= {"split_with_space": False, "seg_dict_path": None, "special_tokens": {"<blank>": 0, "<eos>": 2}}
    assert char(tmp_path, **theirs).encode("ab") == [4, 5]
    conf = {**theirs, "model_path": str(hf_folder), "symbol_table_path": None}
    assert init_tokenizer({"tokenizer": "huggingface", "tokenizer_conf": conf}).vocab_size() == 257


def test_char_split_with_space_and_connect_symbol(tmp_path: Path):
    words = char(tmp_path, split_with_space=True, connect_symbol=" ")
    tokens, ids = words.tokenize("hi 你 xx<happy>")
    assert tokens == ["hi", "你", "xx", "<happy>"]
    assert words.detokenize(ids)[0] == "hi 你 <unk> <happy>"
    assert char(tmp_path, connect_symbol="-").decode(words.encode("a b")) == "a-b"


def test_char_non_lang_syms(tmp_path: Path):
    tokenizer = char(tmp_path, non_lang_syms_path=str(tmp_path / "symbols.txt"))
    tokens, ids = tokenizer.tokenize("ab {noise} [LAUGH]你<happy> b")
    assert tokens == ["A", "B", "{NOISE}", "[LAUGH]", "你", "<happy>", "B"]
    assert ids[3] == UNITS.index("<unk>")


def test_bad_input_non_lang_syms(tmp_path: Path):
    (tmp_path / "bad.txt").write_text("{NOISE}\nLAUGH\n")
    with pytest.raises(OsumError, match=r"bad.txt:2: 'LAUGH' is no symbol"):
        char(tmp_path, non_lang_syms_path=str(tmp_path / "bad.txt")).encode("a")
    with pytest.raises(OsumError, match="none.txt: no such file"):
        char(tmp_path, non_lang_syms_path=str(tmp_path / "none.txt")).encode("a")
