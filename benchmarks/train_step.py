"""The training step of OSUM's public code and ours on the same 32 utterances, weights and work, pair by pair.

    python benchmarks/train_step.py WORKLOAD.json --osum OSUM/OSUM --osum_python PYTHON [--pairs 5]

``WORKLOAD.json`` lists mel frames, prompt and answer tokens of each utterance. The model: Whisper base's encoder
(6 layers of 512), the ``osum`` adapter, Qwen2-0.5B's shape with 8 layers, random weights; encoder, adapter and LoRA
learn; dropout 0.1 as OSUM has it. A step is all utterances: forward and backward of each batch, clipping, AdamW.
Batches: OSUM's are its loader's (``max_frames_in_batch`` 3,900, its shipped value, over a sorted list), ours are
packs, which ``accum_grad`` joins to one step.

Each measurement is a process of its own; its peak is what the kernel says it had resident at most. Without
``--osum`` only ours is run. First the losses are compared with the same weights and dropout off.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from torch import Tensor

ENCODER = {"output_size": 512, "attention_heads": 8, "linear_units": 2048, "num_blocks": 6}
ENCODER |= {"dropout_rate": 0.1, "positional_dropout_rate": 0.1}
LLM = {
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 8,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
EOS = 151643
OPTIM = {"lr": 5e-5, "betas": [0.9, 0.99], "eps": 1e-6, "weight_decay": 0.01}  # OSUM's
CLIP = 5.0
FRAMES = {"fp32": 2400, "bf16": 4000}  # of our packs
OSUM_FRAMES = 3900
CPU = torch.device("cpu")


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workload", type=Path)
    parser.add_argument("--osum", type=Path, help="a checkout's OSUM folder")
    parser.add_argument("--osum_python", default=sys.executable)
    parser.add_argument("--osum_checkpointing", action="store_true", help="as its shipped config has it")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--modes", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--frames", type=int, help="of a pack, in place of the modes' own")
    parser.add_argument(
        "--profile", action="store_true", help="print where the time of one pass of ours goes"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def utterances_of(path: Path) -> list[dict[str, Tensor]]:
    """The workload with random features and ids, the same in every process."""
    rng = torch.Generator().manual_seed(0)
    out = []
    for u in json.loads(path.read_text())["utterances"]:
        row = {"feats": torch.randn(u["frames"], 80, generator=rng)}
        for name in ("prompt", "answer"):
            row[name] = torch.randint(0, 151000, (u[name],), generator=rng)
        out.append(row)
    return out


# --- ours ---


def our_config(half: bool) -> dict[str, Any]:
    from wenet_osum.config import DEFAULTS, fill

    given = {
        "encoder_conf": ENCODER,
        "model_conf": {"adapter": "osum", "trainable": ["encoder", "adapter", "lora"]},
        "decoder_conf": {"llm_config": LLM, "lora": {}, "dtype": "bf16" if half else "fp32"},
        "tokenizer_conf": {"special_tokens": {"eos": EOS, "sos": EOS}},
        "ctc": "none",
    }
    return {**fill(given, DEFAULTS, "benchmark"), "vocab_size": LLM["vocab_size"]}


def our_batch(utterances: list[dict[str, Tensor]]) -> dict[str, Any]:
    """As our loader collates ``batch_type: pack``: the frames in one row."""

    def ids(name: str) -> Tensor:
        rows = [u[name] for u in utterances]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)

    target = ids("answer")
    lengths = torch.tensor([len(u["answer"]) for u in utterances])
    return {
        "keys": [str(i) for i in range(len(utterances))],
        "feats": torch.cat([u["feats"] for u in utterances]),
        "feats_lengths": torch.tensor([len(u["feats"]) for u in utterances]),
        "prompt": ids("prompt"),
        "target": target,
        "target_weights": (torch.arange(target.size(1) + 1)[None] <= lengths[:, None]).float(),
    }


def our_passes(args: argparse.Namespace, half: bool) -> list[Any]:
    """Build, and return the two functions of a run: one small step to warm up, one step over everything."""
    from wenet_osum.dataset.packing import fill_packs
    from wenet_osum.registry import init_model
    from wenet_osum.train.engine import Engine
    from wenet_osum.train.optim import build_optimizer

    torch.manual_seed(0)
    engine = Engine("cpu", "bf16" if half else "fp32")
    engine.prepare(
        init_model(our_config(half)), lambda m: build_optimizer(m, "adamw", {**OPTIM, "lr_scale": {}})
    )
    engine.model.train()
    utterances = utterances_of(args.workload)

    def step(rows: list[list[int]]) -> None:
        """``Trainer.train_step`` less the loader and the log."""
        batches = [our_batch([utterances[i] for i in row]) for row in rows]
        whole = {"target": sum(float(b["target_weights"].sum()) for b in batches), "ctc": 1.0}
        for n, batch in enumerate(batches):
            with engine.accumulate(last=n == len(batches) - 1):
                with engine.autocast():
                    out = engine.model({**batch, "normalizers": whole}, engine.device)
                engine.backward(out["loss"])
        engine.clip(CLIP)
        engine.step()

    frames = np.array([len(u["feats"]) for u in utterances])
    words = np.array([len(u["answer"]) for u in utterances])
    order, bounds = fill_packs(frames, words, args.frames or FRAMES["bf16" if half else "fp32"], 4000)
    rows = [order[a:b].tolist() for a, b in pairwise(bounds)]
    return [lambda: step([rows[-1]]), lambda: step(rows)]


def our_model(folder: Path) -> Any:
    """Ours with LoRA that is not zero, and the same weights as OSUM's release has them, in ``infer.pt``."""
    from wenet_osum.checkpoint.lora import OURS
    from wenet_osum.checkpoint.osum_release import to_release
    from wenet_osum.registry import init_model

    torch.manual_seed(0)
    configs = our_config(False)
    model = init_model(configs).eval()
    for name, p in model.named_parameters():
        if "lora_B" in name:  # zero when fresh: then LoRA would not be compared
            torch.nn.init.normal_(p, std=0.02)
    state = model.state_dict()
    lora = {n for n in state if "lora_" in n}
    llm = {
        n.removeprefix(OURS).replace(".base_layer.", "."): t
        for n, t in state.items()
        if n.startswith(OURS) and n not in lora
    }
    own = {n: t for n, t in state.items() if not n.startswith(OURS) or n in lora}
    release, _ = to_release(configs, own, llm, "benchmark")
    torch.save(release, folder / "infer.pt")
    return model


