"""Finding WeNet, registering with it and standing in for its steps, on a package of its shape."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import command, one_error_line, write_corpus, write_list
from wenet_stand_in import write_wenet

from wenet_osum.checkpoint.weights import save_checkpoint
from wenet_osum.errors import OsumError
from wenet_osum.models.ctc import CTC
from wenet_osum.models.osum import Osum
from wenet_osum.wenet import __main__ as program
from wenet_osum.wenet import register
from wenet_osum.wenet.find import import_wenet, wenet_folder
from wenet_osum.wenet.planned import PlannedBatches

pytestmark = pytest.mark.usefixtures("no_other_wenet")

# --- finding it


def test_bad_input_no_wenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(OsumError, match=r"^wenet: no WeNet to import; set WENET_DIR or PYTHONPATH"):
        wenet_folder()
    monkeypatch.setenv("WENET_DIR", str(tmp_path))
    with pytest.raises(OsumError, match=f"^WENET_DIR {tmp_path}: no WeNet to import"):
        wenet_folder()


def test_wenet_dir_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("WENET_DIR", str(write_wenet(tmp_path)))
    assert wenet_folder() == tmp_path / "wenet"


@pytest.mark.parametrize("files", [{"wenet.py": ""}, {"wenet/__init__.py": "version = 1"}])
def test_bad_input_another_package_called_wenet(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(OsumError, match=f"^{tmp_path}.*the package 'wenet' here is not the speech toolkit"):
        wenet_folder()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"utils/init_dataset.py": None}, "has no utils/init_dataset.py: it is too old; take one of"),
        ({"utils/checkpoint.py": None}, "half of WeNet is missing: no wenet.utils.checkpoint; check it out"),
        ({"cli/model.py": "import no_such_package"}, "needs the package no_such_package; pip install"),
        ({"cli/model.py": "from math import sine"}, "does not import here .cannot import name 'sine'"),
        (
            {"utils/init_model.py": "init_model = 1", "utils/init_tokenizer.py": "init_tokenizer = 1"},
            "has no table WENET_ENCODER_CLASSES: it is too old or too new",
        ),
    ],
)
def test_bad_input_half_of_wenet(
    changes: dict[str, str | None], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(str(write_wenet(tmp_path, **changes)))
    with pytest.raises(OsumError, match=message):
        import_wenet()


def test_bad_input_program_that_is_not_there(plugin: register.Plugin, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(
        OsumError, match=r"wenet.bin.trian: this WeNet has no such program; .*wenet.bin.train"
    ):
        program.main(["wenet.bin.trian"])
    with pytest.raises(OsumError, match=r"tools/none.py: no such script"):
        program.main(["tools/none.py"])


# --- registering


def test_registering_adds_and_takes_nothing_away(plugin: register.Plugin):
    from wenet.cli import model as cli
    from wenet.utils import init_model, init_tokenizer

    assert init_model.WENET_MODEL_CLASSES["osum"] is Osum
    assert {"llm", "whisper", "transformer"} <= set(init_model.WENET_DECODER_CLASSES)
    assert {"whisper_osum", "conformer"} <= set(init_model.WENET_ENCODER_CLASSES)
    assert init_model.WENET_CTC_CLASSES["ctc"] is init_model.StockCTC
    assert set(init_model.WENET_CTC_CLASSES) == {"ctc", "none", "words"}
    # A name that WeNet had imported before is replaced as well.
    assert cli.init_model is init_model.init_model and cli.init_tokenizer is init_tokenizer.init_tokenizer
    stock = {"model": "asr_model", "tokenizer": "char", "dataset_conf": {"fbank_conf": {"num_mel_bins": 40}}}
    assert init_tokenizer.init_tokenizer(stock) == ("stock tokenizer", "char")
    built, _ = init_model.init_model(argparse.Namespace(checkpoint="a.pt"), stock)
    assert built == {"ctc": init_model.StockCTC} and stock["init_infos"] == {"stock": "a.pt"}
    assert stock["input_dim"] == 40  # which WeNet fills in for one of its models only


def test_registering_twice_is_registering_once(plugin: register.Plugin):
    from wenet.utils import init_model

    before = init_model.init_model
    register.register("ser")
    assert init_model.init_model is before and plugin.task == "ser"


def test_a_model_of_ours_is_built_by_wenet(plugin: register.Plugin, configs: dict[str, Any], tmp_path: Path):
    from wenet.utils.init_model import WENET_CTC_CLASSES, StockCTC, init_model
    from wenet.utils.init_tokenizer import init_tokenizer

    tokenizer = init_tokenizer(configs)
    model, _ = init_model(argparse.Namespace(train_engine="torch_ddp"), configs)
    assert isinstance(model, Osum) and isinstance(model.ctc, CTC)
    assert WENET_CTC_CLASSES["ctc"] is StockCTC  # WeNet's own models keep theirs
    assert configs["output_dim"] == tokenizer.vocab_size()
    assert configs["tokenizer_conf"]["special_tokens"]["eos"] == tokenizer.eos_id
    assert configs["dataset_conf"]["feats_type"] == "log_mel_spectrogram"  # WeNet's default is fbank
    from wenet.utils import fsdp_utils

    layers = (fsdp_utils.WENET_ENCODER_LAYERS_CLASSES, fsdp_utils.WENET_DECODER_LAYERS_CLASSES)
    for cls in (c for table in layers for c in table.values()):
        assert any(type(m) is cls for m in model.modules())
    prompt = model.prompts.batch(["asr"], ["en"], draw=False)[0].tolist()
    assert prompt == tokenizer.encode("<TRANSCRIBE>")


def test_an_encoder_of_wenets_may_have_wenets_features(configs: dict[str, Any], plugin: register.Plugin):
    data = {"fbank_conf": {"num_mel_bins": 40}, **configs["dataset_conf"]}
    theirs = {
        **configs,
        "encoder": "conformer",
        "encoder_conf": {},
        "cmvn": "global_cmvn",
        "dataset_conf": data,
    }
    run = plugin.run_of(theirs)
    assert (theirs["input_dim"], theirs["cmvn"]) == (40, "global_cmvn")
    assert run.conf["feats_type"] == theirs["dataset_conf"]["feats_type"] == "fbank"
    for change in ({"encoder": "whisper_osum"}, {"dataset": "osum"}):  # ours take log-mel
        with pytest.raises(OsumError, match=r"feats_type: is not given beside fbank_conf"):
            plugin.run_of({**theirs, **change, "dataset_conf": {"fbank_conf": {}}})


def test_wenets_trainer_has_our_defaults(plugin: register.Plugin, configs: dict[str, Any]):
    configs.update(optim_conf={"lr": 1e-3}, scheduler_conf={})
    plugin.run_of(configs).fit_trainer()
    optim = {"lr": 1e-3, "betas": [0.9, 0.99], "eps": 1e-6, "weight_decay": 0.01, "modules": []}
    assert (configs["optim"], configs["optim_conf"]) == ("adamw", optim)
    assert (configs["scheduler"], configs["scheduler_conf"]) == ("warmuplr", {"warmup_steps": 8000})


def test_a_folder_for_load_model_may_be_anywhere(
    plugin: register.Plugin, configs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path.parent)
    configs["tokenizer_conf"] = {"symbol_table_path": "units.txt"}
    assert plugin.run_of(configs, str(tmp_path / "final.pt")).tokenizer.vocab_size() > 3


def test_checkpoints_are_checked_for_our_models(
    plugin: register.Plugin, configs: dict[str, Any], tmp_path: Path
):
    from wenet.utils.init_model import init_model

    model, _ = init_model(argparse.Namespace(), configs)
    save_checkpoint(model, tmp_path / "epoch_3.pt", {"epoch": 3, "step": 12, "tag": "epoch_3"})
    _, again = init_model(argparse.Namespace(checkpoint=str(tmp_path / "epoch_3.pt")), configs)
    assert (again["init_infos"]["epoch"], again["init_infos"]["step"]) == (3, 12)
    done = argparse.Namespace(train_engine="torch_ddp", checkpoint=str(tmp_path / "epoch_3.pt"))
    with pytest.raises(OsumError, match=r"epoch_3.pt: 4 of 1 epochs are done; raise max_epoch"):
        init_model(done, configs)
    save_checkpoint(model, tmp_path / "init.pt", {"tag": "init"})
    _, again = init_model(argparse.Namespace(checkpoint=str(tmp_path / "init.pt")), configs)
    assert again["init_infos"] == {"tag": "init"}
    torch.save({"encoder.embed.conv.0.weight": torch.zeros(1)}, tmp_path / "whisper.pt")
    with pytest.raises(OsumError, match=r"whisper.pt"):
        init_model(argparse.Namespace(checkpoint=str(tmp_path / "whisper.pt")), configs)


def test_bad_input_modes_frozen_words_and_trainer_keys(plugin: register.Plugin, configs: dict[str, Any]):
    from wenet.utils.init_model import init_model

    with pytest.raises(OsumError, match=r"--modes: this model does not have 'attention_rescoring'; choose"):
        init_model(argparse.Namespace(modes=["llm_greedy", "attention_rescoring"]), configs)
    with pytest.raises(OsumError, match="--freeze_modules: no weight has 'encodre' in its name"):
        init_model(argparse.Namespace(freeze_modules=["encodre"]), configs)
    with pytest.raises(OsumError, match="--modes: is missing; choose from llm_greedy"):
        init_model(argparse.Namespace(modes=None), configs)
    model, _ = init_model(argparse.Namespace(freeze_modules=["encoder."]), configs)
    assert not any(p.requires_grad for p in model.encoder.parameters())
    with pytest.raises(OsumError, match="--jit: a transformers LLM is no TorchScript"):
        init_model(argparse.Namespace(train_engine="torch_ddp", jit=True), configs)
    training = argparse.Namespace(train_engine="torch_ddp")
    words = ["encoder.", "adapter.", "decoder.", "ctc.", "speech_bounds."]
    with pytest.raises(OsumError, match="no parameter is left to train"):
        init_model(argparse.Namespace(train_engine="torch_ddp", freeze_modules=words), configs)
    with pytest.raises(OsumError, match="optim_conf.lr_scale: WeNet's trainer does not have it"):
        init_model(training, {**configs, "optim_conf": {"lr": 1e-3, "lr_scale": {"encoder": 0.1}}})
    noam = {**configs, "scheduler": "NoamHoldAnnealing", "scheduler_conf": {"warmup_ratio": 0.1}}
    with pytest.raises(OsumError, match="scheduler_conf.max_steps: is missing; WeNet's NoamHoldAnnealing"):
        init_model(training, noam)
    noam["scheduler_conf"]["max_steps"] = 100
    init_model(training, {**noam, "optim_conf": {"lr": 1e-3}})
    with pytest.raises(OsumError, match="scheduler: WeNet's trainer has no 'linear'"):
        init_model(training, {**configs, "scheduler": "linear"})


def test_a_frozen_pretrained_llm_is_not_saved(
    plugin: register.Plugin, configs: dict[str, Any], llm_folder: Path
):
    from wenet.utils.init_model import init_model

    configs["decoder_conf"] = {"llm": str(llm_folder), "lora": {}}
    configs["tokenizer_conf"]["special_tokens"] = {"eos": 2, "sos": 2}
    units = Path(configs["tokenizer_conf"]["symbol_table_path"])
    units.write_text("".join(f"{c} {i}\n" for i, c in enumerate(["<blank>", "<unk>", "<sos/eos>", *"abc"])))
    model, _ = init_model(argparse.Namespace(), configs)
    from wenet.utils.checkpoint import save_state_dict_and_infos

    saved = [n for n in save_state_dict_and_infos(model.state_dict(), "a.pt") if n.startswith("decoder.")]
    assert saved and all("lora_" in n for n in saved)
    fsdp = argparse.Namespace(train_engine="torch_fsdp", fsdp_sharding_strategy="zero2")
    configs["decoder_conf"]["dtype"] = "bf16"
    model, _ = init_model(fsdp, configs)
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # FSDP flattens what is of one type
    fsdp.fsdp_sharding_strategy = "model"
    with pytest.raises(OsumError, match="--fsdp_sharding_strategy model: wraps the LLM whole"):
        init_model(fsdp, configs)


# --- data

ROWS = [{"key": "a", "wav": "a.wav", "txt": "no"}]


def loaded(
    plugin: register.Plugin, configs: dict[str, Any], samples: list[dict[str, Any]], split: str
) -> Any:
    """The batch that WeNet's pipeline makes of samples, each given features."""
    from wenet.dataset.dataset import Dataset
    from wenet.utils.init_dataset import init_dataset
    from wenet.utils.init_tokenizer import init_tokenizer

    tokenizer = init_tokenizer(configs)
    conf = configs["dataset_conf"]
    conf["filter_conf"] = {"token_min_length": 1, "token_max_length": 200}
    data = str(write_list(Path(configs["tokenizer_conf"]["symbol_table_path"]).with_name("data.list"), ROWS))
    if split == "decode":
        conf["filter_conf"]["token_min_length"] = 0
        pipe = Dataset("raw", data, tokenizer, conf, False)
    else:
        pipe = init_dataset("asr", "raw", data, tokenizer, conf, split == "train", split=split)
    audio = {"wav": torch.zeros(1, 8000), "sample_rate": 16000}
    rows = [{**audio, **s, "feat": torch.zeros(10 + i, 80)} for i, s in enumerate(samples)]
    return pipe(rows), tokenizer


