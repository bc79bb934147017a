"""The list decoder's parts: what an ``Answerer`` is asked, and what becomes of its answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import command, run_config, stage2_config, write_corpus, write_list

from wenet_osum.bin.recognize import asked, main, report
from wenet_osum.checkpoint.assemble import load_table, prepare_configs
from wenet_osum.checkpoint.weights import save_checkpoint
from wenet_osum.config import load_config, save_config
from wenet_osum.dataset.dataset import OsumDataset
from wenet_osum.dataset.index import Index
from wenet_osum.dataset.index_build import build_index
from wenet_osum.dataset.lists import read_raw_list
from wenet_osum.dataset.loader import Loader
from wenet_osum.dataset.plan import plan_questions
from wenet_osum.decode.answer import Answered
from wenet_osum.decode.journal import Journal
from wenet_osum.decode.recognize import by_answerer, finish, recognize
from wenet_osum.decode.results import answer_row
from wenet_osum.models.osum import SpeechModel
from wenet_osum.registry import init_model
from wenet_osum.tasks import TaskTable, load_tasks
from wenet_osum.text import init_tokenizer

TABLE = load_tasks()


class Sayer:
    """In the place of an ``Answerer``; remembers what it was asked."""

    def __init__(self, table: TaskTable):
        self.table, self.seen = table, list[tuple[list[str], tuple[str, ...]]]()

    def answer(self, batch: dict[str, Any], tasks: Sequence[str]) -> dict[str, list[Answered]]:
        self.seen.append((batch["keys"], tuple(tasks)))
        assert len(batch["feats"]) == len(batch["langs"]) == len(batch["keys"])
        return {name: [self.one(key, name) for key in batch["keys"]] for name in tasks}

    def one(self, key: str, name: str) -> Answered:
        if name == "asr":
            return Answered(key, name, f"i am {key}", self.table[name].parse(f"i am {key}"), {}, 4, 3)
        third = {"happy": 1 / 3, "sad": 1 / 3, "anger": 1 / 3}
        text = f"i am {key}<sad>"
        return Answered(key, name, text, self.table[name].parse(text), {"emotion": third})


def index_of(folder: Path, names: list[str], labelled_only: bool) -> tuple[Index, OsumDataset]:
    samples = [s for _, s in read_raw_list(write_corpus(folder / "data", 11))]
    for sample in samples[::3]:
        del sample["emotion"]
    data = write_list(folder / "some.list", samples)
    configs = load_config(run_config(folder, stage2_config()))
    tokenizer, table = init_tokenizer(configs), load_table(configs)
    conf = configs["dataset_conf"]
    index = build_index(data, "raw", table, tokenizer.encode, conf, names, need_answer=False)
    index = asked(index, table, names, labelled_only)
    return index, OsumDataset(index, table, tokenizer, conf, 1, train=False)


def test_each_utterance_is_read_once_for_all_its_tasks(tmp_path: Path, caplog: Any):
    index, dataset = index_of(tmp_path, ["asr", "ser"], labelled_only=True)
    sayer = Sayer(TABLE)
    with Journal(tmp_path / "out" / "partial") as journal:
        done = journal.begin({}, len(index))
        recognize(Loader(dataset), {"llm_greedy": by_answerer(sayer, TABLE)}, journal, done)
        found = finish(journal, index, ["llm_greedy"], {n: tmp_path / "out" / n for n in ("asr", "ser")})
    # Batches of 3, each of utterances that are asked the same.
    assert sorted(key for keys, _ in sayer.seen for key in keys) == [f"u{i:02}" for i in range(11)]
    assert {(tasks, len(keys)) for keys, tasks in sayer.seen} == {
        *((("asr",), 3), (("asr",), 1)),
        *((("asr", "ser"), 3), (("asr", "ser"), 1)),
    }
    assert found is not None and (found["asr"].answered, found["ser"].answered) == (11, 7)
    assert (found["asr"].proposed, found["asr"].accepted) == (44, 33)
    rows = [
        json.loads(x)
        for name in ("asr", "ser")
        for x in (tmp_path / "out" / name / "llm_greedy" / "answers.jsonl").read_text().splitlines()
    ]
    first = {"key": "u00", "task": "asr", "raw": "i am u00", "text": "i am u00"}
    assert rows[0] == {**first, "proposed": 4, "accepted": 3}
    assert rows[11]["key"] == "u01" and rows[11]["emotion"] == "sad" and "proposed" not in rows[11]
    assert sum(rows[11]["probabilities"]["emotion"].values()) == 1
    caplog.set_level("INFO")
    report("asr", tmp_path, found["asr"])
    assert "33 of 44 tokens were right (75.0 %)" in caplog.text


def test_all_tasks_are_asked_of_all_utterances(tmp_path: Path):
    index, _ = index_of(tmp_path, ["asr", "ser"], labelled_only=False)
    assert list(index.tasks) == [("asr", "ser")] * 11
    plan = plan_questions(index, {"batch_type": "static", "batch_size": 4})
    assert [len(b) for b in plan] == [4, 4, 3] and sorted(plan.rows.tolist()) == list(range(11))
    assert (np.diff(index.frames[plan.rows]) >= 0).all()
    some = plan.only(np.array([2, 0]))
    assert list(some) == [plan[2], plan[0]] and len(plan.only(np.array([], int))) == 0


def test_a_row_has_what_its_answer_has():
    row = answer_row("a", TABLE["srwt"], "<0.00>hi<0.20>")
    assert row["align"] == [[0.0, 0.2, "hi"]] and row["text"] == "hi" and "reply" not in row
    row = answer_row("a", TABLE["sttc"], "hi<开始回答>hello")
    assert row == {"key": "a", "task": "sttc", "raw": "hi<开始回答>hello", "text": "hi", "reply": "hello"}
    row = answer_row("a", TABLE["ser"], "hi<glad>")
    assert row["problems"] and "emotion" not in row and "probabilities" not in row


@pytest.mark.parametrize("mode", ["llm_greedy", "ctc_greedy_search"])
def test_chunk_sizes_reach_the_encoder(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch):
    """Of WeNet's streaming encoders; ours has no use for them."""
    data = write_corpus(tmp_path / "data", 2)
    configs = load_config(run_config(tmp_path, stage2_config()))
    prepare_configs(configs, init_tokenizer(configs))
    save_config(configs, tmp_path / "train.yaml")
    save_checkpoint(init_model(configs), tmp_path / "final.pt", {})
    sizes = []

    def encode(self: Any, speech: Any, lengths: Any, chunk_size: int = -1, left_chunks: int = -1) -> Any:
        sizes.append((chunk_size, left_chunks))
        return self.encoder(speech, lengths)

    monkeypatch.setattr(SpeechModel, "encode", encode)
    args = ["--config", tmp_path / "train.yaml", "--checkpoint", tmp_path / "final.pt", "--modes", mode]
    args += ["--decoding_chunk_size", 16, "--num_decoding_left_chunks", 3, "--num_threads", 1]
    assert command(main, *args, "--test_data", data, "--result_dir", tmp_path / "out") == 0
    assert set(sizes) == {(16, 3)}
