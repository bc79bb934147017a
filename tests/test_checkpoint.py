"""Writing, reading, taking over and averaging weights."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import LLM, build, fill_disk, random_batch, stage1_config, stage2_config
from torch import nn

from wenet_osum.checkpoint.average import average, find_checkpoints, write_average
from wenet_osum.checkpoint.weights import init_modules, load_checkpoint, read_state, save_checkpoint
from wenet_osum.errors import OsumError

LIMITS = (0, 1 << 30, 0, 1 << 30)


def same(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(t, theirs[n]) for n, t in a.state_dict().items())


def test_round_trip(tmp_path: Path):
    model, other = build(stage2_config(), seed=0), build(stage2_config(), seed=1)
    assert not same(model, other)
    save_checkpoint(model, tmp_path / "epoch_0.pt", {"epoch": 0, "note": "一"})
    load_checkpoint(other, tmp_path / "epoch_0.pt")
    assert same(model, other)
    assert yaml.safe_load((tmp_path / "epoch_0.yaml").read_text(encoding="utf-8")) == {
        "epoch": 0,
        "note": "一",
    }
    assert {p.name for p in tmp_path.iterdir()} == {"epoch_0.pt", "epoch_0.yaml"}


def lora_model(folder: Path, seed: int, **model_conf: Any) -> Any:
    model_conf = {**stage2_config()["model_conf"], **model_conf}
    config = stage2_config(decoder_conf={"llm": str(folder), "lora": {"r": 4}}, model_conf=model_conf)
    model = build(config, seed=seed)
    for p in model.decoder.lora_parameters():
        p.data.normal_()
    return model


def test_frozen_llm_is_read_from_its_folder_and_not_written(tmp_path: Path, llm_folder: Path):
    model, other = lora_model(llm_folder, 0), lora_model(llm_folder, 1)
    save_checkpoint(model, tmp_path / "a.pt", {})
    written = read_state(tmp_path / "a.pt")
    llm = [n for n in written if n.startswith("decoder.")]
    assert llm and all("lora_" in n for n in llm)
    load_checkpoint(other, tmp_path / "a.pt")
    assert same(model, other)
    batch = random_batch([40, 60])
    with torch.no_grad():
        device = torch.device("cpu")
        torch.testing.assert_close(model.eval()(batch, device)["loss"], other.eval()(batch, device)["loss"])


def test_random_llm_under_lora_is_written(tmp_path: Path):
    config = stage2_config(decoder_conf={"llm_config": LLM, "lora": {}})
    model, other = build(config, seed=0), build(config, seed=1)
    save_checkpoint(model, tmp_path / "a.pt", {})
    load_checkpoint(other, tmp_path / "a.pt")
    assert same(model, other)


def test_lora_that_no_longer_learns_is_kept(tmp_path: Path, llm_folder: Path):
    """A phase that trains the adapter alone must not lose the LoRA weights of the phase before."""
    model, other = (
        lora_model(llm_folder, 0, trainable=["adapter"]),
        lora_model(llm_folder, 1, trainable=["adapter"]),
    )
    save_checkpoint(model, tmp_path / "a.pt", {})
    load_checkpoint(other, tmp_path / "a.pt")
    assert same(model, other)


def test_phases_follow_each_other_by_checkpoint(tmp_path: Path, llm_folder: Path):
    """The authors' order: adapter, then encoder too, then LoRA; each begins from the one before."""
    last = None
    for seed, trainable in enumerate((["adapter"], ["adapter", "encoder"], ["adapter", "encoder", "lora"])):
        model = lora_model(llm_folder, seed, trainable=trainable)
        if last:
            load_checkpoint(model, last)
        last = tmp_path / f"{seed}.pt"
        save_checkpoint(model, last, {})


def test_llm_trained_in_an_earlier_phase_is_kept(tmp_path: Path, llm_folder: Path):
    def model(seed: int, trainable: list[str]) -> Any:
        model_conf = {**stage2_config()["model_conf"], "trainable": trainable}
        return build(stage2_config(decoder_conf={"llm": str(llm_folder)}, model_conf=model_conf), seed=seed)

    first = model(0, ["llm", "adapter"])
    for p in first.decoder.parameters():
        p.data.add_(0.5)  # what training would do
    save_checkpoint(first, tmp_path / "first.pt", {})
    second = model(1, ["adapter"])
    load_checkpoint(second, tmp_path / "first.pt")
    save_checkpoint(second, tmp_path / "second.pt", {})
    third = model(2, ["adapter"])
    load_checkpoint(third, tmp_path / "second.pt")
    assert same(third, first)


