"""The engines make the same steps: one process, DistributedDataParallel, FSDP2, DeepSpeed's ZeRO 1 to 3."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import multiprocessing
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ADAPTER_CONFS, build, random_batch, stage2_config

from wenet_osum.errors import OsumError
from wenet_osum.train.engine import Engine, make_engine
from wenet_osum.train.optim import build_optimizer
from wenet_osum.train.zero import read_zero_config

ADAMW = {"lr": 1e-2, "betas": [0.9, 0.98], "eps": 1e-3, "weight_decay": 0.01, "lr_scale": {}}
LENGTHS = [[60, 31], [44], [90, 20, 20], [33], [70], [52, 51], [25], [80, 64], [41], [58, 30], [47], [39]]
LENGTHS += [[66], [29, 28], [73]]
EMPTY: dict[str, Any] = {
    "keys": [],
    "feats": torch.zeros(1, 100, 80),
    "feats_lengths": torch.tensor([100]),
    "prompt": torch.zeros(1, 1, dtype=torch.long),
    "target": torch.zeros(1, 0, dtype=torch.long),
    "ctc_target": torch.zeros(1, 0, dtype=torch.long),
}
# Four steps of four; in the last step the last rank has nothing for its turn, as at the end of an epoch.
BATCHES = [*(random_batch(lengths, seed=i) for i, lengths in enumerate(LENGTHS)), EMPTY]
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"
)


def tiny(**changes: Any) -> Any:
    """A tiny OSUM of which encoder, adapter, LoRA and CTC learn, the LLM's own weights do not."""
    conf = {"adapter": "osum", "adapter_conf": ADAPTER_CONFS["osum"], "max_new_tokens": 6}
    decoder = {**stage2_config()["decoder_conf"], "lora": {"lora_dropout": 0.0}}
    trainable = ["encoder", "adapter", "lora", "ctc"]
    model_conf = {**conf, "ctc_weight": 0.3, "trainable": trainable}
    return build(stage2_config(model_conf=model_conf, decoder_conf=decoder, **changes))


def adamw(model: Any) -> torch.optim.Optimizer:
    return build_optimizer(model, "adamw", ADAMW)


def one_step(engine: Engine, batches: list[dict[str, Any]], skip: bool = False) -> list[float]:
    """What the training loop does in a step over this rank's batches; loss and norm over all ranks."""
    real = [b for b in batches if b["keys"]]
    target, ctc = engine.sum(
        sum(float(b["target_weights"].sum()) for b in real),
        sum(int((b["ctc_target"] != -1).sum()) for b in real),
    )
    normalizers = {"target": target / engine.world_size, "ctc": ctc / engine.world_size}
    engine.model.train()
    total = 0.0
    for n, batch in enumerate(batches):
        with engine.accumulate(last=n == len(batches) - 1):
            with engine.autocast():
                loss = engine.model({**batch, "normalizers": normalizers}, engine.device)["loss"]
            engine.backward(loss if batch["keys"] else loss * 0)
        total += float(loss.detach()) if batch["keys"] else 0.0
    norm = engine.clip(0.5)
    engine.step(skip=skip)
    return [engine.sum(total)[0] / engine.world_size, norm]


def steps(engine: Engine, first: int = 0, end: int = 4) -> list[list[float]]:
    """Steps of four batches each, dealt out to the ranks."""
    mine = [BATCHES[4 * s + engine.rank : 4 * s + 4 : engine.world_size] for s in range(first, end)]
    return [one_step(engine, batches) for batches in mine]


def whole_run(engine: Engine, folder: Path) -> dict[str, Any]:
    engine.prepare(tiny(), adamw)
    facts = steps(engine)
    return {"facts": facts, "weights": engine.weights()}


def zero_json(folder: Path, stage: int) -> str:
    path = folder / f"ds_stage{stage}.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": stage}}), encoding="utf-8")
    return str(path)


def one_rank(
    rank: int, size: int, port: int, folder: Path, how: dict[str, Any], job: Callable[..., Any]
) -> None:
    if "stage" in how:
        how = {**how, "deepspeed_config": zero_json(folder, how["stage"])}
        del how["stage"]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), **address)
    torch.set_num_threads(1)
    engine = make_engine(**{"name": "torch_ddp", "backend": "gloo", **how})
    torch.save(job(engine, folder), folder / f"rank{rank}.pt")
    engine.close()


