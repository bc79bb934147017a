"""Training, averaging, decoding and scoring end to end on seconds of noise; what a step computes."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import command, run_config, stage1_config, stage2_config, write_corpus, write_list
from test_dataset import CAUSES, bad_corpus

from wenet_osum.bin import average_model, recognize, score, train
from wenet_osum.checkpoint.assemble import load_table, prepare_configs
from wenet_osum.checkpoint.weights import read_state, save_checkpoint
from wenet_osum.config import load_config
from wenet_osum.dataset.dataset import OsumDataset
from wenet_osum.dataset.index_build import build_index
from wenet_osum.dataset.loader import Loader
from wenet_osum.errors import OsumError
from wenet_osum.registry import init_model
from wenet_osum.text import init_tokenizer
from wenet_osum.train.engine import Engine
from wenet_osum.train.loop import Trainer

WITH_CTC = {**stage2_config()["model_conf"], "ctc_weight": 0.3}


def train_args(folder: Path, config: Path, data: Path, name: str, *more: object) -> list[object]:
    args = ["--config", config, "--train_data", data, "--cv_data", data, "--model_dir", folder / name]
    args += ["--tensorboard_dir", folder / "tensorboard", "--num_threads", 1, "--device", "cpu"]
    return [*args, *more]


def decode_args(folder: Path, model_dir: Path, data: Path, name: str, *more: object) -> list[object]:
    args = ["--config", model_dir / "train.yaml", "--checkpoint", model_dir / "final.pt", "--test_data", data]
    return [*args, "--result_dir", folder / name, "--num_threads", 1, *more]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both stages trained: stage1/, stage2/, data/."""
    folder = tmp_path_factory.mktemp("run")
    data = write_corpus(folder / "data")
    config = run_config(folder, stage1_config())
    assert command(train.main, *train_args(folder, config, data, "stage1")) == 0
    config = run_config(folder, stage2_config(model_conf=WITH_CTC), max_epoch=2)
    init = ["--enc_init", folder / "stage1" / "final.pt", "--enc_init_mods", "encoder.,ctc."]
    assert command(train.main, *train_args(folder, config, data, "stage2", *init)) == 0
    return folder


@pytest.mark.integration
def test_training_leaves_wenets_files(run: Path):
    names = {p.name for p in (run / "stage2").iterdir()}
    assert names >= {"train.yaml", "epoch_0.pt", "epoch_0.yaml", "epoch_1.pt", "epoch_1.yaml", "final.pt"}
    assert not [n for n in names if "tmp" in n]
    facts = yaml.safe_load((run / "stage2" / "epoch_1.yaml").read_text(encoding="utf-8"))
    assert facts["epoch"] == 1 and facts["step"] == 4 and facts["loss_dict"]["loss"] > 0
    first = yaml.safe_load((run / "stage2" / "epoch_0.yaml").read_text(encoding="utf-8"))
    assert facts["loss_dict"]["loss"] < first["loss_dict"]["loss"]
    assert (run / "stage2" / "final.pt").read_bytes() == (run / "stage2" / "epoch_1.pt").read_bytes()
    assert list((run / "tensorboard" / "stage2").glob("events*"))


@pytest.mark.integration
def test_train_yaml_alone_rebuilds_the_run(run: Path):
    configs = load_config(run / "stage2" / "train.yaml")
    tokenizer = init_tokenizer(configs)
    prepare_configs(configs, tokenizer)
    assert configs["vocab_size"] == tokenizer.vocab_size()
    init_model(configs)


@pytest.mark.integration
def test_stage_two_begins_with_the_encoder_of_stage_one(run: Path, tmp_path: Path):
    config = run_config(tmp_path, stage2_config(model_conf={**WITH_CTC, "trainable": ["adapter"]}))
    init = ["--enc_init", run / "stage1" / "final.pt", "--enc_init_mods", "encoder."]
    assert command(train.main, *train_args(tmp_path, config, run / "data" / "data.list", "m", *init)) == 0
    before, after = read_state(run / "stage1" / "final.pt"), read_state(tmp_path / "m" / "final.pt")
    names = [n for n in after if n.startswith("encoder.")]
    assert names and all(torch.equal(before[n], after[n]) for n in names)