def test_bad_input_checkpoint_of_another_shape(tmp_path: Path):
    save_checkpoint(build(stage2_config()), tmp_path / "a.pt", {})
    wider = stage2_config()
    wider["encoder_conf"]["linear_units"] = 64
    with pytest.raises(
        OsumError, match=r"a\.pt: encoder\.encoders\.0\.feed_forward\.w_1\.weight is \(48, 32\).*\(64, 32\)"
    ):
        load_checkpoint(build(wider), tmp_path / "a.pt")


def test_bad_input_checkpoint_with_missing_or_strange_keys(tmp_path: Path):
    model = build(stage2_config())
    state = model.state_dict()
    first = next(iter(state))
    torch.save({n: t for n, t in state.items() if n != first}, tmp_path / "less.pt")
    with pytest.raises(OsumError, match=f"1 weights are missing, the first is {first}"):
        load_checkpoint(model, tmp_path / "less.pt")
    torch.save({**state, "encoder.extra": torch.zeros(1)}, tmp_path / "more.pt")
    with pytest.raises(OsumError, match=r"encoder\.extra is not in this model"):
        load_checkpoint(model, tmp_path / "more.pt")


def test_bad_input_refused_checkpoint_leaves_the_model_alone(tmp_path: Path):
    model, other = build(stage2_config(), seed=0), build(stage2_config(), seed=0)
    state = {n: t + 1 for n, t in model.state_dict().items()}
    state.popitem()
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(OsumError):
        load_checkpoint(model, tmp_path / "a.pt")
    assert same(model, other)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.999])
def test_bad_input_truncated_checkpoint(tmp_path: Path, keep: float):
    path = tmp_path / "a.pt"
    save_checkpoint(build(stage2_config()), path, {})
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(OsumError, match=r"a\.pt: not a whole checkpoint"):
        read_state(path)


