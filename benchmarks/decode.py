"""Greedy decoding: OSUM's public code one utterance at a time, transformers' ``generate`` and ours.

    python benchmarks/decode.py WORKLOAD.json --osum OSUM_CHECKOUT/OSUM --osum_python PYTHON --pairs 5

The model and weights of ``train_step.py``; every utterance is answered with ``--tokens`` tokens (random weights do
not end by themselves), fp32. Encoder, adapter and LLM are timed together, features are not. All must write the same
tokens. Each measurement is a process of its own, and the programs take turns.

    python benchmarks/decode.py --demo exp/tiny/final.pt --config exp/tiny/train.yaml --test_data LIST --pairs 5

On a trained model with a CTC head: the seconds of ``Answerer.answer`` over a list, plain and drafted, the same answers
asked for; and each of the eight tasks alone against all of them at once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
import train_step
from train_step import EOS, utterances_of

KINDS = ["osum:1", "transformers:16", "ours:16", "ours:32", "ours:1"]


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workload", type=Path, nargs="?")
    parser.add_argument("--osum", type=Path, help="a checkout's OSUM folder")
    parser.add_argument("--osum_python", default=sys.executable)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="program:batch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--demo", help="a trained checkpoint, in place of the workload")
    parser.add_argument("--config")
    parser.add_argument("--test_data")
    parser.add_argument("--utterances", type=int, default=800)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


# --- the workload ---


class Ids:
    """For OSUM's ``generate``: a tokenizer that hands ids through."""

    prompt: Any = None

    def __call__(self, text: list[str], return_tensors: str) -> dict[str, Any]:
        return {"input_ids": self.prompt[None]}

    def batch_decode(self, ids: Any, **how: Any) -> list[list[int]]:
        return ids.tolist()  # type: ignore[no-any-return]


def osum_answers(args: argparse.Namespace) -> Any:
    model = train_step.osum_model(args)
    model.tokenizer = Ids()
    model.num_beams, model.do_sample, model.repetition_penalty = 1, False, 1.0
    model.max_length = args.tokens
    model.top_p, model.top_k = 1.0, 50  # of sampling; other than these they are only warned about

    def answer(utterances: list[dict[str, Any]]) -> list[list[int]]:
        found = []
        for u in utterances:
            model.tokenizer.prompt = u["prompt"]
            lengths = torch.tensor([len(u["feats"])])
            found += model.generate(u["feats"][None], lengths, "as the tokenizer has it")
        return found

    return answer


def our_answers(args: argparse.Namespace, size: int, theirs: bool) -> Any:
    """By batches of ``size``, sorted by length as our loader does; ``theirs``: transformers' ``generate`` in the place of ours."""
    model = train_step.our_model(args.folder)

    def write(batch: dict[str, Any]) -> list[list[int]]:
        heard = model.hear(batch["feats"], batch["feats_lengths"])
        if not theirs:
            return [
                w.tokens for w in model.ask(heard, batch["prompt"]).write([args.tokens] * len(heard.real))
            ]
        seq = model.sequence(batch["prompt"], heard.embeds, heard.real, None)
        return model.decoder.causal_lm.generate(  # type: ignore[no-any-return]
            inputs_embeds=seq.embeds,
            attention_mask=seq.mask.long(),
            max_new_tokens=args.tokens,
            do_sample=False,
            eos_token_id=EOS,
            pad_token_id=EOS,
        ).tolist()

    def answer(utterances: list[dict[str, Any]]) -> list[list[int]]:
        order = sorted(range(len(utterances)), key=lambda i: len(utterances[i]["feats"]))
        found: dict[int, list[int]] = {}
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            batch = train_step.our_batch([utterances[i] for i in rows])
            feats = [utterances[i]["feats"] for i in rows]
            batch["feats"] = torch.nn.utils.rnn.pad_sequence(feats, batch_first=True)
            found.update(zip(rows, write(batch)))
        return [found[i] for i in range(len(order))]

    return answer


def worker(args: argparse.Namespace) -> Any:
    """One measurement; what it prints last is JSON."""
    torch.set_num_threads(args.threads)
    utterances = utterances_of(args.workload)
    kind, size = args.worker.split(":")
    answer = osum_answers(args) if kind == "osum" else our_answers(args, int(size), kind == "transformers")
    with torch.no_grad():
        answer(utterances[:2])
        start = time.perf_counter()
        tokens = answer(utterances)
        return {"seconds": time.perf_counter() - start, "tokens": tokens}


