"""From a list to padded batches: the index, examples, bad utterances, the loader."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers import RATE, TEXTS, write_corpus, write_list, write_units, write_wav

from wenet_osum.config import DATASET_DEFAULTS
from wenet_osum.dataset.batch import collate
from wenet_osum.dataset.dataset import OsumDataset
from wenet_osum.dataset.features import log_mel_spectrogram
from wenet_osum.dataset.index import Index
from wenet_osum.dataset.index_build import build_index
from wenet_osum.dataset.lists import read_raw_list
from wenet_osum.dataset.loader import Loader
from wenet_osum.dataset.plan import Item
from wenet_osum.dataset.shards import write_shards
from wenet_osum.errors import BadUtterance, OsumError
from wenet_osum.tasks import load_tasks
from wenet_osum.text import CharTokenizer

TABLE = load_tasks()
THIRTY_SECONDS = {**DATASET_DEFAULTS["filter_conf"], "max_length": 3000}


@pytest.fixture
def tokenizer(tmp_path: Path) -> CharTokenizer:
    return CharTokenizer(write_units(tmp_path / "units.txt"))


def conf(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(DATASET_DEFAULTS), **changes}


def index_of(path: Path, tokenizer: CharTokenizer, **how: Any) -> Index:
    how.setdefault("conf", conf())
    return build_index(path, how.pop("data_type", "raw"), TABLE, tokenizer.encode, **how)


def dataset_of(path: Path, tokenizer: CharTokenizer, train: bool = False, **changes: Any) -> OsumDataset:
    settings = conf(**changes)
    return OsumDataset(index_of(path, tokenizer, conf=settings), TABLE, tokenizer, settings, 777, train)


def bad_corpus(folder: Path) -> Path:
    """Six good utterances, and one of each kind that cannot be used."""
    path = write_corpus(folder)
    good = [s for _, s in read_raw_list(path)]
    whole = write_wav(folder / "whole.wav", 0.6).read_bytes()
    (folder / "truncated.wav").write_bytes(whole[:-4000])
    soundfile.write(folder / "nan.wav", np.full(8000, np.nan, np.float32), RATE, subtype="FLOAT")
    write_wav(folder / "long.wav", 40)
    soundfile.write(folder / "empty.wav", np.zeros(0, np.float32), RATE)
    (folder / "zero.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no audio")
    write_wav(folder / "short.wav", 0.05)
    names = ["truncated", "nan", "missing", "long", "empty", "zero", "text", "short"]
    bad = [{"key": n, "wav": str(folder / f"{n}.wav"), "txt": "no", "emotion": "sad"} for n in names]
    return write_list(path, [*good, *bad])


CAUSES = {
    "truncated": "truncated",
    "nan": "nan",
    "missing": "missing",
    "long": "too_long",
    "empty": "too_short",  # a header that says 0 samples
    "zero": "empty",
    "text": "unreadable",
    "short": "too_short",
}


def test_bad_input_utterances_are_set_aside_and_counted(tmp_path: Path, tokenizer: CharTokenizer):
    path = bad_corpus(tmp_path / "data")
    batches = {"batch_type": "static", "batch_size": 4}
    dataset = dataset_of(path, tokenizer, batch_conf=batches, filter_conf=THIRTY_SECONDS)
    loader = Loader(dataset)
    loader.plan(0)
    read = list(loader)
    skipped = dataset.index.skipped + [s for b in read for s in b["skipped"]]
    causes = {s["key"]: s["cause"] for s in skipped}
    assert causes == CAUSES and all(s["detail"] for s in skipped)
    assert sorted(k for b in read for k in b["keys"]) == [f"u{i:02}" for i in range(6)]


def test_bad_input_wrong_duration_in_the_list(tmp_path: Path, tokenizer: CharTokenizer):
    """The list says 1 s, the file has 30.5 or 40: more than the encoder's 30 s must never reach it."""
    samples = []
    for seconds in (30.5, 40):
        wav = write_wav(tmp_path / f"{seconds}.wav", seconds)
        samples.append({"key": f"k{seconds}", "wav": str(wav), "txt": "no", "duration": 1.0})
    dataset = dataset_of(write_list(tmp_path / "a.list", samples), tokenizer, filter_conf=THIRTY_SECONDS)
    for row in range(2):
        got = dataset[Item(row, "asr", 0)]
        assert isinstance(got, BadUtterance) and got.cause == "too_long"


