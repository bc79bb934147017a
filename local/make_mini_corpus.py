#!/usr/bin/env python3
"""Make the English training corpus of OSUM-mini: synthesised speech of open vocabulary, as Kaldi dirs.

    python local/make_mini_corpus.py --held_out data/asterisk/{dev,test} --llm SmolLM2-135M-Instruct --output data/mini

Sentences: the examples of WordNet (Debian's ``wordnet-base``, WordNet's own permissive licence), telephone prompts
and short questions of a grammar of our own (mini_corpus/prompts.py). No sentence of ``--held_out`` is in them, alone or, from
four words up, inside another one. Speakers: five synthesisers (mini_corpus/engines.py says what to install; ``--engines``
takes some of them), dev and test with voices that train does not have; half of the recordings have a telephone's bandwidth.

Labels: the gender of the voice; word times from the synthesisers that tell them (espeak-ng's events, festival's segments);
the answers of ``--llm`` itself to the questions (without it, questions have transcripts alone).
Also ``noise.scp`` and ``room.scp``, made by rule, for add_noise and add_reverb.

Stopped, it goes on where it was when it is run again; the same seed and sizes give the same corpus with any
``--nj`` (but for Piper's noise, which onnxruntime draws).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent))  # it runs uninstalled too

from mini_corpus.engines import ENGINES  # beside this script
from mini_corpus.prompts import PROMPTS, QUESTIONS, draw
from mini_corpus.replies import answer
from mini_corpus.sounds import write_sounds
from mini_corpus.texts import Held, read_texts, without, wordnet_examples
from mini_corpus.voices import SPLITS
from mini_corpus.writer import Line, Part, parts_of, plan_split, run, write_data_dir

from wenet_osum.errors import OsumError, run_main
from wenet_osum.fileio import atomic_write

# Of a split's sentences: prompts of the telephone, questions; the rest is WordNet's.
PROMPT_SHARE, QUESTION_SHARE = 0.28, 0.06
ASKERS = 3  # voices that say each question of train; there are some 700 questions


def get_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description="Make the training corpus of OSUM-mini.")
    p.add_argument(
        "--output", required=True, type=Path, help="folder; gets train/, dev/, test/ and the audio"
    )
    p.add_argument("--train", type=int, default=16000, help="utterances for training")
    p.add_argument("--dev", type=int, default=120, help="utterances for validation")
    p.add_argument("--test", type=int, default=400, help="utterances for the test")
    p.add_argument("--held_out", type=Path, nargs="*", default=[], help="Kaldi dirs of other test sets")
    p.add_argument("--engines", default=",".join(ENGINES), help="synthesisers; default: %(default)s")
    p.add_argument("--llm", help="folder or hub id of the Instruct model that answers the questions")
    p.add_argument("--root", type=Path, default=Path("/"), help="where wordnet-base is installed or unpacked")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--nj", type=int, default=2, help="processes")
    args = p.parse_args(argv)
    if min(args.train, args.dev, args.test, args.nj) < 1:
        p.error("--train, --dev, --test and --nj must be at least 1")
    args.engines = args.engines.split(",")
    for name in args.engines:
        if name not in ENGINES:
            p.error(f"--engines: no {name!r}; take some of {','.join(ENGINES)}")
    return args


def sentences(args: argparse.Namespace) -> dict[str, list[Line]]:
    """The lines of each split; no sentence is in two of them.

    Raises:
        OsumError: there are not as many sentences as were asked for.
    """
    held, used = Held(read_texts(args.held_out)), set[str]()
    rng = np.random.default_rng([args.seed, 10])
    examples = wordnet_examples(args.root)
    open_texts = without([examples[i] for i in rng.permutation(len(examples))], held, used)
    drawn: dict[str, tuple[list[str], list[str], list[str]]] = {}
    for split in ("test", "dev", "train"):
        total = getattr(args, split)
        askers = ASKERS if split == "train" else 1
        few, most = round(total * QUESTION_SHARE / askers), round(total * PROMPT_SHARE)
        questions = list(islice(without(draw(QUESTIONS, 20 * few + 60, rng), held, used), few)) * askers
        prompts = list(islice(without(draw(PROMPTS, 2 * most + 60, rng), held, used), most))
        others = list(islice(open_texts, total - len(questions) - len(prompts)))
        if len(questions) + len(prompts) + len(others) < total:
            what = f"only {len(examples)} sentences of WordNet are readable, too few for {split}"
            raise OsumError(f"--{split} {total}", what, "ask for fewer utterances")
        drawn[split] = questions, prompts, others
    replies = dict.fromkeys((q for questions, _, _ in drawn.values() for q in questions), "")
    if args.llm:
        replies = answered(list(replies), args.llm, args.output / "replies.json")
    lines = {}
    for split, (questions, prompts, others) in drawn.items():
        mine = [Line(f"{q}?", replies[q]) for q in questions] + [Line(t) for t in [*prompts, *others]]
        lines[split] = [mine[i] for i in rng.permutation(len(mine))]
    return lines


def answered(questions: list[str], llm: str, store: Path) -> dict[str, str]:
    """The questions with the model's answers, kept in ``store`` for the next start."""
    known: dict[str, str] = json.loads(store.read_text(encoding="utf-8")) if store.is_file() else {}
    missing = [q for q in questions if q not in known]
    if missing:
        known |= dict(zip(missing, answer(missing, llm)))
        with atomic_write(store) as f:
            json.dump(known, f, indent=1)
    return {q: known[q] for q in questions}


def check_plan(args: argparse.Namespace, lines: dict[str, list[Line]]) -> None:
    """Keep what the corpus is made of beside it.

    Raises:
        OsumError: the folder holds a corpus of other sentences, sizes or voices.
    """
    plan = {"seed": args.seed, "engines": args.engines, "lines": lines}
    path, text = args.output / "plan.json", json.dumps(plan)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise OsumError(
            str(path), "is of another seed, size, choice of engines or text", "give another --output"
        )
    with atomic_write(path) as f:
        f.write(text)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    args = get_args(argv)
    lines = sentences(args)
    check_plan(args, lines)
    parts: dict[str, list[Part]] = {}
    for split in SPLITS:
        items = plan_split(split, lines[split], args.engines, args.seed)
        parts[split] = parts_of(split, items, args.seed, args.output / "parts")
    for _ in run([part for split in ("dev", "test", "train") for part in parts[split]], args.nj):
        pass
    for split in SPLITS:
        causes = write_data_dir(args.output / split, parts[split])
        left = "; left out: " + ", ".join(f"{n} {c}" for c, n in causes.items()) if causes else ""
        print(f"{split}: {len(lines[split]) - causes.total()} utterances{left}")
    speech = sorted(wav for part in parts["train"][:4] for wav in part.folder.glob("*.wav"))
    write_sounds(args.output / "sounds", speech, args.seed)
    return 0


if __name__ == "__main__":
    run_main(main)
