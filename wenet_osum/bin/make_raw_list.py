"""Make a raw list of a Kaldi data dir, with its labels; or of wav.scp and text, as WeNet's tool does."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tqdm import tqdm

from wenet_osum.dataset.kaldi import read_data_dir, read_scp
from wenet_osum.dataset.lists import write_raw_list
from wenet_osum.errors import run_main
from wenet_osum.tasks import load_tasks

USAGE = """make_raw_list.py --data_dir DIR [--task_conf YAML] output_file
       make_raw_list.py [--segments FILE] wav_file text_file output_file"""


def get_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; ``paths`` are the three files of WeNet's form, or the output alone."""
    parser = argparse.ArgumentParser(usage=USAGE, description=__doc__)
    parser.add_argument("--data_dir", help="take everything that a Kaldi data dir holds")
    parser.add_argument(
        "--task_conf", action="append", default=[], help="YAML of further tasks (may be repeated)"
    )
    parser.add_argument("--segments", help="segments file")
    parser.add_argument("paths", nargs="+", metavar="FILE", help="[wav_file text_file] output_file")
    args = parser.parse_args(argv)
    wanted = 1 if args.data_dir else 3
    if len(args.paths) != wanted:
        parser.error(f"{wanted} file(s) wanted, {len(args.paths)} given")
    if args.data_dir and args.segments:
        parser.error("--data_dir takes the dir's own segments; leave out --segments")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Write the list; 0."""
    args = get_args(argv)
    if args.data_dir:
        samples = read_data_dir(args.data_dir, load_tasks(*args.task_conf))
    else:
        samples = read_scp(args.paths[0], args.paths[1], args.segments)
    output = args.paths[-1]
    count = write_raw_list(tqdm(samples, desc=output, unit="utt", disable=None), output)
    print(f"{output}: {count} utterances")
    return 0


if __name__ == "__main__":
    run_main(main)
