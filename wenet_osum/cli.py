"""The ``osum`` command: ``osum COMMAND ...`` runs ``wenet_osum/bin/COMMAND.py``."""

from __future__ import annotations

import importlib
import sys

from wenet_osum import __version__
from wenet_osum.errors import OsumError, run_main

COMMANDS = {
    "validate": "check a Kaldi data dir: file, line and mend of every fault",
    "make_raw_list": "Kaldi data dir -> raw list",
    "make_shard_list": "Kaldi data dir -> tar shards and their list",
    "train_tokenizer": "sentencepiece tokenizer for a model trained from nothing",
    "info": "count a config's model: parameters, what learns, memory",
    "tune_batch": "find the largest batches that the device's memory holds",
    "train": "train stage 1 (whisper_multitask) or stage 2 (osum)",
    "average_model": "mean of several checkpoints",
    "convert": "OSUM's infer.pt, our checkpoints, model folders, Hugging Face folders: from one to another",
    "recognize": "decode a list, any task",
    "transcribe": "files, folders or standard input -> text, JSON, subtitles, CTM; any task",
    "serve": "HTTP: OpenAI's API for transcriptions and chat, every task, a web page to speak into",
    "score": "score a decode folder, print the table, write scores.json",
}


def usage() -> str:
    lines = [
        f"osum {__version__}: speech understanding, from Kaldi data dirs to scores",
        "",
        "osum COMMAND --help",
        "",
    ]
    return "\n".join(lines + [f"  {name:16} {what}" for name, what in COMMANDS.items()])


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help", "help"):
        print(usage())
        return 0
    name = sys.argv[1].replace("-", "_")  # tune-batch, tune_batch
    if name not in COMMANDS:
        raise OsumError(f"osum {name}", "unknown command", f"choose one of {', '.join(COMMANDS)}")
    return importlib.import_module(f"wenet_osum.bin.{name}").main(sys.argv[2:]) or 0


def entry() -> None:
    run_main(main)