def our_losses(args: argparse.Namespace, rows: list[list[int]]) -> list[float]:
    model, utterances = our_model(args.folder), utterances_of(args.workload)
    with torch.no_grad():
        return [float(model(our_batch([utterances[i] for i in row]), CPU)["loss"]) for row in rows]


# --- OSUM's ---


def osum_passes(args: argparse.Namespace) -> list[Any]:
    import train_step_osum as peer

    torch.manual_seed(0)
    model = peer.build(args.osum, ENCODER, LLM, args.osum_checkpointing).train()
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, **OPTIM)
    utterances = utterances_of(args.workload)

    def step(rows: list[list[int]]) -> None:
        for row in rows:
            batch = peer.batch_of([utterances[i] for i in row], EOS)
            (model(batch, CPU)["loss"] / len(rows)).backward()  # as its executor: a mean of means
        torch.nn.utils.clip_grad_norm_(learning, CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    rows = peer.dynamic([len(u["feats"]) for u in utterances], OSUM_FRAMES)
    return [lambda: step([rows[-1]]), lambda: step(rows)]


def osum_model(args: argparse.Namespace) -> Any:
    """OSUM's code with the weights that ``our_model`` left."""
    import train_step_osum as peer

    model = peer.build(args.osum, ENCODER, LLM, False).eval()
    report = model.load_state_dict(torch.load(args.folder / "infer.pt", mmap=True), strict=True)
    assert not report.missing_keys
    return model


def osum_losses(args: argparse.Namespace, rows: list[list[int]]) -> list[float]:
    import train_step_osum as peer

    model, utterances = osum_model(args), utterances_of(args.workload)
    with torch.no_grad():
        return [float(model(peer.batch_of([utterances[i] for i in row], EOS), CPU)["loss"]) for row in rows]


# --- the arithmetic ---


def necessary(workload: list[dict[str, int]]) -> float:
    """Floating-point operations that a step cannot do without: 6 for each weight that learns and position (forward,
    and backward to input and to weight), 4 for a frozen one, over real positions only; the LM head at answer
    positions; attention's two products three times. LoRA's own matrices, norms and activations are left out."""
    d, f = ENCODER["output_size"], ENCODER["linear_units"]
    h, inner = LLM["hidden_size"], LLM["intermediate_size"]
    kv = h // LLM["num_attention_heads"] * LLM["num_key_value_heads"]
    total = 0.0
    for u in workload:
        t = u["frames"]
        half, quarter = -(-t // 2), -(-t // 4)
        speech = -(-quarter // 2)
        total += 4 * t * 80 * d * 3 + 6 * half * 3 * d * d  # the encoder's convolutions; none to the features
        total += ENCODER["num_blocks"] * (6 * half * (4 * d * d + 2 * d * f) + 12 * half * half * d)
        total += 6 * 3 * d * d * (half + quarter + speech)
        total += 6 * speech * (d * d + d * h) + 4 * (
            6 * speech * (4 * d * d + 2 * d * 2560) + 12 * speech**2 * d
        )
        n = u["prompt"] + speech + 2 + u["answer"]
        layer = (
            4 * n * (2 * h * h + 2 * h * kv + 3 * h * inner) + 6 * n * n * h
        )  # causal: half of the products
        total += LLM["num_hidden_layers"] * layer
        total += 4 * (u["answer"] + 1) * h * LLM["vocab_size"]
    return total


def matmul_rate() -> float:
    """GFLOP/s of this machine's fp32 matrix product, the best of some, with the threads in use."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = 0.0
    for _ in range(8):
        start = time.perf_counter()
        a @ b
        best = max(best, 2 * 2048**3 / 1e9 / (time.perf_counter() - start))
    return best


# --- measuring ---


def worker(args: argparse.Namespace) -> Any:
    """One measurement; what it prints last is JSON."""
    torch.set_num_threads(args.threads)
    kind, _, what = args.worker.partition(":")
    if what.startswith("["):
        return (our_losses if kind == "ours" else osum_losses)(args, json.loads(what))
    warm, whole = osum_passes(args) if kind == "osum" else our_passes(args, what == "bf16")
    built = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    warm()
    if args.profile:
        with torch.profiler.profile() as profile:
            whole()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=40), file=sys.stderr)
    start = time.perf_counter()
    whole()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "peak": peak * 1024, "built": built * 1024}


def measure(args: argparse.Namespace, folder: Path, what: str) -> Any:
    """Run ``worker`` in a process of its own."""
    python = args.osum_python if what.startswith("osum") else sys.executable
    argv = [python, __file__, str(args.workload), "--worker", what, "--folder", str(folder)]
    argv += ["--threads", str(args.threads)]
    argv += ["--osum", str(args.osum.resolve())] if args.osum else []
    argv += ["--osum_checkpointing"] if args.osum_checkpointing else []
    argv += ["--frames", str(args.frames)] if args.frames else []
    argv += ["--profile"] if args.profile and what.startswith("ours") else []
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, env=env, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare_losses(args: argparse.Namespace, folder: Path, lengths: list[int]) -> None:
    """Each utterance alone, and the even ones together: of an odd one in a longer batch OSUM's mask loses the
    last frame."""
    even = [i for i, n in enumerate(lengths) if n % 2 == 0]
    rows = [[i] for i in range(len(lengths))] + [even[:6]]
    ours, osum = (measure(args, folder, f"{kind}:{json.dumps(rows)}") for kind in ("ours", "osum"))
    worst = max(abs(a - b) for a, b in zip(ours[:-1], osum[:-1]))
    print(
        f"loss, same weights, dropout off, fp32: {len(lengths)} utterances alone differ by at most {worst:.1e} "
        f"(mean loss {statistics.mean(osum[:-1]):.4f}); {len(rows[-1])} of even length in one batch, ours packed: "
        f"{abs(ours[-1] - osum[-1]):.1e} ({osum[-1]:.4f})"
    )


def main() -> int:
    args = get_args()
    if args.worker:
        print(json.dumps(worker(args)))
        return 0
    workload = json.loads(args.workload.read_text())["utterances"]
    count, work = len(workload), necessary(workload)
    torch.set_num_threads(args.threads)
    rate = matmul_rate()
    print(
        f"{count} utterances, {sum(u['frames'] for u in workload) / 100:.0f} s; necessary arithmetic {work / 1e12:.2f} "
        f"TFLOP; {args.threads} threads, fp32 matrix product {rate:.0f} GFLOP/s: at most "
        f"{count * rate * 1e9 / work:.2f} utt/s (at 140 GFLOP/s {count * 140e9 / work:.2f})"
    )
    runs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.osum:
            compare_losses(args, folder, [u["frames"] for u in workload])
        for n in range(args.pairs):
            for what in (["osum"] if args.osum else []) + [f"ours:{m}" for m in args.modes]:
                run = measure(args, folder, what)
                runs.setdefault(what, []).append(run)
                speed = count / run["seconds"]
                print(f"pair {n + 1} {what}: {speed:.3f} utt/s, {run['peak'] / 1e9:.2f} GB", file=sys.stderr)
    table(runs, count, work, rate)
    return 0


def table(runs: dict[str, list[dict[str, float]]], count: int, work: float, rate: float) -> None:
    print("\n| code | utt/s | times OSUM | peak GB | of OSUM's | of the limit | of 140 GFLOP/s |")
    print("|---|---|---|---|---|---|---|")
    peer = runs.get("osum")
    for what, found in runs.items():
        speeds = [count / r["seconds"] for r in found]
        speed, peak = statistics.median(speeds), statistics.median(r["peak"] for r in found)
        times = share = "-"
        if peer:
            pairs = zip(found, peer)
            times = f"{statistics.median(o['seconds'] / r['seconds'] for r, o in pairs):.2f}"
            share = f"{peak / statistics.median(r['peak'] for r in peer):.0%}"
        limits = " | ".join(f"{speed * work / count / (g * 1e9):.0%}" for g in (rate, 140))
        print(
            f"| {what} | {speed:.3f} ({min(speeds):.3f} to {max(speeds):.3f}) | {times} | {peak / 1e9:.2f} | "
            f"{share} | {limits} |"
        )


if __name__ == "__main__":
    sys.exit(main())
