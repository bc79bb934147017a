"""What ``recognize`` and ``transcribe`` share: the flags of decoding, and a model ready to be asked."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from wenet_osum.bin.common import at_least
from wenet_osum.decode import load
from wenet_osum.decode.answer import DRAFTS, Answerer
from wenet_osum.decode.load import Loaded, LoadSpec, check_answers
from wenet_osum.device import DEVICES, DTYPES
from wenet_osum.errors import OsumError
from wenet_osum.models.generation import OSUM_RELEASE, Search
from wenet_osum.wenet.encoders import build_model

PRESETS = {"osum_release": OSUM_RELEASE}


def add_model_flags(p: argparse.ArgumentParser, positional: bool = False) -> None:
    p.add_argument("--config", help="train.yaml of the run; default: config.yaml of a model folder")
    what = ".pt, or a model folder (osum convert)"
    if positional:
        p.add_argument("checkpoint", metavar="CKPT", help=what)
    else:
        p.add_argument("--checkpoint", required=True, help=what)
    p.add_argument("--gpu", type=int, default=-1, help="run on this CUDA card; -1: see --device")
    p.add_argument("--device", default="cpu", choices=DEVICES)
    p.add_argument("--dtype", choices=DTYPES, help="autocast; default: the config's")
    p.add_argument("--batch_size", type=at_least(1), default=16)
    p.add_argument(
        "--num_threads", type=at_least(0), default=0, help="threads of this process; 0: torch's choice"
    )
    p.add_argument("--override_config", action="append", default=[], metavar="KEY=VALUE")


def share(text: str) -> float:
    """A number above 0, not above 1, for argparse."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0 and not above 1")
    return value


def positive(text: str) -> float:
    value = float(text)
    if not 0.01 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text}: give a number from 0.01 to 100")
    return value


def exponent(text: str) -> float:
    value = float(text)
    if not -10 <= value <= 10:
        raise argparse.ArgumentTypeError(f"{text}: give a number from -10 to 10")
    return value


def add_decode_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument("--beam_size", type=at_least(1), help="for llm_beam; default 10")
    p.add_argument("--length_penalty", type=exponent, help="for llm_beam; default 0")
    p.add_argument("--do_sample", action="store_true", help="draw, by --seed, in place of the likeliest")
    p.add_argument("--temperature", type=positive, help="of drawing")
    p.add_argument("--top_k", type=at_least(0), help="of drawing")
    p.add_argument("--top_p", type=share, help="of drawing")
    p.add_argument("--repetition_penalty", type=positive, help="above 1: against words said before")
    p.add_argument("--seed", type=at_least(0), help="of drawing; default 0")
    p.add_argument(
        "--preset", choices=PRESETS, help="osum_release: 4 beams, sampling, penalty 1.05; with llm_beam"
    )
    p.add_argument(
        "--no_constrain", action="store_true", help="let the LLM write as it likes: answers may not parse"
    )
    p.add_argument("--draft", default="none", choices=DRAFTS, help="let the CTC head guess the transcript")
    p.add_argument("--hotwords", help="words with commas between, or a file with one a line")
    p.add_argument("--prompt", help="a question of your own in place of the task's")
    p.add_argument(
        "--lang", choices=["zh", "en"], help="of the question; default: the config's, or the list's"
    )


def search_of(args: argparse.Namespace) -> Search:
    """The preset, and over it the flags that were given."""
    search = PRESETS[args.preset] if args.preset else Search(beam_size=10)
    names = ("beam_size", "length_penalty", "temperature", "top_k", "top_p", "repetition_penalty", "seed")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return replace(search, do_sample=args.do_sample or search.do_sample, **given)


def hotwords_of(given: str | None) -> list[str]:
    if not given:
        return []
    words = given.split(",")
    if os.path.isfile(given):  # a list may be longer than a name can be, which pathlib does not take
        try:
            words = Path(given).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise OsumError(given, "is not UTF-8", "write one hotword a line in UTF-8") from None
    return [word.strip() for word in words if word.strip()]


def spec_of(args: argparse.Namespace, **search: Any) -> LoadSpec:
    """The model that the flags name. ``search``: further fields of ``LoadSpec``."""
    names = ("checkpoint", "config", "device", "gpu", "dtype", "num_threads")
    how = {name: getattr(args, name) for name in names}
    return LoadSpec(**how, override_config=tuple(args.override_config), **search)


def load_model(args: argparse.Namespace) -> Loaded:
    """The model of ``--config`` and ``--checkpoint``, in evaluation mode."""
    return load.load_model(spec_of(args), build_model)


def load_answerer(args: argparse.Namespace, loaded: Loaded, mode: str = "llm_greedy") -> Answerer:
    """Raises:
    OsumError: flags that do not go together, or not with this model (stage 1 answers in ``recognize`` only).
    """
    check_answers(loaded, args.checkpoint)
    if args.draft != "none" and (args.preset or args.do_sample):
        raise OsumError(
            "--draft", "goes with greedy decoding only", "drop --preset and --do_sample, or --draft"
        )
    if args.preset and mode != "llm_beam":
        raise OsumError("--preset", f"{args.preset} is a beam search, {mode} is none", "ask for llm_beam")
    return Answerer(
        loaded.model,
        loaded.tokenizer,
        loaded.table,
        loaded.conf,
        loaded.engine.device,
        mode,
        search_of(args),
        not args.no_constrain,
        args.draft,
        loaded.engine.autocast,
        hotwords_of(args.hotwords),
        args.prompt,
        args.lang,
        (getattr(args, "decoding_chunk_size", -1), getattr(args, "num_decoding_left_chunks", -1)),
    )
