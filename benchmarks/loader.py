"""WeNet's data loader and ours on the same lists: utterances a second, time to the first batch, CPU time, memory.

    python benchmarks/loader.py --wenet WENET_CHECKOUT

Makes 2,000 utterances of three seconds (1.8 to 4.2) in a temporary folder, as a raw list and as 20 tars, and reads
them with 80 log-mel bins, spec_aug and batches of at most 4,000 frames, by 0 and by 2 data workers; every process
computes on one thread. WeNet's processors are its own (shuffle 1500, sort 500, prefetch 10, ``CharTokenizer``), its
audio decoded by soundfile, as ``wenet_osum.wenet`` mends it. Each measurement is a process of its own; the two sides
take turns, and which of them begins too. A process reads one epoch untimed but for its first batch, then a timed one.

Time to the first batch counts from the list, with everything imported, and so does ours with the index built within
it; "stored" is ours with the index kept from an earlier run. Memory is the proportional set size of the process and
its workers, the largest of three looks during the timed epoch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the package beside this program

RATE = 16000
FRAMES = 4000
WORDS = [
    "good",
    "morning",
    "open",
    "the",
    "door",
    "where",
    "is",
    "my",
    "blue",
    "hat",
    "今",
    "天",
    "气",
    "好",
    "一",
    "二",
    "三",
    "请",
    "打",
    "开",
]
SIDES = ("WeNet", "ours")
SPEC_AUG = {"num_t_mask": 2, "num_f_mask": 2, "max_t": 50, "max_f": 10}


def make_corpus(folder: Path, count: int) -> None:
    """Tones with overtones under noise, in ``data.list``, ``shards.list`` and ``units.txt``."""
    import soundfile

    from wenet_osum.dataset.lists import read_raw_list
    from wenet_osum.dataset.shards import write_shards

    (folder / "wav").mkdir(parents=True)
    with open(folder / "data.list", "w", encoding="utf-8") as f:
        for i in range(count):
            rng = np.random.default_rng(i)
            t = np.arange(round(rng.uniform(1.8, 4.2) * RATE)) / RATE
            wave = 0.02 * rng.standard_normal(len(t))
            for overtone in range(1, 6):
                wave += 0.2 / overtone * np.sin(2 * np.pi * overtone * rng.uniform(90, 250) * t)
            path = folder / "wav" / f"u{i:04}.wav"
            soundfile.write(path, wave.astype(np.float32), RATE, subtype="PCM_16")
            text = " ".join(rng.choice(WORDS, rng.integers(4, 12)))
            f.write(json.dumps({"key": f"u{i:04}", "wav": str(path), "txt": text}, ensure_ascii=False) + "\n")
    samples = (s for _, s in read_raw_list(folder / "data.list"))
    write_shards(samples, folder / "shards", folder / "shards.list", num_utts_per_shard=max(1, count // 20))
    units = ["<blank>", "<unk>", "<sos/eos>", "▁", *sorted(set("".join(WORDS)))]
    (folder / "units.txt").write_text("".join(f"{u} {i}\n" for i, u in enumerate(units)), encoding="utf-8")


def wenet_loader(folder: Path, data_type: str, workers: int, wenet: Path) -> Callable[[], Iterable[Any]]:
    """WeNet's pipeline as its ``train.py`` builds it."""
    os.environ["WENET_DIR"] = str(wenet)
    from wenet_osum.wenet.find import import_wenet

    import_wenet()
    from torch.utils.data import DataLoader
    from wenet.dataset.dataset import Dataset
    from wenet.text.char_tokenizer import CharTokenizer

    conf = {
        "filter_conf": {"max_length": 40960, "min_length": 10, "token_max_length": 200},
        "resample_conf": {"resample_rate": RATE},
        "feats_type": "log_mel_spectrogram",
        "log_mel_spectrogram_conf": {"n_fft": 400, "hop_length": 160, "num_mel_bins": 80, "padding": 0},
        "spec_aug": True,
        "spec_aug_conf": SPEC_AUG,
        "shuffle": True,
        "shuffle_conf": {"shuffle_size": 1500},
        "sort": True,
        "sort_conf": {"sort_size": 500},
        "batch_conf": {"batch_type": "dynamic", "max_frames_in_batch": FRAMES},
    }

    def start() -> Iterable[Any]:
        tokenizer = CharTokenizer(str(folder / "units.txt"))
        dataset = Dataset(data_type, list_of(folder, data_type), tokenizer, conf)
        ahead = {"persistent_workers": True, "prefetch_factor": 10} if workers else {}
        return DataLoader(dataset, batch_size=None, num_workers=workers, **ahead)

    return start