def test_tasks_and_languages_of_a_list_reach_the_batch(plugin: register.Plugin, configs: dict[str, Any]):
    samples = [
        {"key": "a", "txt": "no<happy>", "task": "<TRANSCRIBE><EMOTION>", "lang": "zh", "speaker": "s"},
        {"key": "b", "txt": "今天天气好"},
        {"key": "c", "txt": "no", "emotion": "sad"},
    ]
    configs["dataset_conf"].update(task_weights={"ser": 1, "asr": 1}, label_weight=5)
    batch, tokenizer = loaded(plugin, configs, samples, "dev")
    rows = {k: i for i, k in enumerate(batch["keys"])}
    assert list(rows) == ["c", "b", "a"]  # longest first, as WeNet has them
    assert batch["tasks"][rows["a"]] == "ser" and batch["langs"][rows["a"]] == "zh"
    assert (batch["tasks"][rows["b"]], batch["langs"][rows["b"]]) == ("asr", "zh")
    assert batch["tasks"][rows["c"]] in ("asr", "ser") and batch["langs"][rows["c"]] == "en"
    heard = [i for i in batch["ctc_target"][rows["a"]].tolist() if i >= 0]
    assert tokenizer.decode(heard) == "no"  # CTC hears words only
    assert batch["target_weights"][rows["a"]].tolist()[:4] == [1, 1, 5, 1]


