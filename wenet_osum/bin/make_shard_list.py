"""Make shards of a Kaldi data dir, with its labels; or of wav.scp and text, as WeNet's tool does."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence

from tqdm import tqdm

from wenet_osum.dataset.kaldi import read_data_dir, read_scp
from wenet_osum.dataset.shards import SHARD_TYPES, skipped_path, write_shards
from wenet_osum.errors import run_main
from wenet_osum.tasks import load_tasks

USAGE = """make_shard_list.py --data_dir DIR [--task_conf YAML] [options] shards_dir shards_list
       make_shard_list.py [--segments FILE] [options] wav_file text_file shards_dir shards_list"""


def get_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ``paths`` are the four of WeNet's form, or the last two alone."""
    parser = argparse.ArgumentParser(usage=USAGE, description=__doc__)
    parser.add_argument("--data_dir", help="take everything that a Kaldi data dir holds")
    parser.add_argument(
        "--task_conf", action="append", default=[], help="YAML of further tasks (may be repeated)"
    )
    parser.add_argument("--shard_type", default="shard", choices=SHARD_TYPES, help="default: shard")
    parser.add_argument("--num_utts_per_shard", type=int, default=1000, help="utterances a tar (1000)")
    parser.add_argument("--num_threads", type=int, default=1, help="threads (1)")
    parser.add_argument("--prefix", default="shards", help="prefix of the tars' names (shards)")
    parser.add_argument("--segments", help="segments file")
    parser.add_argument("--resample", type=int, default=16000, help="sample rate of the tars' audio (16000)")
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="[wav_file text_file] shards_dir shards_list"
    )
    args = parser.parse_args(argv)
    wanted = 2 if args.data_dir else 4
    if len(args.paths) != wanted:
        parser.error(f"{wanted} paths wanted, {len(args.paths)} given")
    if args.data_dir and args.segments:
        parser.error("--data_dir takes the dir's own segments; leave out --segments")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Write the shards and their list, and say what was set aside; 0."""
    args = get_args(argv)
    if args.data_dir:
        samples = read_data_dir(args.data_dir, load_tasks(*args.task_conf))
    else:
        samples = read_scp(args.paths[0], args.paths[1], args.segments)
    shards_dir, shards_list = args.paths[-2:]
    with tqdm(total=len(samples), desc=shards_list, unit="utt", disable=None) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        report = write_shards(
            samples,
            shards_dir,
            shards_list,
            args.shard_type,
            args.num_utts_per_shard,
            args.num_threads,
            args.resample,
            args.prefix,
            advance,
        )
    hours = report.seconds / 3600
    print(f"{shards_list}: {report.utterances} utterances, {hours:.3f} h, {len(report.tars)} tars")
    if report.skipped:
        causes = Counter(row["cause"] for row in report.skipped)
        counts = ", ".join(f"{cause} {count}" for cause, count in sorted(causes.items()))
        print(f"{len(report.skipped)} set aside ({counts}): {skipped_path(shards_list)}")
    return 0


if __name__ == "__main__":
    run_main(main)
