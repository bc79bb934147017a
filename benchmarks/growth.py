"""Time and memory of the index, the plan and going on in the middle, at 10 k, 100 k and 1 M utterances.

    python benchmarks/growth.py [--sizes 10000 100000 1000000] [--repeats 5]

Writes a raw list of each size (LibriSpeech's lengths, transcripts of as many words as people say in them, an
emotion in every other line, so that two tasks may be asked; characters as tokens) into a temporary folder, and
does with each, in a process of its own:

- build: index it into an empty store, with all cores;
- open: the same again, when nothing has changed: a run's second start;
- plan: the batches of an epoch (group 2), medians of ``--repeats`` epochs;
- resume at step S: from the opened index to the items of the batch that a run goes on with.

Memory is the process's peak above what Python and the libraries take before (``base``, told below the table), with
the pages of the mapped file, which the system can take back.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from lengths import draw

WORDS = [
    "the",
    "of",
    "and",
    "a",
    "to",
    "in",
    "he",
    "was",
    "that",
    "it",
    "his",
    "her",
    "with",
    "as",
    "had",
    "for",
    "she",
    "not",
    "but",
    "at",
    "on",
    "is",
    "you",
    "be",
    "him",
]
STEPS = (10, 100_000)
MEASURES = {
    "build": "s",
    "build_mb": "MB",
    "open": "s",
    "plan": "s",
    "run_mb": "MB",
    **{f"resume_{step}": "s" for step in STEPS},
}


def write_list(path: Path, count: int) -> None:
    frames, _ = draw("LibriSpeech", count)
    rng = np.random.default_rng(1)
    with open(path, "w", encoding="utf-8") as f:
        for i, n in enumerate(frames.tolist()):
            text = " ".join(WORDS[w] for w in rng.integers(0, len(WORDS), max(1, round(n * 0.027))))
            sample = {"key": f"utt-{i:08}", "wav": f"corpus/part-{i // 1000:05}/utt-{i:08}.flac", "txt": text}
            sample["duration"] = n / 100
            if i % 2:
                sample["emotion"] = ("happy", "sad", "anger")[i % 3]
            f.write(json.dumps(sample) + "\n")


def write_units(path: Path) -> None:
    from wenet_osum.tasks import load_tasks

    units = ["<blank>", "<unk>", "<sos/eos>", *load_tasks().marks(), "▁", *"abcdefghijklmnopqrstuvwxyz"]
    path.write_text("".join(f"{u} {i}\n" for i, u in enumerate(units)), encoding="utf-8")


def peak_mb() -> float:
    """Peak memory of this process since it began."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
            1024 if sys.platform == "linux" else 1024**2
        )


def child(what: str, folder: Path, repeats: int) -> dict[str, float]:
    """One of the measurements, in a process of its own."""
    from wenet_osum.config import DATASET_DEFAULTS
    from wenet_osum.dataset.dataset import OsumDataset
    from wenet_osum.dataset.index_build import build_index
    from wenet_osum.dataset.loader import Loader
    from wenet_osum.tasks import load_tasks
    from wenet_osum.text import CharTokenizer

    table, tokenizer = load_tasks(), CharTokenizer(folder / "units.txt")
    conf = copy.deepcopy(DATASET_DEFAULTS)
    conf["filter_conf"]["token_max_length"] = 1000  # of characters
    conf["batch_conf"]["max_frames_in_batch"] = 6000  # so that a million utterances are over 200,000 batches
    out = {"base_mb": peak_mb()}
    start = time.perf_counter()
    store = folder / "index" / "train.idx"
    index = build_index(folder / "data.list", "raw", table, tokenizer.encode, conf, store=store)
    out[what] = time.perf_counter() - start
    if what == "build":
        return {**out, "build_mb": peak_mb() - out["base_mb"], "count": len(index)}
    dataset = OsumDataset(index, table, tokenizer, conf, 777, train=True)
    loader = Loader(dataset)
    seconds: dict[str, list[float]] = {"plan": [], **{f"resume_{step}": [] for step in STEPS}}
    for epoch in range(repeats):
        start = time.perf_counter()
        batches = len(dataset.plan(epoch, 2))
        seconds["plan"].append(time.perf_counter() - start)
        for step in STEPS:
            if step < batches:
                start = time.perf_counter()
                loader.plan(epoch, step, 2)
                assert next(loader.jobs(loader.batches, loader.start))
                seconds[f"resume_{step}"].append(time.perf_counter() - start)
    out |= {name: statistics.median(s) for name, s in seconds.items() if s}
    return {**out, "run_mb": peak_mb() - out["base_mb"], "batches": batches}


def measure(count: int, repeats: int) -> dict[str, float]:
    out: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        write_list(Path(name) / "data.list", count)
        write_units(Path(name) / "units.txt")
        for what in ("build", "open"):
            command = [sys.executable, __file__, "--child", what, "--folder", name, "--repeats", str(repeats)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            out |= json.loads(done.stdout.splitlines()[-1])
        out["list_mb"] = (Path(name) / "data.list").stat().st_size / 2**20
        out["store_mb"] = (Path(name) / "index" / "train.idx").stat().st_size / 2**20
    return out


def print_table(sizes: list[int], results: list[dict[str, float]]) -> None:
    print(
        "| utterances | " + " | ".join(m.replace("_mb", " memory").replace("_", " ") for m in MEASURES) + " |"
    )
    print("|---" * (len(MEASURES) + 1) + "|")

    def row(title: str, cells: list[Any]) -> None:
        print(f"| {title} | " + " | ".join(cells) + " |")

    for i, (size, result) in enumerate(zip(sizes, results)):
        cells = [
            f"{result[m]:.3g} {unit}"
            if unit == "s" and m in result
            else f"{result.get(m, float('nan')):.0f} {unit}"
            for m, unit in MEASURES.items()
        ]
        row(f"{size:,}", [c if not c.startswith("nan") else "-" for c in cells])
        if i:
            before, by = results[i - 1], size / sizes[i - 1]
            ratios = [
                f"x {result[m] / before[m]:.2f}" if m in result and m in before else "-" for m in MEASURES
            ]
            row(f"of {by:g} times the size", ratios)
    last = results[-1]
    print(
        f"\nbase {last['base_mb']:.0f} MB; the last list {last['list_mb']:.0f} MB, its store {last['store_mb']:.0f} MB,"
        f" {last['count']:,.0f} utterances in {last['batches']:,.0f} batches"
    )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--child", choices=["build", "open"], help=argparse.SUPPRESS)
    p.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child:
        print(json.dumps(child(args.child, args.folder, args.repeats)))
        return
    print_table(args.sizes, [measure(size, args.repeats) for size in args.sizes])


if __name__ == "__main__":
    main()
