#!/usr/bin/env python3
"""Kaldi dirs of AIR-Bench's chat part about speech: a recording, a question about it, a reference answer (STTC).

    python local/prepare_air_bench.py AIR-Bench-Dataset data/air_bench

Layout (huggingface.co/datasets/qyang1021/AIR-Bench-Dataset, modelscope.cn/datasets/evalscope/AIR-Bench-Dataset):

    Chat/Chat_meta.json         [{"uniq_id": 0, "task_name": "speech_QA", "dataset_name": "iemocap", "path": "a.wav",
                                "question": ..., "answer_gt": ..., "meta_info": ...}, ...]
    Chat/speech_QA_iemocap/a.wav, Chat/speech_QA_common_voice_en/
    Chat/speech_dialogue_QA_fisher/, Chat/speech_dialogue_QA_spokenwoz/

Licence: Apache-2.0 for the benchmark (Yang et al., ACL 2024); the recordings are of IEMOCAP, Common Voice, Fisher
and SpokenWOZ, each under its own.

The question is written and not spoken: a model is asked it beside the recording. So ``text`` is what is said there,
by the description that comes with it; ``utt2reply`` is the reference answer; ``utt2question`` is put to the model in
place of the task's own words, and shown to a judge; so is ``utt2description``, the description that the makers show
theirs, which nothing else reads. OSUM's task STTC answers a speaker and knows no question beside; its paper does not
tell how it asked (5.98 of 10 by GPT-3.5).

Marks such as [laughter] are taken out of the texts. Items whose description holds no transcript are left out.

Subsets: speech_QA (one speaker), speech_dialogue_QA (two), and speech, both together, as the makers' and the
paper's tables count them. The other six tasks of Chat_meta.json are about sounds and music and are passed over.

Counts: 400 of speech_QA and 400 of speech_dialogue_QA (as evalscope's documentation counts them; the makers tell
about 2,000 items in all). Of the description two forms are known, IEMOCAP's and Fisher's; those of Common Voice and
SpokenWOZ, and the files themselves, could not be checked here.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpora import Corpus, Found, Utterance, prepare, read_json  # beside this script

from wenet_osum.errors import OsumError, run_main

CORPUS = Corpus(
    name="AIR-Bench (chat, speech)",
    url="https://huggingface.co/datasets/qyang1021/AIR-Bench-Dataset",
    licence="Apache-2.0; each recording under that of its corpus",
    published={"speech": 800, "speech_QA": 400, "speech_dialogue_QA": 400},
)
TASKS = {"speech": ("speech_QA", "speech_dialogue_QA")}
KEYS = ("task_name", "dataset_name", "path", "question", "answer_gt", "meta_info", "uniq_id")
NO_TRANSCRIPT = "no transcript in its description"
NO_ANSWER = "no reference answer, or one with '<' or '>', which are kept for tags"


def read_items(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """``(where, item)`` of Chat_meta.json.

    Raises:
        OsumError: no such file, no JSON, or not of this form.
    """
    items = read_json(path)
    if not isinstance(items, list):
        raise OsumError(str(path), "no list of items", f"get it again from {CORPUS.url}")
    for n, item in enumerate(items, 1):
        lacking = [key for key in KEYS if key not in item] if isinstance(item, dict) else list(KEYS)
        if lacking:
            raise OsumError(
                f"{path}: item {n}", f"no {', '.join(lacking)}", f"get it again from {CORPUS.url}"
            )
    return [(f"{path}: item {n}", item) for n, item in enumerate(items, 1)]


def transcript_of(description: str) -> str:
    """What is said in a recording, by its description; ``""`` if that does not tell.

    A description is a Python dict of one utterance, or a JSON list of a dialogue's, written as text.

    >>> transcript_of('[{"speaker": "speaker 1", "transcription": "so [laughter] it is"}, {"transcription": "yes"}]')
    'so it is yes'
    """
    try:
        content = json.loads(description)
    except ValueError:
        try:
            content = ast.literal_eval(description)
        except (ValueError, SyntaxError):
            return ""
    turns = content if isinstance(content, list) else [content]
    said = [str(turn.get("transcription") or "") for turn in turns if isinstance(turn, dict)]
    return " ".join(re.sub(r"\[[^\]]*\]", " ", " ".join(said)).split())


def collect(root: Path, found: Found) -> None:
    """One of the two tasks, or both."""
    chat = root if root.name == "Chat" else root / "Chat"
    for where, item in read_items(chat / "Chat_meta.json"):
        task = item["task_name"]
        if task not in TASKS.get(found.subset, (found.subset,)):
            continue
        corpus, description, answer = item["dataset_name"], str(item["meta_info"]), str(item["answer_gt"])
        key = f"{corpus}-{item['uniq_id']}"
        text = transcript_of(description)
        if not text:
            found.leave_out(key, NO_TRANSCRIPT)
        elif not answer.strip() or set("<>") & set(answer):
            found.leave_out(key, NO_ANSWER)
        else:
            wav = str(chat / f"{task}_{corpus}" / str(item["path"]))
            more = {"utt2question": str(item["question"]), "utt2description": description}
            found.add(Utterance(key, wav, text, lang="en", reply=answer, more=more), where)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 or raises OsumError."""
    return prepare(CORPUS, collect, argv, __doc__)


if __name__ == "__main__":
    run_main(main)