def test_a_shards_json_brings_its_labels(plugin: register.Plugin, configs: dict[str, Any]):
    member = json.dumps({"emotion": "anger", "lang": "en"}).encode()
    samples = [{"key": "a", "txt": "no", "json": member}, {"key": "b", "txt": "no", "emotion": b"sad"}]
    configs["dataset_conf"]["task_weights"] = {"ser_only": 1}
    batch, _ = loaded(plugin, configs, samples, "train")
    assert batch["tasks"] == ["ser_only", "ser_only"]
    with pytest.raises(OsumError, match=r"^a.json: malformed JSON"):
        loaded(plugin, configs, [{"key": "a", "txt": "no", "json": b"{"}], "train")


def test_what_has_no_answer_is_set_aside_in_training_only(plugin: register.Plugin, configs: dict[str, Any]):
    samples = [{"key": "a", "txt": "no<happy>", "task": "<TRANSCRIBE>"}, {"key": "b", "txt": "no"}]
    batch, _ = loaded(plugin, configs, samples, "train")
    assert batch["keys"] == ["b"]
    batch, _ = loaded(plugin, configs, samples, "decode")
    assert sorted(batch["keys"]) == ["a", "b"]


def test_what_the_encoder_cannot_hold_is_set_aside(
    plugin: register.Plugin, configs: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    long, fits = (torch.zeros(1, n) for n in (30 * 8000 + 80, 30 * 8000 + 79))
    samples = [
        {"key": "a", "txt": "no", "wav": long, "sample_rate": 8000},
        {"key": "b", "txt": "no", "wav": fits, "sample_rate": 8000},
    ]
    for split in ("train", "decode"):
        assert loaded(plugin, configs, samples, split)[0]["keys"] == ["b"]
    assert caplog.text.count("a: set aside: too_long: 30.01 s, at most 30.01 s") == 2


def test_our_engine_inside_wenet_leaves_out_what_the_encoder_cannot_hold(
    plugin: register.Plugin, configs: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    from wenet.utils.init_dataset import init_dataset
    from wenet.utils.init_tokenizer import init_tokenizer

    configs["encoder_conf"]["max_positions"] = 20  # 0.4 s
    data = str(write_corpus(tmp_path / "data"))
    tokenizer = init_tokenizer(configs)
    batches = init_dataset("osum", "raw", data, tokenizer, configs["dataset_conf"], True)
    assert [k for b in batches for k in b["keys"]] and len(batches.dataset.index) == 2
    assert caplog.text.count("too_long") == 4


def test_what_no_weighted_task_asks_for_is_set_aside(
    plugin: register.Plugin, configs: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    configs["dataset_conf"]["task_weights"] = {"ser": 1}
    samples = [
        {"key": "a", "txt": "no"},
        {"key": "b", "txt": "no", "emotion": "sad"},
        {"key": "c", "txt": "no", "task": "<TRANSCRIBE>"},
    ]
    assert loaded(plugin, configs, samples, "train")[0]["keys"] == ["b"]
    assert caplog.text.count("set aside: no_task") == 2
    assert sorted(loaded(plugin, configs, samples, "decode")[0]["keys"]) == ["a", "b", "c"]


def test_decoding_asks_the_task_it_was_told(plugin: register.Plugin, configs: dict[str, Any]):
    register.register("ser")
    batch, _ = loaded(plugin, configs, [{"key": "a", "txt": "no"}, {"key": "b"}], "decode")
    assert batch["tasks"] == ["ser", "ser"]
    with pytest.raises(OsumError, match="unknown task"):
        register.register("sre")
        loaded(plugin, configs, [{"key": "a", "txt": "no"}], "decode")


def test_stock_models_keep_the_stock_steps(plugin: register.Plugin, tmp_path: Path):
    from wenet.dataset import processor
    from wenet.utils.init_dataset import init_dataset

    with pytest.raises(AssertionError, match="the stock step"):
        data = str(write_list(tmp_path / "l", ROWS))
        init_dataset("asr", "raw", data, "theirs", {"filter_conf": {}})([{"key": "a"}])
    assert processor.detect_task({})["task"] == "transcribe"


def test_speaker_names_do_not_stop_a_stock_model(plugin: register.Plugin, tmp_path: Path, capsys: Any):
    from wenet.dataset import processor
    from wenet.dataset.dataset import Dataset

    class Letters:
        def tokenize(self, text: str) -> tuple[list[str], list[int]]:
            return list(text), [1] * len(text)

    processor.tokenize = lambda sample, tokenizer: {**sample, "label": tokenizer.tokenize(sample["txt"])[1]}
    seen: list[dict[str, Any]] = []
    stock = processor.padding
    processor.padding = lambda data: (seen.extend(data), stock(data))[1]
    samples = [{"key": "a", "txt": "no", "speaker": "ann", "feat": torch.zeros(9, 80)}]
    data = str(write_list(tmp_path / "l", ROWS))
    Dataset("raw", data, Letters(), {"filter_conf": {}})(samples)
    assert "speaker" not in seen[0] and "speaker names in the list" in capsys.readouterr().err
    numbered = [{**samples[0], "speaker": 3}]
    Dataset("raw", data, Letters(), {"filter_conf": {}, "speaker_conf": {}})(numbered)
    assert seen[1]["speaker"] == 3


@pytest.mark.parametrize(
    ("data_type", "text", "message"),
    [
        ("raw", None, "l: no such file"),
        ("raw", "", "l: is empty"),
        ("shard", "", "l: is empty"),
        ("raw", "not json\n", "l:1: malformed JSON"),
        ("raw", '{"key": "a", "wav": "a.wav", "txt": ""}\n{"key": 3}\n', "l:2: key is 3"),
        (
            "raw",
            '{"key": "a", "wav": "a.wav", "txt": "", "task": "<TRANSLATE>"}',
            "l:1: unknown task '<TRANSLATE>'",
        ),
        ("shard", '{"key": "a"}\n', "l:1: a line of a raw list"),
        ("shard", "none.tar\n", "l:1: no such tar: none.tar"),
    ],
)
def test_bad_input_lists_that_hold_nothing(
    data_type: str,
    text: str | None,
    message: str,
    plugin: register.Plugin,
    configs: dict[str, Any],
    tmp_path: Path,
):
    """WeNet would train on no utterances and call it done."""
    from wenet.dataset.dataset import Dataset
    from wenet.utils.init_tokenizer import init_tokenizer

    if text is not None:
        (tmp_path / "l").write_text(text)
    with pytest.raises(OsumError, match=re.escape(f"{tmp_path}/{message}")):
        Dataset(data_type, [str(tmp_path / "l")], init_tokenizer(configs), configs["dataset_conf"])


def test_an_error_of_a_data_worker_is_one_line(capsys: pytest.CaptureFixture[str]):
    from torch._utils import ExceptionWrapper

    def worker(_: Any) -> int:
        try:
            raise OsumError("a.json", "malformed JSON", "make the shard again")
        except OsumError:
            ExceptionWrapper(where="in DataLoader worker process 0").reraise()
        return 0

    assert command(worker) == 1
    assert one_error_line(capsys.readouterr().err) == "error: a.json: malformed JSON; make the shard again"


def test_our_engine_goes_through_wenets_loader(
    plugin: register.Plugin, configs: dict[str, Any], tmp_path: Path
):
    from torch.utils.data import DataLoader
    from wenet.utils.init_dataset import init_dataset
    from wenet.utils.init_tokenizer import init_tokenizer

    tokenizer = init_tokenizer(configs)
    data = str(write_corpus(tmp_path / "data"))
    batches = init_dataset("osum", "raw", [data], tokenizer, configs["dataset_conf"], True)
    assert isinstance(batches, PlannedBatches)
    epochs = [[b["keys"] for b in DataLoader(batches, batch_size=None)] for _ in range(6)]
    for epoch in epochs:
        assert sorted(k for keys in epoch for k in keys) == [f"u{i:02}" for i in range(6)]
    assert any(epoch != epochs[0] for epoch in epochs)  # each epoch is shuffled anew
    planned = PlannedBatches(batches.dataset, True)
    loader = DataLoader(planned, batch_size=None, num_workers=2, persistent_workers=True)
    assert [[b["keys"] for b in loader] for _ in range(6)] == epochs  # the plan's order, whatever the workers
    dev = init_dataset("osum", "raw", data, tokenizer, configs["dataset_conf"], False, split="cv")
    assert [b["tasks"] for b in dev] == [
        b["tasks"] for b in dev
    ]  # losses of epochs are of the same questions
    with pytest.raises(OsumError, match="dataset: osum is the data engine of our models only"):
        init_dataset("osum", "raw", [data], "another tokenizer", {}, True)
