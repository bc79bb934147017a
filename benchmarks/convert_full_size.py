"""Rehearse the conversion of OSUM's release at its real size: 1,128 keys, 8.0 B parameters, 16 GB in bf16.

    python benchmarks/convert_full_size.py WORK_DIR

Writes a checkpoint of the release's shapes, zeros but for a number at the start of each tensor, as a file
with holes (a few MB on disk); converts it to a model folder (16 GB on disk), back to OSUM's layout (another
16 GB) and checks every number; then again with the LLM by reference. Prints seconds and the peak memory of
each conversion: the process's own (RssAnon), and with the pages of mapped files, which the system can take
back at any time (VmHWM). Deletes what it wrote.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from wenet_osum.checkpoint.llm_folder import config_keys, read_llm_config
from wenet_osum.checkpoint.osum_release import DEAD, DUPLICATES, their_name
from wenet_osum.checkpoint.weights import read_state
from wenet_osum.config import DEFAULTS, fill
from wenet_osum.registry import init_model

QWEN2_7B = {
    "model_type": "qwen2",
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
}


class FileWithHoles:
    """Blocks of zeros are skipped, not written."""

    def __init__(self, path: Path):
        self.file = open(path, "wb")

    def write(self, block: bytes) -> int:
        view = memoryview(block).cast("B")
        for start in range(0, len(view), 1 << 20):
            piece = view[start : start + (1 << 20)]
            if any(piece[:64]) or piece.tobytes().count(0) != len(piece):
                self.file.write(piece)
            else:
                self.file.seek(len(piece), os.SEEK_CUR)
        return len(view)

    def flush(self) -> None:
        self.file.flush()


def marks(state: dict[str, torch.Tensor]) -> dict[str, float]:
    """The number that each tensor starts with; row -2 of the table of which only two rows are used."""
    return {
        n: float(t[-2].flatten()[0] if n.startswith("speech_token") else t.flatten()[0])
        for n, t in state.items()
    }


def write_checkpoint(path: Path, llm: Path) -> dict[str, float]:
    """The synthetic release; returns its marks."""
    lora = {"lora": {}, "llm_config": config_keys(read_llm_config(llm))}
    with torch.device("meta"):
        special = {"special_tokens": {"eos": 151643}}
        given = {"decoder_conf": lora, "vocab_size": 152064, "tokenizer_conf": special}
        model = init_model(fill(given, DEFAULTS, "benchmark"))
    shapes = {their_name(n): t.shape for n, t in model.state_dict().items()}
    shapes["speech_token_emded.weight"] = torch.Size([4099, 3584])
    shapes.update(zip(DEAD, (torch.Size(s) for s in ((1024,), (1024,), (4097, 3584), (4097,)))))
    # numpy's zeros are pages that cost nothing until they are touched; torch writes its own.
    zeros = {n: torch.from_numpy(np.zeros(s, dtype=np.uint16)) for n, s in shapes.items()}
    state = {n: t.view(torch.bfloat16) for n, t in zeros.items()}
    for i, (n, t) in enumerate(state.items()):
        (t[-2] if n.startswith("speech_token") else t).view(-1)[0] = i % 251 + 1
    state.update({twin: state[name] for twin, name in DUPLICATES.items()})
    assert len(state) == 1128, len(state)
    out = FileWithHoles(path)
    torch.save(state, out)
    out.file.truncate()
    out.file.close()
    return marks(state)


def measure(*argv: str) -> None:
    """Run ``osum convert`` and print its time and peak memory."""
    start, anon, whole = time.time(), 0, 0
    process = subprocess.Popen(
        [sys.executable, "-m", "wenet_osum.bin.convert", *argv], stderr=subprocess.DEVNULL
    )
    while process.poll() is None:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        kb = {
            line.split(":")[0]: int(line.split()[1])
            for line in lines
            if line.startswith(("RssAnon", "VmHWM"))
        }
        anon, whole = max(anon, kb.get("RssAnon", 0)), max(whole, kb.get("VmHWM", 0))
        time.sleep(0.05)
    name = " ".join(a for a in argv if not a.startswith("/") or a == argv[-1])
    print(
        f"osum convert {name}: exit {process.returncode}, {time.time() - start:.0f} s, "
        f"peak {anon / 1e6:.2f} GB of its own, {whole / 1e6:.2f} GB with mapped files",
        flush=True,
    )


def size(path: Path) -> str:
    """Bytes of a file or folder, and those that take room on disk."""
    files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
    total, blocks = sum(f.stat().st_size for f in files), sum(f.stat().st_blocks * 512 for f in files)
    return f"{path.name}: {total / 1e9:.2f} GB in {len(files)} files, {blocks / 1e9:.2f} GB on disk"


def main() -> None:
    work = Path(sys.argv[1]).resolve() / "convert_full_size"
    free = shutil.disk_usage(work.parent).free / 1e9
    if free < 36:
        raise SystemExit(f"{work.parent}: {free:.0f} GB free, 36 are needed")
    work.mkdir()
    try:
        llm = work / "config.json"
        llm.write_text(json.dumps(QWEN2_7B))
        given = write_checkpoint(work / "infer.pt", llm)
        print(size(work / "infer.pt"), f"{len(given)} keys", flush=True)
        source, folder, back = str(work / "infer.pt"), str(work / "model"), str(work / "back.pt")
        measure("--from", "osum", "--llm-config", str(llm), source, folder)
        print(size(work / "model"))
        measure("--to", "osum", folder, back)
        print(size(work / "back.pt"))
        returned = marks(read_state(back))
        live = [n for n in given if n not in DEAD]
        assert set(returned) == set(given) and all(returned[n] == given[n] for n in live)
        print(f"{len(live)} tensors came back with the number they had")
        Path(back).unlink()
        measure("--from", "osum", "--llm", f"{folder}/llm", source, str(work / "by_reference"))
        print(size(work / "by_reference"))
        measure("--merge-lora", folder, str(work / "merged"))
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
