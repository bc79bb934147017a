"""The index kept in a file: what is used again, what is made anew, damage, combine YAMLs."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    TEXTS,
    command,
    fill_disk,
    run_config,
    stage1_config,
    write_corpus,
    write_list,
    write_units,
    write_wav,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from wenet_osum.bin import train
from wenet_osum.bin.common import make_index
from wenet_osum.config import DATASET_DEFAULTS
from wenet_osum.dataset import index_build
from wenet_osum.dataset.index import Index
from wenet_osum.dataset.index_build import Corpus, build_index, cut_corpus, index_corpora
from wenet_osum.dataset.index_store import pack_record, unpack_record
from wenet_osum.dataset.lists import read_raw_list
from wenet_osum.dataset.mixing import read_corpora
from wenet_osum.dataset.shards import write_shards
from wenet_osum.errors import OsumError
from wenet_osum.tasks import load_tasks
from wenet_osum.text import CharTokenizer

TABLE = load_tasks()


@pytest.fixture
def tokenizer(tmp_path: Path) -> CharTokenizer:
    return CharTokenizer(write_units(tmp_path / "units.txt"))


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Parts of a raw list of about eight lines."""
    monkeypatch.setattr(index_build, "_LINES", 8)
    caplog.set_level(logging.INFO)


def conf(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(DATASET_DEFAULTS), **changes}


