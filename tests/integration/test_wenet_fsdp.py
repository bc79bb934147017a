"""Our model in WeNet's FSDP: its wrapping policy and its saving, on the CPU (its train.py has FSDP on GPUs only)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_config, stage2_config

PROGRAM = """
import argparse, sys, torch, yaml
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from wenet_osum import register
from wenet_osum.wenet.mends import mend_ranks

register()
mend_ranks()
dist.init_process_group("gloo")
from wenet.utils.fsdp_utils import fsdp_save_model, wenet_fsdp_wrap_policy
from wenet.utils.init_model import init_model

args = argparse.Namespace(train_engine="torch_fsdp", fsdp_sharding_strategy="zero3")
configs = yaml.safe_load(open(sys.argv[1]))
model, _ = init_model(args, configs)
model = FullyShardedDataParallel(
    model,
    auto_wrap_policy=wenet_fsdp_wrap_policy("zero3"),
    sharding_strategy=ShardingStrategy.FULL_SHARD,
    use_orig_params=True,
    device_id=torch.device("cpu"),
)
wrapped = sum(isinstance(m, FullyShardedDataParallel) for m in model.modules())
batch = {
    "feats": torch.randn(2, 100, 80),
    "feats_lengths": torch.tensor([100, 80]),
    "target": torch.tensor([[5, 6, 7], [5, 6, -1]]),
    "tasks": ["asr", "asr"],
    "langs": ["en", "en"],
}
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
losses = []
for _ in range(5):
    loss = model(batch, torch.device("cpu"))["loss"]
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
fsdp_save_model(model, sys.argv[2], {"tag": "init"})
torch.save({"losses": losses, "wrapped": wrapped}, sys.argv[2] + ".facts")
"""


@pytest.mark.integration
def test_wenet_fsdp_wraps_trains_and_saves_it(
    tmp_path: Path, python: Callable[..., Any], llm_folder: Path, wenet_dir: Path
):
    decoder = {"llm": str(llm_folder), "lora": {}, "dtype": "bf16"}
    config = run_config(tmp_path, stage2_config(decoder_conf=decoder))
    units = [f"{c} {i}\n" for i, c in enumerate(["<blank>", "<unk>", "<sos/eos>", *"abcdefghijkl"])]
    (tmp_path / "units.txt").write_text("".join(units), encoding="utf-8")
    (tmp_path / "fsdp.py").write_text(PROGRAM, encoding="utf-8")
    python(tmp_path / "fsdp.py", config, tmp_path / "init.pt")
    facts = torch.load(tmp_path / "init.pt.facts")
    assert facts["losses"][-1] < facts["losses"][0]
    assert facts["wrapped"] == 1 + 2 + 1 + 2  # the whole, encoder layers, the adapter's, the LLM's
    saved = torch.load(tmp_path / "init.pt")
    assert any("lora_" in name for name in saved)
    assert not any(name.startswith("decoder.") and "lora_" not in name for name in saved)