def test_bad_input_not_a_checkpoint(tmp_path: Path):
    with pytest.raises(OsumError, match="no such checkpoint"):
        read_state(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello\n" * 100)
    with pytest.raises(OsumError, match=r"text\.pt"):
        read_state(tmp_path / "text.pt")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    torch.save({"model": {"a": torch.zeros(2)}, "step": 3}, tmp_path / "nested.pt")
    torch.save({"model": Path("x")}, tmp_path / "objects.pt")
    for name in ("list", "nested", "objects"):
        with pytest.raises(OsumError, match=rf"{name}\.pt"):
            read_state(tmp_path / f"{name}.pt")


# --- --enc_init ---


def test_enc_init_takes_the_named_modules_only(tmp_path: Path):
    stage1, stage2 = build(stage1_config(), seed=0), build(stage2_config(), seed=1)
    before = {n: t.clone() for n, t in stage2.state_dict().items()}
    save_checkpoint(stage1, tmp_path / "final.pt", {})
    count = init_modules(stage2, tmp_path / "final.pt", ["encoder.", "ctc."])
    taken = {n for n in before if n.startswith(("encoder.", "ctc."))}
    assert count == len(taken)
    theirs = stage1.state_dict()
    for name, tensor in stage2.state_dict().items():
        assert torch.equal(tensor, theirs[name] if name in taken else before[name])


def test_bad_input_enc_init(tmp_path: Path):
    stage1 = build(stage1_config())
    save_checkpoint(stage1, tmp_path / "final.pt", {})
    stage2 = build(stage2_config())
    with pytest.raises(OsumError, match="the checkpoint has no weights under 'adapter.'"):
        init_modules(stage2, tmp_path / "final.pt", ["encoder.", "adapter."])
    with pytest.raises(OsumError, match="this model has no weights under 'ctc.'"):
        init_modules(build(stage2_config(ctc="none")), tmp_path / "final.pt", ["ctc."])
    deeper, shallower = stage2_config(), stage2_config()
    deeper["encoder_conf"]["num_blocks"] = 3
    shallower["encoder_conf"]["num_blocks"] = 1
    with pytest.raises(OsumError, match=r"encoder\.encoders\.2.* is missing"):
        init_modules(build(deeper), tmp_path / "final.pt", ["encoder."])
    with pytest.raises(OsumError, match=r"encoder\.encoders\.1.*the model has nothing"):
        init_modules(build(shallower), tmp_path / "final.pt", ["encoder."])


# --- averaging ---


def write_run(folder: Path) -> list[dict[str, torch.Tensor]]:
    states = []
    for epoch, loss in enumerate([3.0, 1.0, 2.0]):
        state = {
            "w": torch.full((2,), float(epoch)),
            "steps": torch.tensor(epoch),
            "half": torch.ones(2).bfloat16(),
        }
        torch.save(state, folder / f"epoch_{epoch}.pt")
        facts = {"epoch": epoch, "step": 10 * (epoch + 1), "loss_dict": {"loss": loss}}
        (folder / f"epoch_{epoch}.yaml").write_text(yaml.safe_dump(facts))
        states.append(state)
    shutil.copy(folder / "epoch_0.pt", folder / "step_5.pt")
    (folder / "step_5.yaml").write_text(yaml.safe_dump({"epoch": 0, "step": 5, "loss_dict": {"loss": 0.5}}))
    (folder / "train.yaml").write_text("model: osum\n")
    return states


@pytest.mark.parametrize(
    ("num", "best", "mode", "limits", "chosen"),
    [
        (2, False, "hybrid", LIMITS, ["epoch_2", "epoch_1"]),
        (2, True, "epoch", LIMITS, ["epoch_1", "epoch_2"]),
        (1, True, "hybrid", LIMITS, ["step_5"]),
        (1, False, "step", LIMITS, ["step_5"]),
        (1, False, "epoch", (0, 1, 0, 1 << 30), ["epoch_1"]),
        (1, False, "epoch", (0, 9, 0, 10), ["epoch_0"]),
    ],
)
def test_find_checkpoints(tmp_path: Path, num: int, best: bool, mode: str, limits: Any, chosen: list[str]):
    write_run(tmp_path)
    assert [p.stem for p in find_checkpoints(tmp_path, num, best, mode, limits)] == chosen


def test_average_is_the_mean(tmp_path: Path):
    write_run(tmp_path)
    write_average([tmp_path / f"epoch_{i}.pt" for i in (0, 1, 2)], tmp_path / "avg.pt")
    got = read_state(tmp_path / "avg.pt")
    assert got["w"].tolist() == [1.0, 1.0] and got["w"].dtype == torch.float32
    assert int(got["steps"]) == 0 and got["half"].dtype == torch.bfloat16
    assert read_state(tmp_path / "epoch_0.pt")["w"].tolist() == [0.0, 0.0]


def test_bad_input_average(tmp_path: Path):
    write_run(tmp_path)
    with pytest.raises(OsumError, match="has 3 checkpoints that fit, --num is 4"):
        find_checkpoints(tmp_path, 4, False, "epoch", LIMITS)
    with pytest.raises(OsumError, match="has 0"):
        find_checkpoints(tmp_path / "none", 1, False, "epoch", LIMITS)
    with pytest.raises(OsumError):
        find_checkpoints(tmp_path, 0, False, "epoch", LIMITS)
    torch.save({"other": torch.zeros(2)}, tmp_path / "epoch_1.pt")
    with pytest.raises(OsumError, match=r"epoch_1\.pt: holds other weights"):
        average([tmp_path / "epoch_0.pt", tmp_path / "epoch_1.pt"])
    torch.save(
        {"w": torch.zeros(3), "steps": torch.tensor(1), "half": torch.ones(2)}, tmp_path / "epoch_2.pt"
    )
    with pytest.raises(OsumError, match=r"epoch_2\.pt"):  # the same names, another shape
        average([tmp_path / "epoch_0.pt", tmp_path / "epoch_2.pt"])


# --- a full disk ---


def test_bad_input_full_disk_keeps_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "epoch_0.pt"
    save_checkpoint(build(stage2_config(), seed=0), path, {"epoch": 0})
    older = path.read_bytes()
    fill_disk(monkeypatch, 20_000)
    with pytest.raises(OSError) as e:
        save_checkpoint(build(stage2_config(), seed=1), path, {"epoch": 1})
    assert e.value.errno == errno.ENOSPC
    assert path.read_bytes() == older and {p.name for p in tmp_path.iterdir()} == {
        "epoch_0.pt",
        "epoch_0.yaml",
    }
    with pytest.raises(OSError):
        write_average([path], tmp_path / "avg.pt")
    assert not (tmp_path / "avg.pt").exists()