def measure(args: argparse.Namespace, folder: Path, kind: str) -> Any:
    python = args.osum_python if kind.startswith("osum") else sys.executable
    argv = [python, "-W", "ignore", __file__, str(args.workload), "--worker", kind, "--folder", str(folder)]
    argv += ["--threads", str(args.threads), "--tokens", str(args.tokens)]
    argv += ["--osum", str(args.osum.resolve())] if args.osum else []
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, env=env, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def workload(args: argparse.Namespace) -> None:
    kinds = [k for k in args.kinds if args.osum or not k.startswith("osum")]
    runs: dict[str, list[float]] = {kind: [] for kind in kinds}
    tokens: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train_step.our_model(folder)
        for n in range(args.pairs):
            for kind in kinds:
                run = measure(args, folder, kind)
                runs[kind].append(run["seconds"])
                tokens[kind] = run["tokens"]
                print(f"round {n + 1} {kind}: {run['seconds']:.2f} s", file=sys.stderr)
    count = len(tokens["ours:16"])
    print("| code | batch | utt/s | ours in batches of 16, times this | answers equal to ours |")
    print("|---|---|---|---|---|")
    for kind in kinds:
        ratio = statistics.median(a / b for a, b in zip(runs[kind], runs["ours:16"]))
        equal = sum(a == b for a, b in zip(tokens[kind], tokens["ours:16"]))
        speed = count / statistics.median(runs[kind])
        what, size = kind.split(":")
        print(f"| {what} | {size} | {speed:.2f} | {ratio:.2f} | {equal} of {count} |")


# --- a trained model ---


def demo(args: argparse.Namespace) -> None:
    from wenet_osum.bin.decode_flags import add_decode_flags, add_model_flags, load_answerer, load_model
    from wenet_osum.dataset.index import TaskSets
    from wenet_osum.dataset.index_build import build_index
    from wenet_osum.dataset.loader import Loader
    from wenet_osum.registry import DATASETS
    from wenet_osum.score.report import TASK_ORDER

    parser = argparse.ArgumentParser()
    add_model_flags(parser)
    add_decode_flags(parser)
    flags = parser.parse_args(["--checkpoint", args.demo, "--config", args.config])
    torch.set_num_threads(args.threads)
    loaded = load_model(flags)
    tasks = list(TASK_ORDER)
    conf = {**loaded.conf, "batch_conf": {**loaded.conf["batch_conf"], "batch_type": "static"}}
    conf["batch_conf"]["batch_size"] = args.batch_size
    index = build_index(
        args.test_data, "raw", loaded.table, loaded.tokenizer.encode, conf, tasks, need_answer=False
    )
    first = (np.arange(len(index)) >= args.utterances).astype(np.int32)
    dataset = DATASETS.find(loaded.configs["dataset"])(
        index.asking(TaskSets([("asr",), ()], first)),
        loaded.table, loaded.tokenizer, conf, loaded.configs["seed"], train=False,
    )  # fmt: skip
    loader = Loader(dataset, 0)
    loader.plan(0)
    batches = list(loader)
    count = sum(len(b["keys"]) for b in batches)

    def timed(draft: str, asked: list[str]) -> tuple[float, dict[str, list[Any]]]:
        flags.draft = draft
        answerer = load_answerer(flags, loaded)
        answerer.answer(batches[0], asked)
        found: dict[str, list[Any]] = {task: [] for task in asked}
        start = time.perf_counter()
        for batch in batches:
            for task, answers in answerer.answer(batch, asked).items():
                found[task] += answers
        return time.perf_counter() - start, found

    print("| task | plain utt/s | drafted | times | same answers | accepted of proposed |")
    print("|---|---|---|---|---|---|")
    singles: dict[str, list[float]] = {}
    for task in tasks:
        pairs = [(timed("none", [task]), timed("exact", [task])) for _ in range(args.pairs)]
        (_, plain), (_, drafted) = pairs[-1]
        singles[task] = [p[0][0] for p in pairs]
        same = sum(a.text == b.text for a, b in zip(plain[task], drafted[task]))
        accepted, proposed = (sum(getattr(a, n) for a in drafted[task]) for n in ("accepted", "proposed"))
        a, b = (statistics.median(p[i][0] for p in pairs) for i in (0, 1))
        ratio = statistics.median(p[0][0] / p[1][0] for p in pairs)
        print(
            f"| {task} | {count / a:.1f} | {count / b:.1f} | {ratio:.2f} | {same} of {count} | {accepted} of {proposed} |",
            flush=True,
        )
    for draft in ("none", "exact"):
        whole = [timed(draft, tasks)[0] for _ in range(args.pairs)]
        print(
            f"\nall eight at once, draft {draft}: {statistics.median(whole):.2f} s for {count} utterances",
            end="; times one task: ",
        )
        ratios = {t: statistics.median(w / s for w, s in zip(whole, singles[t])) for t in tasks}
        print(", ".join(f"{t} {r:.2f}" for t, r in ratios.items()), flush=True)
    print()


def main() -> int:
    args = get_args()
    if args.worker:
        print(json.dumps(worker(args)))
    elif args.demo:
        demo(args)
    else:
        workload(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
