"""Make the demo corpus: synthesised English and Mandarin speech with labels for all eight tasks, as Kaldi
data dirs.

    python local/make_tiny_corpus.py --output data/tiny

Everything is made offline by espeak-ng and signal processing, and is the same byte for byte for the same
--seed and sizes. It shows that the whole path works and lets a small model learn every task within minutes;
the labels stand for clear acoustic conventions (see tiny_corpus/delivery.py and sounds.py), so that scores on
it say nothing about people. No voice and no sentence of one split is in another. Children's voices have an
age but no gender label.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tiny_corpus.writer import make_corpus  # beside this script

sys.path.append(str(Path(__file__).resolve().parent.parent))  # it runs uninstalled too

from wenet_osum.errors import OsumError, run_main


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make the demo corpus: synthesised speech as Kaldi data dirs."
    )
    parser.add_argument(
        "--output", required=True, type=Path, help="folder to make; must not hold a corpus already"
    )
    parser.add_argument("--train", type=int, default=9000, help="utterances for training")
    parser.add_argument("--dev", type=int, default=160, help="utterances for validation")
    parser.add_argument("--test", type=int, default=800, help="utterances for the test")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nj", type=int, default=2, help="processes; the corpus is the same for any number")
    args = parser.parse_args(argv)
    if min(args.train, args.dev, args.test, args.nj) < 1:
        parser.error("--train, --dev, --test and --nj must be at least 1")
    return args


def main(argv: list[str] | None = None) -> int:
    args = get_args(argv)
    output: Path = args.output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OsumError(str(output), "exists already", "remove it or choose another --output")
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            sizes = {"train": args.train, "dev": args.dev, "test": args.test}
            make_corpus(unfinished, Path(scratch), sizes, args.seed, args.nj)
        unfinished.chmod(0o755)
        unfinished.replace(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return 0


if __name__ == "__main__":
    run_main(main)