def lines(count: int, first: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Utterances whose lengths the list tells: no audio is there."""
    return [
        {"key": f"u{i}", "wav": f"none/{i}.wav", "txt": TEXTS[i % 6], "duration": 0.5 + i % 9, **more}
        for i in range(first, first + count)
    ]


def made(path: Path | str, tokenizer: CharTokenizer, store: Path | None, **how: Any) -> Index:
    how.setdefault("conf", conf())
    return build_index(path, how.pop("data_type", "raw"), TABLE, tokenizer.encode, store=store, **how)


def content(index: Index) -> list[Any]:
    columns = [index.frames, index.tokens, index.answers, index.starts, index.corpus, index.block]
    return [list(index.samples), list(index.tasks), index.skipped, *(c.tolist() for c in columns)]


def said(caplog: pytest.LogCaptureFixture) -> str:
    text = "\n".join(r.getMessage() for r in caplog.records)
    caplog.clear()
    return text


def test_what_is_in_the_file_is_what_is_in_memory(
    tmp_path: Path, tokenizer: CharTokenizer, caplog: pytest.LogCaptureFixture
):
    path = write_list(tmp_path / "a.list", [*lines(100), *lines(1, 200, duration=999.0)])
    memory, store = made(path, tokenizer, None), tmp_path / "run" / "train.idx"
    first, again = made(path, tokenizer, store), made(path, tokenizer, store)
    assert content(memory) == content(first) == content(again)
    assert [s["cause"] for s in again.skipped] == ["too_long"] and len(again) == 100
    assert len(set(again.block.tolist())) > 5 and "all as before" in said(caplog)
    assert again.samples[-1]["key"] == "u99" and [s["key"] for s in again.samples[3:5]] == ["u3", "u4"]
    moved = pickle.loads(pickle.dumps(again))  # as to a data worker
    assert content(moved) == content(again)


def test_a_line_put_in_changes_one_part(
    tmp_path: Path, tokenizer: CharTokenizer, caplog: pytest.LogCaptureFixture
):
    samples, store = lines(200), tmp_path / "train.idx"
    path = tmp_path / "a.list"
    parts = len(set(made(write_list(path, samples), tokenizer, store).block.tolist()))
    assert parts > 10
    samples.insert(3, lines(1, 500)[0])
    changed = made(write_list(path, samples), tokenizer, store)
    assert f"index: {parts - 1} of {parts} parts as before, 1 anew ({path}:2-" in said(caplog)
    assert content(changed) == content(made(path, tokenizer, None))
    shorter = made(write_list(path, samples[60:]), tokenizer, store)
    assert [s["key"] for s in shorter.samples] == [s["key"] for s in samples[60:]]
    made(path, tokenizer, store)
    assert "all as before" in said(caplog)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 60), unique=True, max_size=40), st.lists(st.integers(0, 60), unique=True))
def test_any_change_of_a_list_gives_the_index_of_the_new_list(
    tmp_path_factory: pytest.TempPathFactory, before: list[int], after: list[int]
):
    folder = tmp_path_factory.mktemp("index")
    tokenizer = CharTokenizer(write_units(folder / "units.txt"))
    for numbers in (before, after):
        path = write_list(folder / "a.list", [s for i in numbers for s in lines(1, i)])
        kept = made(path, tokenizer, folder / "train.idx")
        assert content(kept) == content(made(path, tokenizer, None))


@pytest.mark.parametrize(
    "changes",
    [
        {"conf": conf(filter_conf={**DATASET_DEFAULTS["filter_conf"], "max_length": 600})},
        {"conf": conf(time_step=0.02)},
        {"asked": ["asr"]},
        {"conf": conf(task_weights={"ser": 1})},
        {"asked": ["ser"], "need_answer": False},
    ],
)
def test_what_the_index_depends_on_makes_it_anew(
    tmp_path: Path, tokenizer: CharTokenizer, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
):
    path, store = write_list(tmp_path / "a.list", lines(30, emotion="sad")), tmp_path / "train.idx"
    made(path, tokenizer, store)
    said(caplog)
    changed = made(path, tokenizer, store, **changes)
    assert "index: 0 of" in said(caplog)
    assert content(changed) == content(made(path, tokenizer, None, **changes))


def test_another_tokenizer_makes_it_anew_and_a_moved_one_does_not(
    tmp_path: Path, tokenizer: CharTokenizer, caplog: pytest.LogCaptureFixture
):
    path, store = write_list(tmp_path / "a.list", lines(30)), tmp_path / "train.idx"
    made(path, tokenizer, store)
    (tmp_path / "other.txt").write_bytes((tmp_path / "units.txt").read_bytes())
    made(path, CharTokenizer(tmp_path / "other.txt"), store)
    assert "all as before" in said(caplog)
    with open(tmp_path / "other.txt", "a", encoding="utf-8") as f:
        f.write("é 999\n")
    made(path, CharTokenizer(tmp_path / "other.txt"), store)
    assert "index: 0 of" in said(caplog)
    made(path, CharTokenizer(tmp_path / "other.txt", split_with_space=True), store)
    assert "index: 0 of" in said(caplog)


def test_audio_whose_header_was_read_is_looked_at_again(
    tmp_path: Path, tokenizer: CharTokenizer, caplog: pytest.LogCaptureFixture
):
    path, store = write_corpus(tmp_path / "data", 40), tmp_path / "train.idx"
    samples = [
        {**s, "key": f"p{i}", "wav": f"cat {s['wav']} |"} for i, (_, s) in enumerate(read_raw_list(path))
    ]
    write_list(path, [*(s for _, s in read_raw_list(path)), *samples[:2]])
    assert made(path, tokenizer, store).frames[7] == 30 and said(caplog) == ""
    made(path, tokenizer, store)
    assert "all as before" in said(caplog)
    write_wav(tmp_path / "data" / "u07.wav", 1.2)
    (tmp_path / "data" / "u30.wav").unlink()
    changed = made(path, tokenizer, store)
    told = said(caplog)
    assert "as before" in told and "all as" not in told and "index: 0 of" not in told
    assert changed.frames[7] == 120 and [s["cause"] for s in changed.skipped] == ["missing"]
    write_wav(tmp_path / "data" / "u30.wav", 1.0)  # what was set aside is there again
    assert not made(path, tokenizer, store).skipped


def test_a_changed_shard_is_indexed_again_alone(
    tmp_path: Path, tokenizer: CharTokenizer, caplog: pytest.LogCaptureFixture
):
    samples = [s for _, s in read_raw_list(write_corpus(tmp_path / "data", 24))]
    shards, store = tmp_path / "shards.list", tmp_path / "train.idx"
    write_shards(samples, tmp_path / "shards", shards, num_utts_per_shard=6)
    first = made(shards, tokenizer, store, data_type="shard")
    assert first.block.tolist() == [i // 6 for i in range(24)]
    tars = shards.read_text().split()
    # Another order of shards and one shard less need no tar to be read.
    os.rename(tars[1], tars[1] + ".gone")
    shards.write_text("\n".join([tars[3], tars[0], tars[2]]) + "\n")
    moved = made(shards, tokenizer, store, data_type="shard")
    assert "index: 3 of 3 parts as before, others gone or moved" in said(caplog)
    assert [s["key"] for s in moved.samples] == [
        f"u{i:02}" for i in (*range(18, 24), *range(6), *range(12, 18))
    ]
    for sample in samples:
        sample["txt"] = "no"
    write_shards(samples[12:18], tmp_path / "new", tmp_path / "new.list", num_utts_per_shard=6)
    os.replace((tmp_path / "new.list").read_text().strip(), tars[2])
    changed = made(shards, tokenizer, store, data_type="shard")
    assert f"index: 2 of 3 parts as before, 1 anew ({tars[2]})" in said(caplog)
    assert [s["txt"] for s in changed.samples[12:]] == ["no"] * 6


def test_several_processes_give_what_one_gives(tmp_path: Path, tokenizer: CharTokenizer, monkeypatch):
    path = write_list(tmp_path / "a.list", lines(300))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    one = made(path, tokenizer, None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert content(made(path, tokenizer, None)) == content(one)
    # The first bad line in the order of the list is told, whichever process comes first.
    samples = lines(300)
    samples[40]["task"] = samples[250]["task"] = "<MOOD>"
    with pytest.raises(OsumError, match=r"a\.list:41: unknown task"):
        made(write_list(path, samples), tokenizer, None)


def test_what_is_done_is_kept_when_a_line_is_bad(
    tmp_path: Path, tokenizer: CharTokenizer, caplog: pytest.LogCaptureFixture
):
    path, store = tmp_path / "a.list", tmp_path / "train.idx"
    good = lines(200)
    parts = len(set(made(write_list(path, good), tokenizer, store).block.tolist()))
    store.unlink()
    bad = copy.deepcopy(good)
    bad[150]["align"] = "none"
    with pytest.raises(OsumError, match=r"a\.list:151: align"):
        made(write_list(path, bad), tokenizer, store)
    mended = made(write_list(path, good), tokenizer, store)
    anew = int(said(caplog).split(" anew")[0].rpartition(" ")[2])
    assert 1 <= anew < parts / 2 and len(mended) == 200


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9, -1])
def test_bad_input_damaged_store_is_made_again(
    tmp_path: Path, tokenizer: CharTokenizer, caplog: pytest.LogCaptureFixture, at: float
):
    path, store = write_list(tmp_path / "a.list", lines(50)), tmp_path / "train.idx"
    whole = content(made(path, tokenizer, store))
    raw = store.read_bytes()
    store.write_bytes(raw[: int(len(raw) * at)])
    assert content(made(path, tokenizer, store)) == whole and "is damaged: made anew" in said(caplog)
    assert store.read_bytes() == raw
    columns = raw.rindex(b"}") - len(raw)  # somewhere in a column
    broken = bytearray(raw)
    broken[raw.index(b'"offsets"') - 600 + columns % 7] ^= 255
    store.write_bytes(broken)
    assert content(made(path, tokenizer, store)) == whole
    store.write_bytes(b"")
    assert content(made(path, tokenizer, store)) == whole


def test_bad_input_damaged_record_names_the_file(tmp_path: Path, tokenizer: CharTokenizer):
    path, store = write_list(tmp_path / "a.list", lines(50)), tmp_path / "train.idx"
    made(path, tokenizer, store)
    raw = store.read_bytes()
    store.write_bytes(raw.replace(b'{"key": "u7"', b'{"key" "u7" '))
    index = made(path, tokenizer, store)
    with pytest.raises(OsumError, match=r"train\.idx: record 7 .*remove it"):
        index.samples[7]


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path: Path, tokenizer: CharTokenizer, monkeypatch):
    path, store = write_list(tmp_path / "a.list", lines(50)), tmp_path / "train.idx"
    made(path, tokenizer, store)
    before = store.read_bytes()
    fill_disk(monkeypatch, 1000)
    with pytest.raises(OSError, match="No space"):
        made(write_list(path, lines(90)), tokenizer, store)
    assert store.read_bytes() == before and not list(tmp_path.glob("*.tmp"))


def test_bad_input_key_twice_in_different_parts(tmp_path: Path, tokenizer: CharTokenizer):
    samples = [*lines(100), *lines(1, 3)]
    path = write_list(tmp_path / "a.list", samples)
    for store in (None, tmp_path / "train.idx", tmp_path / "train.idx"):
        with pytest.raises(
            OsumError, match=r"a\.list:101: utterance u3 is here twice \(before at .*list:4\)"
        ):
            made(path, tokenizer, store)
    # In another list it may come again: the same recording with other labels, say.
    other = write_list(tmp_path / "b.list", lines(1, 3))
    corpora = [Corpus(str(p), "raw") for p in (write_list(path, lines(100)), other)]
    index = index_corpora(corpora, TABLE, tokenizer.encode, conf(), store=tmp_path / "train.idx")
    assert index.corpus.tolist() == [0] * 100 + [1] and index.samples[100]["key"] == "u3"


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.text(st.characters(exclude_categories=["Cs"]))
        | st.binary()
        | st.integers(-(2**60), 2**60)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.none(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        ),
    )
)
def test_records_come_back(value: Any):
    sample = {"key": "a", "txt": value}
    assert unpack_record(pack_record(sample)) == sample


def test_parts_cover_a_list_once(tmp_path: Path):
    path = write_list(tmp_path / "a.list", lines(300))
    spans = list(cut_corpus(Corpus(str(path), "raw"), 0, ""))
    raw = path.read_bytes()
    assert [s.start for s in spans] == [raw.index(b'{"key": "u%d"' % (s.first - 1)) for s in spans]
    assert sum(s.lines for s in spans) == 300 and spans[-1].first + spans[-1].lines == 301
    assert max(s.lines for s in spans) <= 32


def test_who_comes_second_waits_and_finds_it_made(
    tmp_path: Path, tokenizer: CharTokenizer, caplog: pytest.LogCaptureFixture
):
    """As the ranks of one run do."""
    path, store = write_list(tmp_path / "a.list", lines(6)), tmp_path / "train.idx"
    with ThreadPoolExecutor(4) as pool:
        indexes = list(pool.map(lambda _: made(path, tokenizer, store), range(4)))
    assert all(content(index) == content(indexes[0]) for index in indexes)
    assert said(caplog).count("all as before") == 3


# --- combine YAMLs ---


def combine(folder: Path, text: str) -> str:
    path = folder / "combine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_combine_yaml_beside_a_list(tmp_path: Path, tokenizer: CharTokenizer):
    for name, first in (("a", 0), ("b", 100), ("c", 200)):
        write_list(tmp_path / f"{name}.list", lines(30, first))
    samples = [s for _, s in read_raw_list(write_corpus(tmp_path / "data", 6))]
    write_shards(samples, tmp_path / "shards", tmp_path / "shards.list")
    path = combine(
        tmp_path,
        f"""
rare: {{path: {tmp_path}/a.list, weight: 2.5}}
unused: {{path: {tmp_path}/nowhere.list, weight: 0}}
tars: {{path: {tmp_path}/shards.list, weight: 1, data_type: shard}}
frequent: {{path: {tmp_path}/b.list, weight: 0.25}}
""",
    )
    index = make_index([path, str(tmp_path / "c.list")], "raw", TABLE, tokenizer.encode, conf())
    assert index.weights == (2.5, 1.0, 0.25, 1.0)
    assert np.bincount(index.corpus).tolist() == [30, 6, 30, 30]


def test_training_takes_a_combine_yaml_and_uses_its_index_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    many, few = write_corpus(tmp_path / "many", 8), write_corpus(tmp_path / "few", 2, first=50)
    path = combine(tmp_path, f"few: {{path: {few}, weight: 3}}\nmany: {{path: {many}, weight: 0.5}}\n")
    config, folder = run_config(tmp_path, stage1_config()), tmp_path / "m"
    arguments = ["--config", config, "--train_data", path, "--cv_data", few, "--model_dir", folder]
    arguments += ["--tensorboard_dir", tmp_path / "tensorboard"]
    for again in (False, True):
        assert command(train.main, *arguments, "--device", "cpu", "--resume", "none") == 0
        told = capsys.readouterr().err
        assert f"{few}: 0.00 h x 3 an epoch" in told and f"{many}: 0.00 h x 0.5 an epoch" in told
        assert (told.count("all as before") == 2) is again
    assert sorted(p.name for p in (folder / "index").glob("*.idx")) == ["dev.idx", "train.idx"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {path: x, weight: 1, wieght: 2}", r"combine\.yaml: a\.wieght: unknown key"),
        ("a: {path: x, weight: -1}", r"combine\.yaml: a\.weight: is -1; give a number from 0 up"),
        ("a: {path: x, weight: .nan}", r"a\.weight"),
        ("a: {path: x, weight: much}", r"a\.weight"),
        ("a: {path: x}", r"a\.weight: is missing"),
        ("a: {weight: 1}", r"a\.path: is missing"),
        ("a: {path: [x], weight: 1}", r"a\.path"),
        ("a: {path: x, weight: 1, data_type: parquet}", r"a\.data_type: is 'parquet'"),
        ("a: x", r"combine\.yaml: a: is 'x'"),
        ("a: {path: x, weight: 1}\na: {path: y, weight: 1}", r"combine\.yaml:2: key 'a' is given twice"),
        ("a: {path: x, weight: 0}", "every weight is 0"),
        ("[", r"combine\.yaml:1"),
        ("", "no corpora"),
    ],
)
def test_bad_input_combine_yaml_names_the_key(tmp_path: Path, text: str, message: str):
    with pytest.raises(OsumError, match=message):
        read_corpora([combine(tmp_path, text)], "raw")


def test_bad_input_no_such_combine_yaml():
    with pytest.raises(OsumError, match=r"nowhere\.yaml: no such file"):
        read_corpora(["nowhere.yaml"], "raw")


def test_records_of_the_file_are_json_of_the_list(tmp_path: Path, tokenizer: CharTokenizer):
    """Numbers, labels and word times are what the list has, to the last digit."""
    samples = lines(20, start=0.1, end=7.123456789012345, align=[[0.1, 0.3, "今"]])
    index = made(write_list(tmp_path / "a.list", samples), tokenizer, tmp_path / "train.idx", asked=["asr"])
    assert list(index.samples) == json.loads(json.dumps(samples))
