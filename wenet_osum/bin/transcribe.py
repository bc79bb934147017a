"""Recordings in, what is said in them out: files, folders or standard input, any task, several formats."""

from __future__ import annotations

import argparse
import functools
import io
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from wenet_osum.bin.decode_flags import add_decode_flags, add_model_flags, load_answerer, load_model
from wenet_osum.checkpoint.assemble import config_path, load_table, resolve_beside
from wenet_osum.config import load_config
from wenet_osum.decode.formats import FORMATS, Transcript, Writer, check_formats, text
from wenet_osum.decode.load import most_seconds
from wenet_osum.decode.recordings import Recording, find_recordings
from wenet_osum.decode.transcribe import transcribe
from wenet_osum.errors import OsumError, run_main
from wenet_osum.fileio import atomic_write
from wenet_osum.score.report import TASK_ORDER
from wenet_osum.tasks import Task

EPILOG = """exit status: 0 every recording is answered; 1 a wrong command line or model, nothing is answered any more;
2 some recordings could not be read: each has a line on standard error, and in json an object with "error"."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """In one line, and status 1: argparse's own 2 has another meaning here."""
        raise OsumError("osum transcribe", message, "see osum transcribe --help")


def seconds(text: str) -> float:
    """An argparse type: a number from 1 up."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 1 up")
    return value


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    p = _Parser(prog="osum transcribe", description=__doc__, epilog=EPILOG)
    p.add_argument(
        "files", nargs="+", metavar="FILE", help="audio file; folder: all in it; -: standard input"
    )
    add_model_flags(p)
    p.add_argument(
        "--task", default="asr", help="name or tag; several with commas between; all: the eight tasks"
    )
    p.add_argument(
        "--format", default="text", help=f"{', '.join(FORMATS)}; several with commas (with --output_dir)"
    )
    p.add_argument("--output_dir", help="a file a recording and format; default: standard output")
    p.add_argument(
        "--max_seconds", type=seconds, default=30.0, help="longer recordings are cut at pauses, see --vad"
    )
    p.add_argument(
        "--vad", choices=["energy", "silero", "none"], default="energy", help="how pauses are found"
    )
    p.add_argument("--mode", choices=["llm_greedy", "llm_beam"], default="llm_greedy")
    add_decode_flags(p)
    return p.parse_intermixed_args(argv)  # flags may stand among the files


def asked_tasks(args: argparse.Namespace) -> list[Task]:
    """What ``--task`` names, by the config alone: a model may take minutes to load."""
    config = config_path(args.config, args.checkpoint)
    configs = load_config(config, args.override_config)
    resolve_beside(configs, config)
    table = load_table(configs)
    names = TASK_ORDER if args.task == "all" else args.task.split(",")
    return list({task.name: task for task in map(table.find, names)}.values())


def check_outputs(recordings: list[Recording], formats: list[str], output_dir: str | None) -> None:
    """Raises:
    OsumError: two outputs would get into each other's way.
    """
    if output_dir is None:
        if len(formats) > 1:
            raise OsumError("--format", "standard output takes one format", "give --output_dir")
        if len(recordings) > 1 and formats[0] in ("srt", "vtt"):
            what = f"{len(recordings)} recordings in one {formats[0]} file"
            raise OsumError("--format", what, "give --output_dir")
        return
    first: dict[str, Recording] = {}
    for recording in recordings:
        other = first.setdefault(recording.name, recording)
        if other is not recording:
            what = f"{other.file} and {recording.file} would both be {recording.name}"
            raise OsumError("--output_dir", what, "name each once, or give the folder they are in")


def write(done: Transcript, outputs: Iterable[tuple[Writer, str]], output_dir: str | None) -> None:
    """Write a recording's answers: to its files, or to standard output at once. For one that failed there is
    only a JSON object."""
    for writer, suffix in outputs:
        if done.error is not None and suffix != "json":
            continue
        if output_dir is None:
            sys.stdout.write(writer(done))
            sys.stdout.flush()
        else:
            with atomic_write(Path(output_dir, f"{done.name}.{suffix}")) as f:
                f.write(writer(done))


def main(argv: list[str] | None = None) -> int:
    args = get_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    recordings, left_out = find_recordings(args.files)
    for line in left_out:
        logging.info(line)
    tasks = asked_tasks(args)
    formats = list(dict.fromkeys(name.strip() for name in args.format.split(",")))
    check_formats(formats, tasks)
    check_outputs(recordings, formats, args.output_dir)
    outputs = {name: FORMATS[name] for name in formats}
    if "text" in outputs:
        with_file = len(recordings) > 1 and args.output_dir is None
        write_text = functools.partial(text, with_file=with_file, with_task=len(tasks) > 1)
        outputs["text"] = (write_text, outputs["text"][1])

    loaded = load_model(args)
    answerer = load_answerer(args, loaded, args.mode)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as the files are
    failed = 0
    how = "{desc}: {n:.0f} s of audio in {elapsed}{postfix}"
    with tqdm(desc="transcribe", disable=None, bar_format=how) as bar:
        most = min(args.max_seconds, most_seconds(loaded.conf))
        results = transcribe(
            recordings, answerer, tasks, loaded.conf, args.batch_size, most, args.vad, bar.update
        )
        for n, done in enumerate(results, 1):
            with bar.external_write_mode():  # the bar makes way for the answers on the same terminal
                write(done, outputs.values(), args.output_dir)
                if done.error is not None:
                    failed += 1
                    print(f"error: {done.error}", file=sys.stderr)
            bar.set_postfix_str(f"{n}/{len(recordings)} recordings")
    return 2 if failed else 0


if __name__ == "__main__":
    run_main(main)