@pytest.mark.integration
def test_average_recognize_score(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model_dir, data = run / "stage2", run / "data" / "data.list"
    average = tmp_path / "avg_2.pt"
    assert command(average_model.main, "--src_path", model_dir, "--dst_model", average, "--num", 2) == 0
    epochs = [read_state(model_dir / f"epoch_{i}.pt") for i in (0, 1)]
    mean = read_state(average)
    name = "adapter.project.weight"
    torch.testing.assert_close(mean[name], (epochs[0][name] + epochs[1][name]) / 2)

    modes = [
        "--modes",
        "llm_greedy",
        "ctc_greedy_search",
        "--task",
        "asr,<TRANSCRIBE><EMOTION>,sgc",
        "--labelled_only",
    ]
    args = decode_args(tmp_path, model_dir, data, "decode", *modes, "--checkpoint", average)
    assert command(recognize.main, *args) == 0
    keys = [f"u{i:02}" for i in range(6)]
    for task in ("asr", "ser"):
        for mode in ("llm_greedy", "ctc_greedy_search"):
            folder = tmp_path / "decode" / task / mode
            lines = (folder / "text").read_text(encoding="utf-8").splitlines()
            assert [line.split(" ")[0] for line in lines] == keys
            rows = [
                json.loads(line)
                for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
            ]
            assert [r["key"] for r in rows] == keys and {r["task"] for r in rows} == {task}
    assert not (tmp_path / "decode" / "sgc").exists()  # nobody's gender is known

    out = tmp_path / "scores.json"
    args = ["--data", data, "--decode_dir", tmp_path / "decode", "--output", out, "--resamples", 20]
    assert command(score.main, *args, "--require", "asr,ser") == 0
    scores = json.loads(out.read_text(encoding="utf-8"))
    assert set(scores) == {"asr", "ser"} and scores["ser"]["counts"]["utterances"] == 6
    capsys.readouterr()


@pytest.mark.integration
def test_a_task_of_any_name_can_be_decoded(run: Path, tmp_path: Path):
    """One that training gave no weight, on an utterance without labels."""
    wav = str(run / "data" / "u00.wav")
    data = write_list(tmp_path / "a.list", [{"key": "a", "wav": wav, "txt": ""}])
    args = decode_args(
        tmp_path, run / "stage2", data, "decode", "--modes", "llm_greedy", "--task", "age_gender"
    )
    assert command(recognize.main, *args) == 0
    assert (tmp_path / "decode" / "llm_greedy" / "text").read_text(encoding="utf-8").startswith("a")


@pytest.mark.integration
def test_batch_equals_single_recognize(run: Path, tmp_path: Path):
    data = write_corpus(tmp_path / "data", count=17, first=20)  # 16 together and one left over
    torch.manual_seed(1)
    model = init_model(load_and_prepare(run / "stage2" / "train.yaml"))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8 if p.dim() > 1 else 1)
    save_checkpoint(model, tmp_path / "sharp.pt", {})  # answers that differ by utterance
    texts = []
    for size in (1, 16):
        modes = [
            "--modes",
            "llm_greedy",
            "--task",
            "ser",
            "--batch_size",
            size,
            "--checkpoint",
            tmp_path / "sharp.pt",
        ]
        assert command(recognize.main, *decode_args(tmp_path, run / "stage2", data, f"by{size}", *modes)) == 0
        texts.append((tmp_path / f"by{size}" / "llm_greedy" / "text").read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    assert len({line.partition(" ")[2] for line in texts[0].splitlines()}) > 5


def load_and_prepare(path: Path) -> dict[str, Any]:
    configs = load_config(path)
    prepare_configs(configs, init_tokenizer({**configs, "tokenizer_conf": without_ids(configs)}))
    return configs


def without_ids(configs: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in configs["tokenizer_conf"].items() if k != "special_tokens"}


@pytest.mark.integration
def test_resume_goes_on_after_the_checkpoint(run: Path, tmp_path: Path):
    config = run_config(tmp_path, stage2_config(model_conf=WITH_CTC), max_epoch=3)
    more = ["--checkpoint", run / "stage2" / "epoch_1.pt"]
    assert command(train.main, *train_args(tmp_path, config, run / "data" / "data.list", "m", *more)) == 0
    assert {p.stem for p in (tmp_path / "m").glob("epoch_*.pt")} == {"epoch_2"}
    facts = yaml.safe_load((tmp_path / "m" / "epoch_2.yaml").read_text(encoding="utf-8"))
    assert facts["step"] == 6
    assert (
        facts["loss_dict"]["loss"]
        < yaml.safe_load((run / "stage2" / "epoch_0.yaml").read_text())["loss_dict"]["loss"]
    )


@pytest.mark.integration
def test_the_same_command_gives_the_same_weights(run: Path, tmp_path: Path):
    weights = []
    for name in ("a", "b"):
        config = run_config(tmp_path, stage2_config())
        assert command(train.main, *train_args(tmp_path, config, run / "data" / "data.list", name)) == 0
        weights.append(read_state(tmp_path / name / "final.pt"))
    assert all(torch.equal(t, weights[1][n]) for n, t in weights[0].items())


@pytest.mark.integration
def test_bad_input_utterances_while_training_and_decoding(run: Path, tmp_path: Path):
    data = bad_corpus(tmp_path / "data")
    config = run_config(tmp_path, stage2_config())
    assert command(train.main, *train_args(tmp_path, config, data, "m")) == 0
    listed = [
        json.loads(line)
        for line in (tmp_path / "m" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert {s["key"]: s["cause"] for s in listed} == CAUSES

    args = decode_args(tmp_path, run / "stage2", data, "decode", "--modes", "llm_greedy", "--task", "asr")
    assert command(recognize.main, *args) == 0
    listed = [
        json.loads(line)
        for line in (tmp_path / "decode" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    # As in WeNet, no utterance is too short to be decoded.
    left = {**CAUSES, "empty": "empty"}
    assert left.pop("short") == "too_short"
    assert {s["key"]: s["cause"] for s in listed} == left
    lines = (tmp_path / "decode" / "llm_greedy" / "text").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ")[0] for line in lines] == [*(f"u{i:02}" for i in range(6)), "short"]


@pytest.mark.integration
def test_answers_longer_than_the_decoder_are_set_aside(tmp_path: Path):
    """Whisper's table has so many text positions; an utterance beyond them is no reason to stop."""
    samples = [
        json.loads(line)
        for line in write_corpus(tmp_path / "data", 3).read_text(encoding="utf-8").splitlines()
    ]
    samples[0]["txt"] = "no " * 148 + "no"
    data = write_list(tmp_path / "data" / "data.list", samples)
    config = run_config(tmp_path, stage1_config())
    assert command(train.main, *train_args(tmp_path, config, data, "m")) == 0


# --- what one step computes ---


MODELS = {
    "ctc": stage2_config(model_conf=WITH_CTC),
    # Of what the adapter's part has, the ends of speech are the LLM's alone, and get no gradient.
    "words": stage2_config(
        model_conf={**WITH_CTC, "ctc_weight": 1.0, "trainable": ["adapter", "encoder", "ctc"]}, ctc="words"
    ),
}


def make_trainer(
    folder: Path, data: Path, batch_size: int, accum_grad: int, engine: Engine, model: str = "ctc"
) -> Trainer:
    changes = {"accum_grad": accum_grad, "optim_conf": {"lr": 0.1, "eps": 1e-3}, "grad_clip": 1e6}
    path = run_config(folder, MODELS[model], **changes)
    configs = load_config(path, [f"dataset_conf.batch_conf.batch_size={batch_size}"])
    tokenizer = init_tokenizer(configs)
    prepare_configs(configs, tokenizer)
    table, conf = load_table(configs), configs["dataset_conf"]
    index = build_index(data, "raw", table, tokenizer.encode, conf)
    torch.manual_seed(0)
    built = init_model(copy.deepcopy(configs))
    dataset = OsumDataset(index, table, tokenizer, conf, configs["seed"], train=False)
    loaders = [Loader(dataset, rank=engine.rank, world_size=engine.world_size) for _ in range(2)]
    return Trainer(built, configs, *loaders, engine, folder, folder / "log")


def first_update(trainer: Trainer) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Gradients at the first optimizer step, and the weights after it."""
    grads: dict[str, torch.Tensor] = {}
    step = trainer.optimizer.step

    def keep(*args: Any, **kwargs: Any) -> Any:
        grads.update({n: p.grad.clone() for n, p in trainer.bare.named_parameters() if p.grad is not None})
        return step(*args, **kwargs)

    trainer.optimizer.step = keep  # type: ignore[method-assign]
    trainer.run_epoch()
    assert trainer.step == 1
    return grads, {n: p.detach().clone() for n, p in trainer.bare.named_parameters()}


def check_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float) -> None:
    assert a.keys() == b.keys() and len(a) > 20
    for name, tensor in a.items():
        torch.testing.assert_close(
            tensor, b[name], atol=atol, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_half_batches_accumulate_to_the_whole_batch(tmp_path: Path):
    data = write_corpus(tmp_path / "data", 4)
    whole = first_update(make_trainer(tmp_path, data, 2, 2, Engine()))
    halves = first_update(make_trainer(tmp_path, data, 1, 4, Engine()))
    assert max(float(g.abs().max()) for g in whole[0].values()) > 1e-2
    check_equal(whole[0], halves[0], 1e-5)
    check_equal(whole[1], halves[1], 1e-3)


def one_rank(rank: int, port: int, folder: Path, data: Path, model: str, how: dict[str, Any]) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    engine = Engine(**how)
    grads, weights = first_update(make_trainer(folder / f"rank{rank}", data, 2, 1, engine, model))
    torch.save({"grads": grads, "weights": weights}, folder / f"rank{rank}.pt")
    engine.close()


def run_ranks(folder: Path, data: Path, model: str = "ctc", **how: Any) -> list[dict[str, Any]]:
    """Two processes of a distributed run with an ``Engine(**how)``; fails when they have not ended in time."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context = multiprocessing.get_context("fork")  # without importing torch anew
    ranks = [context.Process(target=one_rank, args=(r, port, folder, data, model, how)) for r in (0, 1)]
    for r, process in enumerate(ranks):
        (folder / f"rank{r}").mkdir(exist_ok=True)
        process.start()
    for process in ranks:
        process.join(timeout=40)
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    assert codes == [0, 0]  # None: it hangs
    return [torch.load(folder / f"rank{r}.pt") for r in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_two_ranks_make_the_update_of_one(tmp_path: Path, model: str):
    data = write_corpus(tmp_path / "data", 4)
    grads, weights = first_update(make_trainer(tmp_path, data, 2, 2, Engine(), model))
    for result in run_ranks(tmp_path, data, model):
        check_equal(grads, result["grads"], 1e-5)
        check_equal(weights, result["weights"], 1e-3)


@pytest.mark.slow
def test_gradients_exchanged_in_half_precision(tmp_path: Path):
    data = write_corpus(tmp_path / "data", 4)
    grads, _ = first_update(make_trainer(tmp_path, data, 2, 2, Engine()))
    results = run_ranks(tmp_path, data, fp16_grad_sync=True)
    for result in results:
        check_equal(grads, result["grads"], 2e-3)
        assert any(not torch.equal(g, g.half().float()) for g in grads.values())
        assert all(torch.equal(g, g.half().float()) for g in result["grads"].values())
    check_equal(results[0]["weights"], results[1]["weights"], 1e-6)


@pytest.mark.slow
def test_bad_input_batch_of_one_rank_does_not_hang_the_other(tmp_path: Path):
    """When nothing in a rank's batch can be read, it must still take part in the exchange of gradients."""
    data = write_corpus(tmp_path / "data", 4)
    samples = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    for sample in samples[2:]:  # the longer two: the second rank's batch
        sample["duration"] = 1.0
        Path(sample["wav"]).unlink()
    results = run_ranks(tmp_path, write_list(data, samples))
    check_equal(results[0]["weights"], results[1]["weights"], 1e-6)


def test_bad_input_too_many_bad_utterances_stop_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = write_corpus(tmp_path / "data", 16)
    for i in range(12):
        wav = tmp_path / "data" / f"u{i:02}.wav"
        wav.write_bytes(wav.read_bytes()[:-2000])
    config = run_config(tmp_path, stage2_config(), max_epoch=3)
    assert command(train.main, *train_args(tmp_path, config, data, "m")) == 1
    error = capsys.readouterr().err
    assert "cannot be read" in error and "truncated" in error and "max_bad_share" in error
    assert not (tmp_path / "m" / "final.pt").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_input_step_whose_loss_is_no_number_is_not_taken(
    tmp_path: Path, value: float, capsys: pytest.CaptureFixture[str]
):
    """The utterances are named; the weights and the optimizer stay; the next step is taken."""
    data = write_corpus(tmp_path / "data", 8)
    trainer = make_trainer(tmp_path, data, 2, 2, Engine())
    calls: list[int] = []

    def poison(module: Any, args: Any, out: Any) -> Any:
        calls.append(1)
        return (out[0] * value, out[1]) if len(calls) == 2 else out

    trainer.bare.encoder.register_forward_hook(poison)
    before = {n: p.detach().clone() for n, p in trainer.bare.named_parameters()}
    at_second: dict[str, torch.Tensor] = {}
    step = trainer.engine.step

    def watch(skip: bool = False) -> None:
        step(skip)
        if not at_second:
            at_second.update({n: p.detach().clone() for n, p in trainer.bare.named_parameters()})

    trainer.engine.step = watch  # type: ignore[method-assign]
    assert trainer.run_epoch() and trainer.step == 2
    assert all(torch.equal(p, before[n]) for n, p in at_second.items())
    assert any(not torch.equal(p, before[n]) for n, p in trainer.bare.named_parameters())
    (row,) = [json.loads(line) for line in (tmp_path / "bad_steps.jsonl").read_text().splitlines()]
    assert row["step"] == 0 and len(row["keys"]) == 2 and "not a number" in row["cause"]
    assert row["keys"][0] in capsys.readouterr().out


def test_bad_input_too_many_bad_steps_stop_the_run(tmp_path: Path):
    trainer = make_trainer(tmp_path, write_corpus(tmp_path / "data", 8), 1, 1, Engine())
    trainer.health.most = 3
    trainer.bare.encoder.register_forward_hook(lambda m, i, out: (out[0] * float("nan"), out[1]))
    with pytest.raises(OsumError, match="3 of the last 3 steps were bad, the last: the loss is nan"):
        trainer.run_epoch()
    assert len((tmp_path / "bad_steps.jsonl").read_text().splitlines()) == 3


def test_inf_gradient_never_reaches_the_weights(tmp_path: Path):
    trainer = make_trainer(tmp_path, write_corpus(tmp_path / "data", 4), 4, 1, Engine())
    before = {n: p.detach().clone() for n, p in trainer.bare.named_parameters()}
    weight = next(trainer.bare.adapter.parameters())
    weight.register_hook(lambda g: g.index_fill(0, torch.tensor([0]), float("inf")))
    trainer.run_epoch()
    assert all(torch.equal(p, before[n]) for n, p in trainer.bare.named_parameters())
    assert "norm is inf" in (tmp_path / "bad_steps.jsonl").read_text()