def test_speed_perturb_keeps_within_the_longest(tmp_path: Path, tokenizer: CharTokenizer):
    """A good utterance of 27.6 s is 30.7 s at 0.9 times the speed: neither a crash nor a loss."""
    wav = write_wav(tmp_path / "a.wav", 27.6)
    samples = write_list(tmp_path / "a.list", [{"key": "a", "wav": str(wav), "txt": "no"}])
    dataset = dataset_of(samples, tokenizer, train=True, speed_perturb=True, filter_conf=THIRTY_SECONDS)
    for epoch in range(8):
        example = dataset[Item(0, "asr", epoch)]
        assert isinstance(example, dict) and len(example["feats"]) <= 3000


def test_index_tells_frames_tokens_and_tasks(tmp_path: Path, tokenizer: CharTokenizer):
    index = index_of(write_corpus(tmp_path / "data"), tokenizer)
    assert index.frames.tolist() == [30, 39, 48, 57, 66, 75] and index.hours == pytest.approx(3.15 / 3600)
    assert {"asr", "ser", "sttc"} <= set(index.tasks[0]) and "srwt" not in index.tasks[0]
    longest = [TABLE["sttc"].compose(TABLE["sttc"].answer_of(s)) for s in index.samples]
    assert index.tokens.tolist() == [len(tokenizer.encode(t)) for t in longest]


def test_index_takes_the_tasks_with_a_weight(tmp_path: Path, tokenizer: CharTokenizer):
    path = write_corpus(tmp_path / "data")
    index = index_of(path, tokenizer, conf=conf(task_weights={"asr": 1, "ser": 0.5, "sttc": 0, "sgc": 1}))
    assert set(index.tasks) == {("asr", "ser")}
    nothing = index_of(path, tokenizer, conf=conf(task_weights={"sgc": 1}))
    assert len(nothing) == 0 and {s["cause"] for s in nothing.skipped} == {"no_task"}


def test_index_leaves_out_answers_that_are_too_long(tmp_path: Path, tokenizer: CharTokenizer):
    limits = {**DATASET_DEFAULTS["filter_conf"], "token_max_length": 10}
    index = index_of(write_corpus(tmp_path / "data"), tokenizer, conf=conf(filter_conf=limits), asked=["asr"])
    assert [s["txt"] for s in index.samples] == [t for t in TEXTS if len(t) <= 10]
    assert all(int(n) <= 10 for n in index.tokens)
    assert {s["cause"] for s in index.skipped} == {"answer_too_long"}


def test_index_keeps_the_tasks_whose_answers_fit(tmp_path: Path, tokenizer: CharTokenizer):
    """By WeNet's ratio of tokens to frames: what is asked of an utterance is what it has the length for."""
    path = write_corpus(tmp_path / "data", count=2)  # 0.3 s "good morning", 0.39 s "open the door", emotions
    limits = {**DATASET_DEFAULTS["filter_conf"], "max_output_input_ratio": 12 / 30}
    index = index_of(path, tokenizer, conf=conf(filter_conf=limits), asked=["asr", "ser"])
    assert list(index.tasks) == [("asr",), ("asr", "ser")]
    limits["max_output_input_ratio"] = 12 / 39
    index = index_of(path, tokenizer, conf=conf(filter_conf=limits), asked=["asr"])
    assert [(s["key"], s["cause"]) for s in index.skipped] == [
        ("u00", "answer_dense"),
        ("u01", "answer_dense"),
    ]


def test_a_channel_is_chosen_as_in_wenet(tmp_path: Path, tokenizer: CharTokenizer):
    left, right = (np.random.default_rng(i).uniform(-0.1, 0.1, 8000) for i in (0, 1))
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    path = write_list(tmp_path / "a.list", [{"key": "a", "wav": str(tmp_path / "a.wav"), "txt": "no"}])
    for channel, wave in ((0, left), (1, right), (None, (left + right) / 2)):
        dataset = dataset_of(path, tokenizer, singal_channel_conf={"channel": channel})
        expected = log_mel_spectrogram(wave.astype(np.float32))
        torch.testing.assert_close(dataset.example(Item(0, "asr", 0))["feats"], expected, atol=1e-4, rtol=0)


