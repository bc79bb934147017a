"""What the user can mend ends a command with one line and status 1, and no half-written file."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import (
    build,
    command,
    fill_disk,
    one_error_line,
    run_config,
    stage1_config,
    stage2_config,
    write_corpus,
    write_list,
)

from wenet_osum import cli
from wenet_osum.bin import average_model, recognize, train
from wenet_osum.checkpoint.assemble import prepare_configs
from wenet_osum.checkpoint.weights import read_state, save_checkpoint
from wenet_osum.config import load_config, save_config
from wenet_osum.dataset.lists import read_raw_list
from wenet_osum.dataset.shards import write_shards
from wenet_osum.errors import OsumError, run_main
from wenet_osum.registry import init_model
from wenet_osum.text import init_tokenizer

Fails = Callable[..., str]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must fail; its one line."""

    def run(main: Callable[[list[str]], int], *argv: object) -> str:
        capsys.readouterr()
        assert command(main, *argv) == 1
        return one_error_line(capsys.readouterr().err)

    return run


class Run:
    """A folder with a config, a list and a model that is as if trained."""

    def __init__(self, folder: Path):
        self.folder, self.model_dir = folder, folder / "model"
        self.data = write_corpus(folder / "data")
        self.config = run_config(folder, stage2_config())
        configs = load_config(self.config)
        prepare_configs(configs, init_tokenizer(configs))
        save_checkpoint(init_model(configs), self.model_dir / "final.pt", {"epoch": 0, "step": 1})
        save_config(configs, self.model_dir / "train.yaml")

    def train(self, *more: object, config: Path | None = None, data: object = None) -> list[object]:
        args = ["--config", config or self.config, "--train_data", data or self.data, "--cv_data", self.data]
        args += [
            "--model_dir",
            self.folder / "new",
            "--tensorboard_dir",
            self.folder / "log",
            "--device",
            "cpu",
        ]
        return [*args, *more]

    def decode(self, *more: object, data: object = None) -> list[object]:
        args = ["--config", self.model_dir / "train.yaml", "--checkpoint", self.model_dir / "final.pt"]
        args += [
            "--test_data",
            data or self.data,
            "--result_dir",
            self.folder / "out",
            "--modes",
            "llm_greedy",
        ]
        return [*args, *more]

    def lines(self) -> list[dict[str, Any]]:
        return [sample for _, sample in read_raw_list(self.data)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_epoch: 1\nmodle: osum\n", ["modle", "did you mean model?"]),
        ("seed: 1\nmax_epoch: [1\n", ["broken.yaml:", "not YAML"]),
        ("encoder_conf: {num_block: 2}\n", ["encoder_conf.num_block"]),
        ("decoder: gpt\n", ["decoder", "gpt", "llm"]),
        ("tokenizer_conf: {model: a}\n", ["tokenizer_conf.model"]),
        ("tokenizer_conf: {symbol_table_path: none.txt}\n", ["none.txt", "no such file"]),
        ("tasks: none.yaml\n", ["none.yaml"]),
        ("dataset: webdataset\n", ["dataset", "webdataset"]),
        ("decoder_conf: {llm: /no/such/folder}\n", ["decoder_conf.llm", "/no/such/folder"]),
        ("encoder_conf: {output_size: wide}\n", ["encoder"]),
    ],
    ids=lambda v: v.partition(":")[0] if isinstance(v, str) else "",
)
def test_bad_input_config(run: Run, fails: Fails, text: str, words: list[str]):
    path = run.folder / "broken.yaml"
    whole = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    kept = {k: v for k, v in whole.items() if k not in re.findall(r"^(\w+):", text, re.MULTILINE)}
    path.write_text(yaml.safe_dump(kept, allow_unicode=True) + text, encoding="utf-8")
    line = fails(train.main, *run.train(config=path))
    assert all(word in line for word in words), line