def our_loader(folder: Path, data_type: str, workers: int, store: Path) -> Callable[[], Iterable[Any]]:
    from wenet_osum.bin.common import make_index
    from wenet_osum.config import DATASET_DEFAULTS, fill
    from wenet_osum.dataset.dataset import OsumDataset
    from wenet_osum.dataset.loader import Loader
    from wenet_osum.tasks import load_tasks
    from wenet_osum.text import CharTokenizer

    given = {
        "spec_aug": True,
        "spec_aug_conf": SPEC_AUG,
        "task_weights": {"asr": 1},
        "batch_conf": {"max_frames_in_batch": FRAMES},
    }
    conf = fill({**given, "task_weights": {}}, DATASET_DEFAULTS, "benchmark")
    conf["task_weights"] = given["task_weights"]

    class Epochs:
        def __init__(self) -> None:
            table, tokenizer = load_tasks(), CharTokenizer(folder / "units.txt")
            lists = [list_of(folder, data_type)]
            index = make_index(lists, data_type, table, tokenizer.encode, conf, store=store)
            self.loader = Loader(OsumDataset(index, table, tokenizer, conf, 777, train=True), workers, 10)
            self.epoch = 0

        def __iter__(self) -> Any:
            self.loader.plan(self.epoch)
            self.epoch += 1
            return iter(self.loader)

    return Epochs


def list_of(folder: Path, data_type: str) -> str:
    return str(folder / ("data.list" if data_type == "raw" else "shards.list"))


def workers_of() -> list[int]:
    """Process ids of the children of this process."""
    tasks = Path("/proc/self/task")
    return [int(p) for task in tasks.iterdir() for p in (task / "children").read_text().split()]


def megabytes() -> float:
    """Proportional set size of this process and its children."""
    total = 0
    for pid in ("self", *workers_of()):
        with contextlib.suppress(OSError):  # one that has just ended
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def cpu_seconds() -> float:
    """Of this process and its living children."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    for pid in workers_of():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def measure(start: Callable[[], Iterable[Any]], count: int) -> dict[str, float]:
    """One epoch for the first batch, one for the rest."""
    began = time.perf_counter()
    loader = start()
    first = 0.0
    for _ in loader:
        first = first or time.perf_counter() - began
    began, cpu = time.perf_counter(), cpu_seconds()
    seen, looking, memory = 0, 0.0, 0.0
    looks = [1, count // 3, 2 * count // 3]
    for batch in loader:
        seen += len(batch["keys"])
        if looks and seen >= looks[0]:
            looks.pop(0)
            look = time.perf_counter()
            memory = max(memory, megabytes())
            looking += time.perf_counter() - look
    seconds = time.perf_counter() - began - looking
    if seen != count:
        raise RuntimeError(f"{seen} utterances came, not {count}")
    rate = seen / seconds
    return {
        "rate": rate,
        "first": first,
        "cpu": (cpu_seconds() - cpu - looking) / seen * 1000,
        "memory": memory,
    }


def child(args: argparse.Namespace) -> None:
    """Measure one side once; the result as the last line of stdout."""
    import torch

    torch.set_num_threads(1)
    folder: Path = args.child
    if args.side == "WeNet":
        start = wenet_loader(folder, args.data_type, args.num_workers, args.wenet)
    else:
        start = our_loader(folder, args.data_type, args.num_workers, args.store)
    print(json.dumps(measure(start, args.utterances)))


def run(args: argparse.Namespace, side: str, folder: Path, data_type: str, workers: int, store: Path) -> Any:
    command = [sys.executable, __file__, "--wenet", args.wenet, "--child", folder, "--side", side]
    command += ["--data_type", data_type, "--num_workers", workers, "--store", store]
    command += ["--utterances", args.utterances]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, env=environment, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def shown(values: list[float], form: str = ".0f") -> str:
    """Median, and the range."""
    low, mid, high = min(values), statistics.median(values), max(values)
    return f"{mid:{form}} ({low:{form}}-{high:{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wenet", type=Path, required=True, help="a checkout of WeNet")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--utterances", type=int, default=2000)
    parser.add_argument("--corpus", type=Path, help="a folder to make the corpus in, or to take it from")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--data_types", nargs="+", default=["raw", "shard"], choices=["raw", "shard"])
    for name, kind in (
        ("child", Path),
        ("side", str),
        ("data_type", str),
        ("num_workers", int),
        ("store", Path),
    ):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    names = ("utt/s", "x", "first batch, s", "stored", "CPU ms/utt", "memory, MB")
    print("| list | workers | side |", " | ".join(names), "|\n|---|---|---|", "---|" * len(names), sep="")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.corpus or Path(temporary)
        if not (folder / "units.txt").exists():
            make_corpus(folder, args.utterances)
        for data_type in args.data_types:
            for workers in args.workers:
                got: dict[str, list[dict[str, float]]] = {side: [] for side in (*SIDES, "stored")}
                for pair in range(args.pairs):
                    store = Path(temporary) / f"index.{data_type}.{workers}.{pair}"
                    for side in SIDES if pair % 2 == 0 else SIDES[::-1]:
                        got[side].append(run(args, side, folder, data_type, workers, store))
                    got["stored"].append(run(args, "ours", folder, data_type, workers, store))
                ratios = [o["rate"] / w["rate"] for o, w in zip(got["ours"], got["WeNet"])]
                for side in SIDES:
                    rows = got[side]
                    cells = [
                        shown([r["rate"] for r in rows]),
                        shown(ratios, ".1f") if side == "ours" else "",
                        shown([r["first"] for r in rows], ".2f"),
                        shown([r["first"] for r in got["stored"]], ".2f") if side == "ours" else "",
                        shown([r["cpu"] for r in rows], ".2f"),
                        shown([r["memory"] for r in rows]),
                    ]
                    print(f"| {data_type} | {workers} | {side} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