def test_augmentation_by_wenets_names_is_for_training_only(tmp_path: Path, tokenizer: CharTokenizer):
    path = write_corpus(tmp_path / "data")
    plain = dataset_of(path, tokenizer, train=True).example(Item(5, "asr", 0))["feats"]
    for name in ("spec_aug", "spec_sub", "spec_trim"):

        def feats(epoch: int, train: bool = True, name: str = name) -> torch.Tensor:
            return dataset_of(path, tokenizer, train, **{name: True}).example(Item(5, "asr", epoch))["feats"]

        drawn = [feats(epoch) for epoch in range(6)]
        assert any(d.shape != plain.shape or not torch.equal(d, plain) for d in drawn)
        assert torch.equal(drawn[0], feats(0)) and torch.equal(feats(0, train=False), plain)


def test_index_for_decoding_needs_no_labels(tmp_path: Path, tokenizer: CharTokenizer):
    wav = write_wav(tmp_path / "a.wav", 0.5)
    path = write_list(tmp_path / "a.list", [{"key": "a", "wav": str(wav), "txt": ""}])
    index = index_of(path, tokenizer, asked=["ser", "sgc"], need_answer=False)
    assert list(index.tasks) == [("ser", "sgc")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"task": "<TRANSCRIBE> <MOOD>"}, r"a\.list:1.*unknown task"),
        ({"emotion": "hungry"}, "unknown emotion 'hungry'"),
    ],
)
def test_bad_input_line_names_itself(
    tmp_path: Path, tokenizer: CharTokenizer, line: dict[str, str], message: str
):
    sample = {"key": "a", "wav": str(write_wav(tmp_path / "a.wav", 0.5)), "txt": "no", **line}
    with pytest.raises(OsumError, match=message):
        index_of(write_list(tmp_path / "a.list", [sample]), tokenizer)


def test_bad_input_key_twice_and_data_type(tmp_path: Path, tokenizer: CharTokenizer):
    sample = {"key": "a", "wav": str(write_wav(tmp_path / "a.wav", 0.5)), "txt": "no"}
    path = write_list(tmp_path / "a.list", [sample, sample])
    with pytest.raises(OsumError, match=r"a\.list:2: .*twice.*a\.list:1"):
        index_of(path, tokenizer)
    with pytest.raises(OsumError, match="--data_type"):
        index_of(path, tokenizer, data_type="parquet")


def test_bad_input_task_weight_is_no_number(tmp_path: Path, tokenizer: CharTokenizer):
    path = write_corpus(tmp_path / "data")
    for weights in ({"asr": "much"}, {"asr": None}, {"asr": -1}, {"no_such_task": 1}):
        with pytest.raises(OsumError):
            index_of(path, tokenizer, conf=conf(task_weights=weights))


@pytest.mark.parametrize("name", ["SER", "<TRANSCRIBE><EMOTION>"])
def test_task_weights_take_any_name_of_a_task(tmp_path: Path, tokenizer: CharTokenizer, name: str):
    loader = Loader(
        dataset_of(write_corpus(tmp_path / "data"), tokenizer, train=True, task_weights={name: 1})
    )
    loader.plan(0)
    assert {item.task for batch in loader.batches for item in batch} == {"ser"}


def test_decoding_a_task_without_a_training_weight(tmp_path: Path, tokenizer: CharTokenizer):
    """The weights of training say nothing about what may be asked later."""
    settings = conf(task_weights={"asr": 1})
    path = write_corpus(tmp_path / "data")
    index = index_of(path, tokenizer, conf=settings, asked=["sgc_only"], need_answer=False)
    loader = Loader(OsumDataset(index, TABLE, tokenizer, settings, 777, train=False))
    loader.plan(0)
    assert {item.task for batch in loader.batches for item in batch} == {"sgc_only"}