def test_bad_input_missing_files(run: Run, fails: Fails):
    none = run.folder / "none"
    assert "none" in fails(train.main, *run.train(config=none))
    assert "none" in fails(train.main, *run.train(data=none))
    assert "none" in fails(train.main, *run.train("--cv_data", none))
    assert "none" in fails(train.main, *run.train("--checkpoint", none))
    assert "none" in fails(train.main, *run.train("--enc_init", none))
    assert "none" in fails(recognize.main, *run.decode(data=none))
    assert "none" in fails(recognize.main, *run.decode("--checkpoint", none))
    assert "none" in fails(average_model.main, "--src_path", none, "--dst_model", run.folder / "avg.pt")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"key": "a", "wav": "a.wav", "txt": "no"\n', ["bad.list:7", "malformed JSON"]),
        (b'{"key": "a", "txt": "no"}\n', ["bad.list:7", "wav is missing"]),
        (b'{"key": "a", "wav": "a.wav", "txt": "\xff\xfe"}\n', ["bad.list:7", "not UTF-8"]),
        (b'{"key": "u00", "wav": "a.wav", "txt": "no"}\n', ["bad.list:7", "u00", "twice"]),
        (
            b'{"key": "a", "wav": "data/u00.wav", "txt": "no<sad>", "task": "<TRANSCRIBE> <MOOD>"}\n',
            ["bad.list:7", "unknown task"],
        ),
        (b'{"key": "a", "wav": "data/u00.wav", "txt": "no", "emotion": "hungry"}\n', ["a", "hungry"]),
    ],
    ids=["json", "missing_key", "utf8", "twice", "unknown_task", "bad_label"],
)
def test_bad_input_list(
    run: Run, fails: Fails, monkeypatch: pytest.MonkeyPatch, line: bytes, words: list[str]
):
    monkeypatch.chdir(run.folder)
    path = run.folder / "bad.list"
    path.write_bytes(run.data.read_bytes() + line)
    for message in (
        fails(train.main, *run.train(data=path)),
        fails(recognize.main, *run.decode("--task", "ser", data=path)),
    ):
        assert all(word in message for word in words), message
    assert not (run.folder / "out").exists() and not list((run.folder / "new").glob("*.pt"))


def test_bad_input_found_by_a_data_worker_is_one_line_too(run: Run, fails: Fails):
    samples = run.lines()
    samples[3]["emotion"] = "hungry"
    path = write_list(run.folder / "bad.list", samples)
    assert "hungry" in fails(recognize.main, *run.decode("--task", "ser", "--num_workers", 1, data=path))


def test_bad_input_cut_off_tar(run: Run, fails: Fails):
    shards = run.folder / "shards.list"
    write_shards(run.lines(), run.folder / "shards", shards, shard_type="shard")
    tar = next((run.folder / "shards").iterdir())
    tar.write_bytes(tar.read_bytes()[:-15000])
    for main, args in ((train.main, run.train(data=shards)), (recognize.main, run.decode(data=shards))):
        assert tar.name in fails(main, *args, "--data_type", "shard")
    shards.write_text("missing.tar\n")
    assert "missing.tar" in fails(recognize.main, *run.decode("--data_type", "shard", data=shards))


def test_bad_input_nothing_usable(run: Run, fails: Fails):
    samples = [{**s, "wav": "missing.wav"} for s in run.lines()]
    path = write_list(run.folder / "bad.list", samples)
    for main, args in ((train.main, run.train(data=path)), (recognize.main, run.decode(data=path))):
        message = fails(main, *args)
        assert "no utterance can be" in message and "6 missing" in message
    path.write_text("")
    assert "bad.list" in fails(train.main, *run.train(data=path))
    assert "bad.list" in fails(train.main, *run.train("--cv_data", path))


def test_bad_input_unknown_task_or_mode(run: Run, fails: Fails):
    message = fails(recognize.main, *run.decode("--task", "asr,mood"))
    assert "mood" in message and "<TRANSCRIBE> <EMOTION>" in message
    assert "rescoring" in fails(recognize.main, *run.decode("--modes", "rescoring"))
    assert not list((run.folder / "out").rglob("text"))


