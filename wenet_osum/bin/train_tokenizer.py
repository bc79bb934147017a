"""Train the sentencepiece tokenizer of a run on its raw lists."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from wenet_osum.dataset.lists import read_raw_list
from wenet_osum.errors import OsumError, run_main
from wenet_osum.tasks import load_tasks
from wenet_osum.text.train_sentencepiece import fixed_symbols, train_sentencepiece, training_lines


def get_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="osum train_tokenizer", description=__doc__)
    parser.add_argument("--data_list", nargs="+", required=True, help="raw lists (JSON lines)")
    parser.add_argument("--output", required=True, help="the .model file to write")
    parser.add_argument("--vocab_size", type=int, default=1000, help="the most pieces (default: %(default)s)")
    parser.add_argument("--time_step", type=float, default=0.04, help="seconds (default: %(default)s)")
    parser.add_argument("--max_time", type=float, default=8.0, help="last time, s (default: %(default)s)")
    parser.add_argument("--task_conf", action="append", default=[], help="YAML files with further tasks")
    parser.add_argument("--prompts", default="en,zh", help="languages of the prompts (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train and report; returns the exit status."""
    args = get_args(argv)
    tasks = load_tasks(*args.task_conf)
    samples = [sample for path in args.data_list for _, sample in read_raw_list(path)]
    if not samples:
        raise OsumError(" ".join(args.data_list), "no utterance in it", "check --data_list")
    lines = training_lines(samples, tasks, [lang for lang in args.prompts.split(",") if lang])
    symbols = fixed_symbols(tasks, args.time_step, args.max_time)
    pieces = train_sentencepiece(lines, args.output, args.vocab_size, symbols)
    print(f"{args.output}: {pieces} pieces from {len(lines)} lines")
    return 0


if __name__ == "__main__":
    run_main(main)
