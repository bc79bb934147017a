"""Padding of our batches and WeNet's, on lengths as LibriSpeech's and WenetSpeech's.

    python benchmarks/padding.py [--wenet WENET_CHECKOUT] [--utterances 200000] [--max_frames 12000]

For each corpus a table: batches; padding of the audio (padded frames beyond the real ones, in % of these); of
the LLM's rows (a row: 12.5 places a second of audio, 25 for the prompt, the answer); how full batches are (frames
with padding, of the budget); how far the costlier of two batches that two ranks take at one step is above the
other, in the mean. WeNet's batches come from its own classes in the checkout: shuffle buffer 1500, sort buffer
500, longest x count within the budget, as in its recipes.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from lengths import draw

from wenet_osum.dataset.plan import plan_batches

PROMPT = 25


def ours(
    kind: str, frames: np.ndarray, tokens: np.ndarray, max_frames: int, shard: int
) -> tuple[np.ndarray, np.ndarray]:
    conf = {"batch_type": kind, "max_frames_in_batch": max_frames, "max_tokens_in_batch": max_frames // 3}
    block = np.arange(len(frames)) // shard
    return plan_batches(frames, tokens, conf, group=2, block=block)


def load_pipes(checkout: Path) -> Any:
    """WeNet's ``datapipes`` module, by itself."""
    # Its processors need torchaudio; none of them is called here.
    processor = types.ModuleType("wenet.dataset.processor")
    processor.parse_url = None  # type: ignore[attr-defined]
    sys.modules.update(
        {"wenet": types.ModuleType("wenet"), "wenet.dataset": types.ModuleType("wenet.dataset")}
    )
    sys.modules["wenet.dataset.processor"] = processor
    spec = importlib.util.spec_from_file_location(
        "wenet_datapipes", checkout / "wenet" / "dataset" / "datapipes.py"
    )
    assert spec and spec.loader
    pipes = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = pipes
    spec.loader.exec_module(pipes)
    return pipes


def wenets(pipes: Any, frames: np.ndarray, max_frames: int, shard: int) -> tuple[np.ndarray, np.ndarray]:
    """The batches of WeNet's pipeline for one worker: shuffled shards, its shuffle, sort and batching steps."""
    from torch.utils.data.datapipes.iter import IterableWrapper

    class Window:
        """The rule of WeNet's ``DynamicBatchWindow``, which stands among the processors."""

        longest = 0

        def __call__(self, row: int, count: int) -> bool:
            self.longest = max(self.longest, int(frames[row]))
            full = self.longest * (count + 1) > max_frames
            if full:
                self.longest = int(frames[row])
            return full

    warnings.simplefilter("ignore")  # that a local function cannot be pickled
    random.seed(0)
    shards = [range(i, min(i + shard, len(frames))) for i in range(0, len(frames), shard)]
    random.shuffle(shards)
    pipe = IterableWrapper([row for s in shards for row in s], deepcopy=False).shuffle(buffer_size=1500)
    pipe = pipes.SortDataPipe(pipe, 500, lambda row: int(frames[row]))
    batches = list(pipes.DynamicBatchDataPipe(pipe, Window(), list))
    sizes = [len(b) for b in batches]
    return np.array([row for b in batches for row in b]), np.concatenate([[0], np.cumsum(sizes)])


def figures(
    name: str,
    batches: tuple[np.ndarray, np.ndarray],
    frames: np.ndarray,
    tokens: np.ndarray,
    max_frames: int,
) -> str:
    """A row of the table."""
    order, bounds = batches
    assert np.array_equal(np.sort(order), np.arange(len(frames))), "every utterance once"
    starts, counts = bounds[:-1], np.diff(bounds)
    rows = frames // 8 + PROMPT + tokens

    def with_padding(lengths: np.ndarray) -> np.ndarray:
        lengths = lengths[order].astype(np.int64)
        if name.endswith("pack"):
            return np.add.reduceat(lengths, starts)
        return np.maximum.reduceat(lengths, starts) * counts

    audio, text = with_padding(frames), with_padding(rows)
    pairs = audio[: len(audio) // 2 * 2].reshape(-1, 2)
    if name.startswith("WeNet"):  # its ranks have shards of their own, and so a sorted buffer each
        pairs = audio[: len(audio) // 2 * 2].reshape(2, -1).T
    spread = (pairs.max(1) / pairs.min(1) - 1).mean()
    cells = [audio.sum() / frames.sum() - 1, text.sum() / rows.sum() - 1, audio.mean() / max_frames, spread]
    return f"| {name} | {len(counts):,} | " + " | ".join(f"{100 * c:.2f} %" for c in cells) + " |"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--wenet", type=Path, help="a WeNet checkout")
    p.add_argument("--utterances", type=int, default=200_000)
    p.add_argument("--max_frames", type=int, default=12_000, help="of a batch, 10 ms each")
    p.add_argument("--shard", type=int, default=1000, help="utterances that lie together")
    args = p.parse_args()
    pipes = load_pipes(args.wenet) if args.wenet else None
    for corpus in ("LibriSpeech", "WenetSpeech"):
        frames, tokens = draw(corpus, args.utterances)
        print(f"\n{corpus}-like: {args.utterances:,} utterances, mean {frames.mean() / 100:.2f} s, ", end="")
        print(f"{tokens.mean():.1f} tokens; budget {args.max_frames:,} frames\n")
        print(
            "| | batches | audio padding | LLM-row padding | full | pairs differ by |\n|---|---|---|---|---|---|"
        )
        for kind in ("dynamic", "pack"):
            batches = ours(kind, frames, tokens, args.max_frames, args.shard)
            print(figures(f"ours, {kind}", batches, frames, tokens, args.max_frames))
        if pipes:
            batches = wenets(pipes, frames, args.max_frames, args.shard)
            print(figures("WeNet, dynamic", batches, frames, tokens, args.max_frames))


if __name__ == "__main__":
    main()