def test_bad_input_checkpoint_of_another_shape(run: Run, fails: Fails):
    deeper = stage2_config()
    deeper["encoder_conf"]["linear_units"] = 64
    other = run_config(run.folder, deeper)
    message = fails(train.main, *run.train("--checkpoint", run.model_dir / "final.pt", config=other))
    assert "final.pt" in message and "(48, 32)" in message and "(64, 32)" in message
    wrong = ["--override_config", "encoder_conf.linear_units=64"]
    assert "final.pt" in fails(recognize.main, *run.decode(*wrong))
    message = fails(train.main, *run.train("--enc_init", run.model_dir / "final.pt", config=other))
    assert "final.pt" in message and "encoder_conf" in message


@pytest.mark.parametrize("name", ["decoder.embed.0.weight", "encoder.layers.0.fc1.weight"])
def test_bad_input_checkpoint_of_a_whisper_alone(run: Run, fails: Fails, name: str):
    path = run.folder / "wenet_whisper.pt"
    torch.save({"encoder.after_norm.weight": torch.zeros(2), name: torch.zeros(2, 2)}, path)
    for main, args in ((train.main, run.train()), (recognize.main, run.decode())):
        message = fails(main, *args, "--checkpoint", path)
        assert "wenet_whisper.pt: holds the weights of a Whisper alone" in message and "--enc_init" in message


def test_bad_input_enc_init_mods(run: Run, fails: Fails):
    save_checkpoint(build(stage1_config()), run.folder / "stage1.pt", {})
    init = ["--enc_init", run.folder / "stage1.pt", "--enc_init_mods"]
    assert "'adapter.'" in fails(train.main, *run.train(*init, "encoder.,adapter."))
    assert "'encodr.'" in fails(train.main, *run.train(*init, "encodr."))


def test_bad_input_truncated_checkpoint(run: Run, fails: Fails):
    path = run.model_dir / "final.pt"
    path.write_bytes(path.read_bytes()[:-5000])
    assert "final.pt" in fails(recognize.main, *run.decode())
    assert "final.pt" in fails(train.main, *run.train("--checkpoint", path))
    shutil.copy(path, run.model_dir / "epoch_0.pt")
    (run.model_dir / "epoch_0.yaml").write_text("epoch: 0\nstep: 1\nloss_dict: {loss: 1.0}\n")
    average = ["--src_path", run.model_dir, "--dst_model", run.folder / "avg.pt", "--num", 1]
    assert "epoch_0.pt" in fails(average_model.main, *average)
    assert not (run.folder / "avg.pt").exists()


def test_bad_input_tokenizer_of_another_run(run: Run, fails: Fails):
    units = run.folder / "units.txt"
    count = len(units.read_text(encoding="utf-8").splitlines())
    with open(units, "a", encoding="utf-8") as f:
        f.write(f"新 {count}\n")
    assert f"{count + 1} ids" in fails(recognize.main, *run.decode())


def test_bad_input_paths_that_cannot_be(run: Run, fails: Fails):
    (run.folder / "file").write_text("")
    assert "file" in fails(train.main, *run.train("--model_dir", run.folder / "file"))
    assert "file" in fails(recognize.main, *run.decode("--result_dir", run.folder / "file" / "out"))
    assert "data" in fails(train.main, *run.train(config=run.folder / "data"))
    dst = ["--dst_model", run.folder / "data", "--num", 1]
    shutil.copy(run.model_dir / "final.pt", run.model_dir / "epoch_0.pt")
    (run.model_dir / "epoch_0.yaml").write_text("epoch: 0\nstep: 1\nloss_dict: {loss: 1.0}\n")
    assert "data" in fails(average_model.main, "--src_path", run.model_dir, *dst)


def test_bad_input_device_and_type(run: Run, fails: Fails):
    assert "fp16" in fails(train.main, *run.train("--dtype", "fp16"))
    if not torch.cuda.is_available():
        assert "--device cuda" in fails(recognize.main, *run.decode("--device", "cuda"))


# --- a full disk ---


