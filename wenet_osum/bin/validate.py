"""Find every fault of Kaldi data dirs: a line each, with file and line, what is wrong and the mend.

Nothing is changed. Exit status 1 when there are faults. Pipes in wav.scp are run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tqdm import tqdm

from wenet_osum.dataset.validate import survey_data_dir
from wenet_osum.errors import run_main
from wenet_osum.tasks import load_tasks


def get_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="validate.py", description=__doc__)
    parser.add_argument(
        "--task_conf", action="append", default=[], help="YAML of further tasks (may be repeated)"
    )
    parser.add_argument("--no_audio", action="store_true", help="check the text files only")
    parser.add_argument("--num_threads", type=int, default=1, help="threads that decode audio (1)")
    parser.add_argument("dirs", nargs="+", metavar="DIR", help="Kaldi data dirs")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the faults on stdout, and a summary a dir; 1 if there is any fault."""
    args = get_args(argv)
    tasks = load_tasks(*args.task_conf)
    faults = 0
    for path in args.dirs:
        with tqdm(desc=path, unit="recording", file=sys.stderr, disable=None) as bar:

            def show(done: int, total: int, bar: tqdm = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            survey = survey_data_dir(path, tasks, not args.no_audio, args.num_threads, show)
        for fault in survey.faults:
            print(fault)
        offered = ", ".join(f"{name} {count}" for name, count in survey.offered.items()) or "none"
        print(
            f"{path}: {len(survey.faults)} faults, {survey.utterances} utterances, "
            f"{survey.seconds / 3600:.3f} h; tasks: {offered}"
        )
        faults += len(survey.faults)
    return 1 if faults else 0


if __name__ == "__main__":
    run_main(main)
