"""Train a sentencepiece vocabulary for the answers of a table of tasks.

Labels and times are one piece each, so that an aligned transcript costs three tokens a word.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wenet_osum.errors import OsumError
from wenet_osum.fileio import atomic_write
from wenet_osum.tasks import TaskTable
from wenet_osum.text.normalize import process_text


def time_marks(time_step: float, max_time: float) -> list[str]:
    """``["<0.00>", "<0.04>", ...]`` up to ``max_time``, both in seconds.

    Raises:
        OsumError: the step is no multiple of 0.01 s, or ``max_time`` is not reached by one.
    """
    step = round(time_step * 100) if math.isfinite(time_step) else 0
    if step < 1 or not math.isclose(step, time_step * 100):
        raise OsumError("time_step", f"{time_step} s", "use a multiple of 0.01 s")
    if not time_step <= max_time < 10_000:
        raise OsumError("max_time", f"{max_time} s", "use the length of the longest utterance in seconds")
    return [f"<{i / 100:.2f}>" for i in range(0, round(max_time * 100) + 1, step)]


def fixed_symbols(tasks: TaskTable, time_step: float, max_time: float) -> list[str]:
    """What is one piece each: the labels, the parts of task tags (as short prompts) and the times."""
    atoms = dict.fromkeys(f"<{atom}>" for task in tasks.values() for atom in task.atoms)
    return [*tasks.marks(), *atoms, *time_marks(time_step, max_time)]


def training_lines(
    samples: Iterable[Mapping[str, Any]], tasks: TaskTable, prompt_langs: Sequence[str] = ()
) -> list[str]:
    """The text that a model of these samples reads and writes, in their order.

    Transcripts and replies; the words of aligned transcripts one by one, since between times they
    have no blank in front and would be spelled out otherwise; then the prompts of every task, repeated
    so that there is about one a sample: that is how often a prompt is read.

    Args:
        samples: sample dicts; a composed ``txt`` is taken apart.
        tasks: the tasks whose prompts are used.
        prompt_langs: languages whose prompts are used.

    Raises:
        OsumError: a composed ``txt`` that its task cannot read.
    """
    lines: list[str] = []
    count = 0
    for sample in samples:
        count += 1
        if sample.get("task"):
            answer = tasks.find(sample["task"]).answer_of(sample)
            texts = [answer.text, answer.reply, *(w.word for w in answer.words or ())]
        else:
            texts = [
                sample.get("txt"),
                sample.get("reply"),
                sample.get("question"),
                *(word for _, _, word in sample.get("align", ())),
            ]
        lines += [line for text in texts if text and (line := process_text(text))]
    for lang in prompt_langs:
        if not any(lang in task.prompts for task in tasks.values()):
            raise OsumError("prompts", f"no task has prompts in {lang!r}", "use zh or en")
    prompts = [p for task in tasks.values() for lang in prompt_langs for p in task.prompts.get(lang, ())]
    return lines + prompts * max(1, count // max(1, len(prompts)))


def train_sentencepiece(
    lines: Sequence[str], output: str | Path, vocab_size: int, symbols: Sequence[str] = ()
) -> int:
    """Train a BPE model that gives every text back exactly, and write it whole or not at all.

    The same lines give the same bytes. Unseen characters become UTF-8 byte pieces. Ids: 0 ``<unk>``,
    1 ``<s>``, 2 ``</s>``, 3 ``<pad>``, then the symbols.

    Args:
        lines: training text.
        output: the ``.model`` file to write.
        vocab_size: the most pieces; fewer when the lines hold no more.
        symbols: strings that are always one piece, e.g. ``"<happy>"``.

    Returns:
        the number of pieces.

    Raises:
        OsumError: no text, or a vocabulary too small for the characters and symbols.
    """
    import sentencepiece

    if not lines:
        raise OsumError(str(output), "no text to train a tokenizer on", "give a list with transcripts")
    if vocab_size < 1:
        raise OsumError("vocab_size", f"is {vocab_size}", "give 1 or more")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            byte_fallback=True,
            # Sentencepiece looks for symbols where blanks have become U+2581 already.
            user_defined_symbols=[symbol.replace(" ", "\u2581") for symbol in symbols],
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            max_sentence_length=1 << 24,  # longer lines are dropped
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as e:
        least = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(e))
        if least is None:
            raise
        what = f"{vocab_size} pieces are too few for the characters, labels and times"
        raise OsumError("vocab_size", what, f"use at least {least[1]}") from None
    with atomic_write(output, "wb") as f:
        f.write(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()