def test_bad_input_full_disk_while_saving_a_checkpoint(
    run: Run, fails: Fails, monkeypatch: pytest.MonkeyPatch
):
    fill_disk(monkeypatch, 20_000)  # train.yaml fits, the weights do not
    message = fails(train.main, *run.train())
    assert "No space left on device" in message and "init.pt" in message
    names = {p.name for p in (run.folder / "new").iterdir()}
    assert names == {"train.yaml", "index", ".lock"}


def test_bad_input_full_disk_while_copying_the_last_checkpoint(
    run: Run, fails: Fails, monkeypatch: pytest.MonkeyPatch
):
    def half(source: Any, target: Any, *_: Any) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:1000])
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", half)
    monkeypatch.setattr(shutil, "copyfileobj", lambda a, b, *_: half(a.name, b.name))
    command(train.main, *run.train())
    whole = read_state(run.folder / "new" / "epoch_0.pt")
    final = run.folder / "new" / "final.pt"
    if final.exists():  # made in a way that needs no copy, or not at all
        assert read_state(final).keys() == whole.keys()
    assert not [p.name for p in (run.folder / "new").iterdir() if "tmp" in p.name]


def test_bad_input_full_disk_while_decoding(run: Run, fails: Fails, monkeypatch: pytest.MonkeyPatch):
    fill_disk(monkeypatch, 10)
    message = fails(recognize.main, *run.decode())
    assert "No space left on device" in message and "list.idx" in message
    assert not (run.folder / "out").exists()


def test_bad_input_full_disk_while_averaging(run: Run, fails: Fails, monkeypatch: pytest.MonkeyPatch):
    shutil.copy(run.model_dir / "final.pt", run.model_dir / "epoch_0.pt")
    (run.model_dir / "epoch_0.yaml").write_text("epoch: 0\nstep: 1\nloss_dict: {loss: 1.0}\n")
    fill_disk(monkeypatch, 20_000)
    average = ["--src_path", run.model_dir, "--dst_model", run.folder / "avg.pt", "--num", 1]
    assert "No space left on device" in fails(average_model.main, *average)
    assert not [p.name for p in run.folder.iterdir() if "avg" in p.name]


# --- how commands end ---


def end_of(main: Callable[[], int | None]) -> int:
    with pytest.raises(SystemExit) as e:
        run_main(main)
    return int(e.value.code or 0)


def test_bad_input_exit_statuses(capfd: pytest.CaptureFixture[str]):
    def raiser(error: BaseException) -> Callable[[], int]:
        def main() -> int:
            raise error

        return main

    assert end_of(lambda: None) == 0 and end_of(lambda: 3) == 3
    assert end_of(raiser(OsumError("a.list:3", "is wrong", "mend it"))) == 1
    assert end_of(raiser(FileNotFoundError(errno.ENOENT, "No such file or directory", "b.txt"))) == 1
    assert end_of(raiser(KeyboardInterrupt())) == 130
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "error: a.list:3: is wrong; mend it"
    assert lines[1].startswith("error: b.txt: No such file") and lines[2] == "interrupted"
    with pytest.raises(ZeroDivisionError):  # a fault of ours keeps its traceback
        run_main(lambda: 1 // 0)


def test_cli_lists_its_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.argv", ["osum", "--help"])
    assert cli.main() == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.COMMANDS)
    for name in cli.COMMANDS:
        monkeypatch.setattr("sys.argv", ["osum", name, "--help"])
        with pytest.raises(SystemExit) as e:
            cli.main()
        assert e.value.code == 0 and name.replace("_", "-") in capsys.readouterr().out.replace("_", "-")


def test_bad_input_unknown_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["osum", "trian"])
    with pytest.raises(OsumError, match="trian.*train"):
        cli.main()


def test_skipped_list_is_json(run: Run):
    samples = run.lines()
    samples[2]["wav"] = "no/such/音频.wav"
    path = write_list(run.folder / "some.list", samples)
    assert command(recognize.main, *run.decode("--task", "asr", data=path)) == 0
    rows = [
        json.loads(x) for x in (run.folder / "out" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [(r["key"], r["cause"]) for r in rows] == [("u02", "missing")] and "音频" in rows[0]["detail"]