def test_example_holds_features_prompt_and_answer(tmp_path: Path, tokenizer: CharTokenizer):
    dataset = dataset_of(write_corpus(tmp_path / "data"), tokenizer)
    got = dataset.example(Item(1, "ser", 0))
    wave, _ = soundfile.read(tmp_path / "data" / "u01.wav", dtype="float32")
    torch.testing.assert_close(got["feats"], log_mel_spectrogram(wave))
    assert tokenizer.decode(got["target"].tolist()) == "open the door<sad>"
    assert tokenizer.decode(got["ctc_target"].tolist()) == "open the door"
    assert got["prompt"].tolist() == tokenizer.encode(TABLE["ser"].prompt("en", 0))  # of an English text
    assert (got["key"], got["task"]) == ("u01", "ser")


def test_a_question_of_its_own_is_the_prompt_where_there_is_a_reply(tmp_path: Path, tokenizer: CharTokenizer):
    path = write_corpus(tmp_path / "data", count=1)
    own = "is the door open"
    rows = [{**json.loads(line), "question": own} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = dataset_of(path, tokenizer)
    assert dataset.example(Item(0, "sttc", 0))["prompt"].tolist() == tokenizer.encode(own)
    asr = dataset.example(Item(0, "asr", 0))
    assert asr["prompt"].tolist() == tokenizer.encode(TABLE["asr"].prompt("en", 0))
    assert collate([asr])["questions"] == [own]


def test_prompt_follows_style_and_language(tmp_path: Path, tokenizer: CharTokenizer):
    path = write_corpus(tmp_path / "data", count=1)

    def prompt(train: bool = False, epoch: int = 0, **how: Any) -> list[int]:
        prompts = {**DATASET_DEFAULTS["prompt_conf"], **how}
        return (
            dataset_of(path, tokenizer, train, prompt_conf=prompts)
            .example(Item(0, "asr", epoch))["prompt"]
            .tolist()
        )

    task = TABLE["asr"]
    assert prompt(style="tag") == tokenizer.encode(task.tag)
    assert prompt(lang="en") == tokenizer.encode(task.prompt("en", 0))
    drawn = {tuple(prompt(train=True, lang="en", number=3, epoch=e)) for e in range(20)}
    assert drawn == {tuple(tokenizer.encode(task.prompt("en", i))) for i in range(3)}


def test_ready_made_lines_are_taken_as_they_are(tmp_path: Path, tokenizer: CharTokenizer):
    wav = write_wav(tmp_path / "a.wav", 0.5)
    sample = {"key": "a", "wav": str(wav), "txt": "Good Day <SAD>", "task": "<TRANSCRIBE> <EMOTION>"}
    dataset = dataset_of(write_list(tmp_path / "a.list", [sample]), tokenizer)
    assert list(dataset.index.tasks) == [("ser",)]
    got = dataset.example(Item(0, "ser", 0))
    assert tokenizer.decode(got["target"].tolist()) == "good day<sad>"
    assert tokenizer.decode(got["ctc_target"].tolist()) == "good day"


def test_speed_perturb_moves_word_times_along(tmp_path: Path, tokenizer: CharTokenizer):
    wav = write_wav(tmp_path / "a.wav", 1.0)
    sample = {"key": "a", "wav": str(wav), "txt": "no no", "align": [[0.0, 0.45, "no"], [0.45, 0.9, "no"]]}
    dataset = dataset_of(write_list(tmp_path / "a.list", [sample]), tokenizer, train=True, speed_perturb=True)
    texts = {}
    for epoch in range(20):
        got = dataset.example(Item(0, "srwt", epoch))
        texts[len(got["feats"])] = tokenizer.decode(got["target"].tolist())
    assert texts == {
        111: "<0.00>no<0.50><0.50>no<1.00>",
        100: "<0.00>no<0.45><0.45>no<0.90>",
        90: "<0.00>no<0.41><0.41>no<0.82>",
    }


def test_examples_are_a_function_of_seed_epoch_and_row(tmp_path: Path, tokenizer: CharTokenizer):
    path = write_corpus(tmp_path / "data")
    dataset = dataset_of(path, tokenizer, train=True, spec_aug=True, speed_perturb=True)
    again = dataset_of(path, tokenizer, train=True, spec_aug=True, speed_perturb=True)
    item = Item(5, "asr", 0)
    assert torch.equal(dataset.example(item)["feats"], again.example(item)["feats"])
    others = [dataset.example(Item(5, "asr", e))["feats"] for e in range(1, 4)]
    first = dataset.example(item)["feats"]
    assert any(o.shape != first.shape or not torch.equal(o, first) for o in others)


def test_label_weight_counts_for_the_pieces_of_labels(tmp_path: Path, tokenizer: CharTokenizer):
    path = write_corpus(tmp_path / "data")
    dataset = dataset_of(path, tokenizer, label_weight=3)
    for task in ("ser", "asr", "srwt"):
        example = dataset.example(Item(0, task, 0))
        ids, weights = example["target"].tolist(), example["target_weights"].tolist()
        heavy = [i for i, w in zip(ids, weights) if w == 3]
        assert len(weights) == len(ids) + 1 and set(weights) <= {1, 3} and weights[-1] == 1
        label = f"<{dataset.index.samples[0]['emotion']}>"
        assert tokenizer.decode(heavy) == (label if task == "ser" else "")
    assert set(dataset_of(path, tokenizer).example(Item(0, "ser", 0))["target_weights"].tolist()) == {1}


def test_collate_pads_with_wenets_values():
    def example(key: str, frames: int, ids: list[int]) -> dict[str, Any]:
        tensors = {name: torch.tensor(ids) for name in ("prompt", "target", "ctc_target")}
        tensors["target_weights"] = torch.ones(len(ids) + 1)
        return {
            "key": key,
            "task": "asr",
            "lang": "zh",
            "question": None,
            "feats": torch.ones(frames, 2),
            **tensors,
        }

    batch = collate([example("a", 3, [5]), BadUtterance("x", "nan", "why"), example("b", 1, [6, 7])])
    assert batch["keys"] == ["a", "b"] and batch["feats_lengths"].tolist() == [3, 1]
    assert batch["feats"][1].tolist() == [[1, 1], [0, 0], [0, 0]]
    assert batch["target"].tolist() == [[5, -1], [6, 7]] and batch["target_lengths"].tolist() == [1, 2]
    assert batch["target_weights"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["skipped"] == [{"key": "x", "cause": "nan", "detail": "why"}]
    assert collate([BadUtterance("x", "nan")])["keys"] == []


def contents(loader: Loader, epoch: int) -> list[tuple[list[str], float]]:
    loader.plan(epoch)
    return [(b["keys"], float(b["feats"].double().sum())) for b in loader]


@pytest.mark.parametrize("data_type", ["shard", "shard_full_data"])
def test_shards_give_the_batches_of_the_raw_list(tmp_path: Path, tokenizer: CharTokenizer, data_type: str):
    path = write_corpus(tmp_path / "data")
    samples = [s for _, s in read_raw_list(path)]
    shards = tmp_path / "shards.list"
    write_shards(samples, tmp_path / "shards", shards, shard_type=data_type, num_utts_per_shard=4)
    raw = dataset_of(path, tokenizer)
    settings = conf()
    sharded = OsumDataset(
        index_of(shards, tokenizer, data_type=data_type), TABLE, tokenizer, settings, 777, False
    )
    assert list(sharded.index.tasks) == list(raw.index.tasks)
    assert contents(Loader(sharded), 0) == contents(Loader(raw), 0)


def test_bad_input_shard_cut_off_after_indexing(tmp_path: Path, tokenizer: CharTokenizer):
    samples = [s for _, s in read_raw_list(write_corpus(tmp_path / "data", count=2))]
    shards = tmp_path / "shards.list"
    write_shards(samples, tmp_path / "shards", shards, shard_type="shard")
    dataset = OsumDataset(
        index_of(shards, tokenizer, data_type="shard"), TABLE, tokenizer, conf(), 777, False
    )
    tar = Path(dataset.index.samples[1]["tar"])
    tar.write_bytes(tar.read_bytes()[: dataset.index.samples[1]["offset"] + 100])
    assert isinstance(dataset[Item(0, "asr", 0)], dict)
    bad = dataset[Item(1, "asr", 0)]
    assert isinstance(bad, BadUtterance) and bad.cause == "truncated"
    with pytest.raises(OsumError, match=tar.name):
        index_of(shards, tokenizer, data_type="shard")


def test_workers_change_nothing(tmp_path: Path, tokenizer: CharTokenizer):
    path = bad_corpus(tmp_path / "data")
    settings = {"spec_aug": True, "batch_conf": {"batch_type": "static", "batch_size": 2}}
    alone = Loader(dataset_of(path, tokenizer, train=True, **settings))
    worker = Loader(dataset_of(path, tokenizer, train=True, **settings), num_workers=1, prefetch=2)
    for epoch in (0, 1):  # the worker lives on and gets each epoch's plan
        assert contents(worker, epoch) == contents(alone, epoch)
    assert contents(alone, 0) != contents(alone, 1)


def test_ranks_share_an_epoch(tmp_path: Path, tokenizer: CharTokenizer):
    dataset = dataset_of(
        write_corpus(tmp_path / "data"), tokenizer, batch_conf={"batch_type": "static", "batch_size": 2}
    )
    loaders = [Loader(dataset, rank=r, world_size=2) for r in (0, 1)]
    steps = {loader.plan(0) for loader in loaders}
    assert steps == {2}
    assert Counter(i.row for loader in loaders for b in loader.jobs(loader.batches, 0) for i in b) == Counter(
        range(6)
    )


def test_bad_input_ready_made_answer_with_a_bad_label(tmp_path: Path, tokenizer: CharTokenizer):
    wav = str(write_wav(tmp_path / "a.wav", 0.5))
    ready = {"wav": wav, "task": "<TRANSCRIBE><EMOTION>"}
    texts = {"a": "no<happy>", "b": "no<joyful>", "c": "no"}
    samples = [{**ready, "key": key, "txt": txt} for key, txt in texts.items()]
    index = index_of(write_list(tmp_path / "a.list", samples), tokenizer)
    assert [s["key"] for s in index.samples] == ["a"]
    assert [(s["key"], s["cause"]) for s in index.skipped] == [("b", "bad_answer"), ("c", "bad_answer")]
    assert "<joyful>" in index.skipped[0]["detail"]


def test_bad_input_keys_that_would_part_in_decoded_text(tmp_path: Path, tokenizer: CharTokenizer):
    sample = {"wav": str(write_wav(tmp_path / "a.wav", 0.5)), "txt": "no"}
    for key in ("a b", "a\tb", "a\nb"):
        path = write_list(tmp_path / "a.list", [{**sample, "key": key}])
        with pytest.raises(OsumError, match=r"a\.list:1: key .* has a blank"):
            index_of(path, tokenizer, asked=["asr"], need_answer=False)


def test_bad_input_fields_of_ones_own_do_not_move_the_audio(tmp_path: Path, tokenizer: CharTokenizer):
    sample = {"key": "a", "wav": str(write_wav(tmp_path / "a.wav", 0.5)), "txt": "no", "tar": "/x"}
    dataset = dataset_of(write_list(tmp_path / "a.list", [sample]), tokenizer)
    assert isinstance(dataset[Item(0, "asr", 0)], dict)


def test_times_of_a_ready_made_answer_keep_their_speed(tmp_path: Path):
    """OSUM's own lists have the times in the text; only times that are fields can follow the speed."""
    path = write_wav(tmp_path / "a.wav", 1.0)
    ready = {"key": "a", "wav": str(path), "txt": "<0.10>no<0.40>", "task": "<TRANSCRIBE> <ALIGN>"}
    fields = {"key": "b", "wav": str(path), "txt": "no", "align": [[0.1, 0.4, "no"]]}
    tokenizer, table = CharTokenizer(write_units(tmp_path / "units.txt")), load_tasks()
    changes = {"speed_perturb": True, "speed_perturb_conf": {"speeds": [0.5]}, "task_weights": {"srwt": 1}}
    conf = {**DATASET_DEFAULTS, **changes, "prompt_conf": {"style": "tag", "lang": "auto", "number": 1}}
    index = build_index(
        write_list(tmp_path / "d.list", [ready, fields]), "raw", table, tokenizer.encode, conf
    )
    dataset = OsumDataset(index, table, tokenizer, conf, 777, train=True)
    a, b = (dataset.example(Item(row, "srwt", 0)) for row in (0, 1))
    assert tokenizer.decode(a["target"].tolist()) == "<0.10>no<0.40>" and len(a["feats"]) == 100
    assert tokenizer.decode(b["target"].tolist()) == "<0.20>no<0.80>" and len(b["feats"]) == 200
