"""The engines make the same steps: one process, DistributedDataParallel, FSDP2, DeepSpeed's ZeRO 1 to 3."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ADAPTER_CONFS, build, random_batch, stage2_config

from wenet_osum.train.engine import Engine, make_engine
from wenet_osum.train.optim import build_optimizer

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
ZERO = [1, 2, 3]
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


def one_rank(
    rank: int, size: int, port: int, folder: Path, how: dict[str, Any], job: Callable[..., Any]
) -> None:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), **address)
    torch.set_num_threads(1)
    engine = make_engine(**{"name": "torch_ddp", "backend": "gloo", **how})
    torch.save(job(engine, folder), folder / f"rank{rank}.pt")
    engine.close()


def run_ranks(
    folder: Path, job: Callable[..., Any], size: int = 2, seconds: float = 60, **how: Any
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


@pytest.mark.slow
def test_ddp_equals_single(tmp_path: Path, alone: dict[str, Any]):
    first, second = run_ranks(tmp_path, whole_run)
    check_same(first, alone)
    assert second["weights"] is None and second["facts"] == first["facts"]


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["model", "zero2", "zero3"])
def test_ddp_equals_single_fsdp(tmp_path: Path, alone: dict[str, Any], sharding: str):
    first, second = run_ranks(tmp_path, whole_run, name="torch_fsdp", sharding=sharding)
    check_same(first, alone)
    assert second["weights"] is None and second["facts"] == first["facts"]


def zero_json(folder: Path, stage: int, **more: Any) -> str:
    path = folder / f"ds_stage{stage}.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": stage}, **more}), encoding="utf-8")
    return str(path)


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("stage", ZERO)
def test_ddp_equals_single_deepspeed(tmp_path: Path, alone: dict[str, Any], stage: int):
    config = zero_json(tmp_path, stage)
    first, second = run_ranks(tmp_path, whole_run, name="deepspeed", deepspeed_config=config)
    check_same(first, alone)
    assert second["weights"] is None and second["facts"] == first["facts"]