def run_ranks(
    folder: Path, job: Callable[..., Any], size: int = 2, seconds: float = 100, **how: Any
) -> list[dict[str, Any]]:
    """``job(engine, folder)`` of each of ``size`` ranks; fails when they have not ended in time."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context = multiprocessing.get_context("fork")  # without importing torch anew
    ranks = [context.Process(target=one_rank, args=(r, size, port, folder, how, job)) for r in range(size)]
    for process in ranks:
        process.start()
    end = time.monotonic() + seconds
    for process in ranks:
        process.join(timeout=max(0.1, end - time.monotonic()))
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    assert codes == [0] * size  # None: it hangs
    return [torch.load(folder / f"rank{r}.pt") for r in range(size)]


def check_same(found: dict[str, Any], expected: dict[str, Any], atol: float = 1e-5) -> None:
    torch.testing.assert_close(
        torch.tensor(found["facts"]), torch.tensor(expected["facts"]), atol=atol, rtol=atol
    )
    assert found["weights"].keys() == expected["weights"].keys() and len(expected["weights"]) > 50
    for name, tensor in expected["weights"].items():
        torch.testing.assert_close(
            found["weights"][name], tensor, atol=atol, rtol=atol, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """One process with twice the accumulation."""
    result = whole_run(Engine(), Path())
    start = tiny().state_dict()
    moved = [n for n, t in result["weights"].items() if not torch.equal(t, start[n])]
    assert any("lora_" in n for n in moved) and any("encoder." in n for n in moved)
    return result


ENGINES = [
    pytest.param({"name": "torch_ddp"}, id="ddp"),
    *(
        pytest.param({"name": "torch_fsdp", "sharding": s}, id=f"fsdp_{s}")
        for s in ("model", "zero2", "zero3")
    ),
    *(
        pytest.param({"name": "deepspeed", "stage": s}, id=f"deepspeed_{s}", marks=needs_deepspeed)
        for s in (1, 2, 3)
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("how", ENGINES)
def test_ddp_equals_single(tmp_path: Path, alone: dict[str, Any], how: dict[str, Any]):
    """Two ranks make the steps of one process with twice the accumulation; one has nothing for its last turn."""
    first, second = run_ranks(tmp_path, whole_run, **how)
    check_same(first, alone)
    assert second["weights"] is None and second["facts"] == first["facts"]


# --- what is done with the weights between steps ---


def decode(model: Any, number: int) -> list[list[int]]:
    batch = BATCHES[number]
    infos = {"prompt": batch["prompt"]}
    found = model.eval().decode(["llm_greedy"], batch["feats"], batch["feats_lengths"], infos=infos)
    return [result.tokens for result in found["llm_greedy"]]


def between_steps(engine: Engine, folder: Path) -> dict[str, Any]:
    """A step; validation by all ranks; decoding, the ranks on their own and unlike long; weights that are changed
    for a while (as averages are); a step that is not taken; a step."""
    engine.prepare(tiny(), adamw)
    facts = steps(engine, 0, 1)
    engine.model.eval()
    with torch.no_grad():
        facts.append([float(engine.model(BATCHES[1], engine.device)["loss"]), 0.0])
    with engine.gathered():
        answers = [decode(engine.bare, n) for n in range(2 + 2 * engine.rank)]
    weights = engine.weights()
    facts += [one_step(engine, BATCHES[engine.rank : 4 : engine.world_size], skip=True)]
    after = engine.weights()
    if weights is not None and after is not None:
        assert all(torch.equal(after[n], t) for n, t in weights.items())
    facts += steps(engine, 1, 2)
    return {"facts": facts, "weights": engine.weights(), "answers": answers}


@pytest.mark.slow
@pytest.mark.parametrize("how", ENGINES)
def test_validation_decoding_and_a_dropped_step(tmp_path: Path, how: dict[str, Any]):
    expected = between_steps(Engine(), Path())
    first, second = run_ranks(tmp_path, between_steps, **how)
    check_same(first, expected)
    assert first["answers"] == expected["answers"] == second["answers"][:2] and len(second["answers"]) == 4
    assert len({str(a) for a in second["answers"]}) > 1


def changed_for_a_while(engine: Engine, folder: Path) -> dict[str, Any]:
    """Weights are others for a validation and then their own again."""
    engine.prepare(tiny(), adamw)
    facts = steps(engine, 0, 1)
    own = {n: p.detach().clone() for n, p in engine.bare.named_parameters()}
    for factor in (0.5, 1.0):
        with torch.no_grad():
            for name, parameter in engine.bare.named_parameters():
                parameter.copy_(own[name] * factor)
            engine.model.eval()
            facts.append([float(engine.model(BATCHES[1], engine.device)["loss"]), 0.0])
    return {"facts": facts + steps(engine, 1, 2), "weights": engine.weights()}


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["model", "zero2", "zero3"])
def test_weights_that_are_others_for_a_while(tmp_path: Path, sharding: str):
    expected = changed_for_a_while(Engine(), Path())
    first, _ = run_ranks(tmp_path, changed_for_a_while, name="torch_fsdp", sharding=sharding)
    check_same(first, expected)


def in_phases(engine: Engine, folder: Path) -> dict[str, Any]:
    model = tiny()
    engine.prepare(model, adamw)
    facts = []
    for step, parts in enumerate((["adapter"], ["adapter", "encoder", "ctc"], ["encoder", "lora", "ctc"])):
        engine.bare.set_trainable(parts)
        engine.rewrap()
        facts += steps(engine, step, step + 1)
    return {"facts": facts, "weights": engine.weights()}


@pytest.mark.slow
@pytest.mark.parametrize("how", ENGINES[:4])
def test_parts_learn_in_phases(tmp_path: Path, how: dict[str, Any]):
    expected = in_phases(Engine(), Path())
    first, _ = run_ranks(tmp_path, in_phases, **how)
    check_same(first, expected)


def in_half(engine: Engine, folder: Path) -> dict[str, Any]:
    model = tiny()
    for parameter in model.parts()["llm"]:  # frozen, so it may be small
        parameter.data = parameter.data.bfloat16()
    engine.prepare(model, adamw)
    return {"facts": steps(engine), "weights": engine.weights()}


@pytest.mark.slow
@pytest.mark.parametrize("how", ENGINES)
def test_bf16_with_a_frozen_llm_in_bf16(tmp_path: Path, how: dict[str, Any]):
    expected = in_half(Engine(dtype="bf16"), Path())
    first, _ = run_ranks(tmp_path, in_half, dtype="bf16", **how)
    check_same(first, expected, 0.03)
    kinds = {t.dtype for n, t in first["weights"].items() if t.is_floating_point() and "lora_" not in n}
    assert kinds == {torch.float32, torch.bfloat16}


# --- states ---


def saving(engine: Engine, folder: Path) -> dict[str, Any]:
    engine.prepare(tiny(), adamw)
    steps(engine, 0, 2)
    engine.save_state(folder)
    weights = engine.weights()
    if weights is not None:
        torch.save(weights, folder / "model.pt")
    return {"facts": steps(engine, 2, 4), "weights": engine.weights()}


def resuming(engine: Engine, folder: Path) -> dict[str, Any]:
    model = tiny()
    with torch.no_grad():  # whatever it has
        for parameter in model.parameters():
            parameter.add_(0.1)
    engine.prepare(model, adamw)
    engine.load_state(folder, torch.load(folder / "model.pt"))
    return {"facts": steps(engine, 2, 4), "weights": engine.weights()}


@pytest.mark.slow
@pytest.mark.parametrize("how", ENGINES)
def test_state_goes_on_where_it_was(tmp_path: Path, how: dict[str, Any]):
    unbroken, _ = run_ranks(tmp_path, saving, **how)
    resumed, _ = run_ranks(tmp_path, resuming, **how)
    check_same(resumed, unbroken, 0)
    with pytest.raises(
        OsumError, match="the state is another engine's" if "stage" in how else "other weights"
    ):
        engine = Engine()
        engine.prepare(tiny(), lambda m: torch.optim.AdamW(m.ctc.parameters()))
        engine.load_state(tmp_path, None)


@pytest.mark.slow
@pytest.mark.parametrize("how", ENGINES[:4])
def test_state_of_two_ranks_in_one_process_and_back(tmp_path: Path, how: dict[str, Any]):
    unbroken, _ = run_ranks(tmp_path, saving, **how)
    check_same(resuming(Engine(), tmp_path), unbroken)
    unbroken = saving(Engine(), tmp_path)
    first, _ = run_ranks(tmp_path, resuming, **how)
    check_same(first, unbroken)


def refused(engine: Engine, folder: Path) -> str:
    engine.prepare(tiny(), adamw)
    with pytest.raises(OsumError) as e:
        engine.load_state(folder, None)
    with pytest.raises(OsumError, match="has no phases"):
        engine.rewrap()
    return str(e.value)


@needs_deepspeed
@pytest.mark.slow
def test_bad_input_deepspeeds_state_of_another_number_of_ranks(tmp_path: Path):
    run_ranks(tmp_path, saving, name="deepspeed", stage=2)
    (message,) = run_ranks(tmp_path, refused, size=1, name="deepspeed", stage=2)
    assert "was saved by DeepSpeed with world_size 2, this run has 1" in message


# --- ranks that fail ---


def one_leaves(engine: Engine, folder: Path) -> str:
    if engine.rank:
        os._exit(0)
    return waited(engine)


def one_hangs(engine: Engine, folder: Path) -> str:
    if engine.rank:
        time.sleep(15)
        return ""
    return waited(engine)


def waited(engine: Engine) -> str:
    began = time.monotonic()
    with pytest.raises(RuntimeError):
        engine.sum(1.0)
    assert time.monotonic() - began < 12
    return "seen"


@pytest.mark.slow
@pytest.mark.parametrize("job", [one_leaves, one_hangs])
def test_a_rank_that_is_gone_or_hangs_is_an_error(tmp_path: Path, job: Callable[..., Any]):
    with contextlib.suppress(FileNotFoundError, AssertionError):  # of the rank that is gone
        run_ranks(tmp_path, job, timeout=3)
    assert torch.load(tmp_path / "rank0.pt") == "seen"


def infinite(engine: Engine, folder: Path) -> list[bool]:
    """A gradient of one rank is not finite: all ranks see it."""
    engine.prepare(tiny(), adamw)
    before = engine.weights()
    batch = BATCHES[engine.rank]
    if engine.rank:
        batch = {**batch, "feats": batch["feats"] * float("nan")}
    _, norm = one_step(engine, [batch], skip=True)
    after = engine.weights()
    assert before is None or after is None or all(torch.equal(after[n], t) for n, t in before.items())
    return math.isfinite(norm)


@pytest.mark.slow
@pytest.mark.parametrize("how", ENGINES)
def test_ranks_agree_on_what_is_not_finite(tmp_path: Path, how: dict[str, Any]):
    assert run_ranks(tmp_path, infinite, **how) == [False, False]


# --- DeepSpeed's json, and what is refused ---


@pytest.mark.parametrize("name", ["ds_stage1", "ds_stage2", "ds_stage3"])
def test_our_json_is_taken(name: str):
    found = read_zero_config(f"conf/{name}.json", "bf16", {"accum_grad": 4, "grad_clip": 5.0})
    assert found["zero_optimization"]["stage"] == int(name[-1])
    assert found["torch_autocast"]["dtype"] == "bfloat16" and "bf16" not in found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"zero_optimization": {"stage": 1},}', "ds.json:1: is no json"),
        ("{}", "zero_optimization.stage: is None"),
        ("[]", "zero_optimization.stage: is None"),
        ('{"zero_optimization": {"stage": 0}}', "zero_optimization.stage: is 0"),
        ('{"zero_optimization": {"stage": 1}, "optimizer": {}}', "optimizer: is not DeepSpeed's to say here"),
        (
            '{"zero_optimization": {"stage": 1}, "train_batch_size": 8}',
            "train_batch_size: is not DeepSpeed's",
        ),
        ('{"zero_optimization": {"stage": 1}, "gradient_accumulation_steps": 4}', "is 4, the run has 2"),
        ('{"zero_optimization": {"stage": 1}, "gradient_clipping": 1.0}', "is 1.0, the run has 5"),
        ('{"zero_optimization": {"stage": 1}, "fp16": {"enabled": true}}', "fp16: is not for deepspeed here"),
        ('{"zero_optimization": {"stage": 1}, "bf16": {"enabled": true}}', "is true, the run has fp32"),
    ],
)
def test_bad_input_json_of_deepspeed(tmp_path: Path, content: str, message: str):
    path = tmp_path / "ds.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(OsumError, match=re.escape(message)):
        read_zero_config(str(path), "fp32", {"accum_grad": 2, "grad_clip": 5})


def test_bad_input_runs_that_deepspeed_is_not_for(tmp_path: Path):
    for key, value in (("phases", [{"trainable": ["adapter"]}]), ("ema_decay", 0.9)):
        with pytest.raises(OsumError, match=f"^{key}: "):
            read_zero_config(zero_json(tmp_path, 3), "fp32", {key: value})


def test_bad_input_engines(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(OsumError, match="--deepspeed_config: is missing"):
        make_engine("deepspeed")
    with pytest.raises(OsumError, match="--fsdp_sharding_strategy no_shard: shares nothing out"):
        make_engine("torch_fsdp", sharding="no_shard")
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    with pytest.raises(OsumError, match="--device mps: torch has no ranks on it"):
        make_engine("torch_fsdp", device="mps")
