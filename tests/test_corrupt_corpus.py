"""A corpus that is corrupt in many ways: an epoch delivers all that is good, once, and lists exactly the rest."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from corrupt import Corpus, corrupt_files, write_corrupt_corpus
from helpers import write_units

from wenet_osum.config import DATASET_DEFAULTS
from wenet_osum.dataset.dataset import OsumDataset
from wenet_osum.dataset.index_build import build_index
from wenet_osum.dataset.loader import Loader
from wenet_osum.tasks import load_tasks
from wenet_osum.text import CharTokenizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corrupt_corpus(tmp_path_factory.mktemp("corrupt"))


def dataset_of(corpus: Corpus, data_type: str, tmp_path: Path, **batch: object) -> OsumDataset:
    tokenizer, table = CharTokenizer(write_units(tmp_path / "units.txt")), load_tasks()
    conf = {**DATASET_DEFAULTS, "batch_conf": {**DATASET_DEFAULTS["batch_conf"], **batch}}
    index = build_index(corpus.lists[data_type], data_type, table, tokenizer.encode, conf)
    return OsumDataset(index, table, tokenizer, conf, 777, train=True)


def epoch_of(dataset: OsumDataset, workers: int) -> tuple[Counter[str], list[dict[str, str]]]:
    """How often each key came, and what was set aside."""
    loader = Loader(dataset, workers)
    loader.plan(0)
    came: Counter[str] = Counter()
    skipped = list(dataset.index.skipped)
    for batch in loader:
        came.update(batch["keys"])
        skipped += batch["skipped"]
    return came, skipped


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("data_type", ["raw", "shard"])
def test_corrupt_corpus(corpus: Corpus, data_type: str, workers: int, tmp_path: Path):
    good, bad = corpus.good[data_type], corpus.bad[data_type]
    assert len(bad) >= 10 and len(bad) >= 0.01 * len(good)
    came, skipped = epoch_of(dataset_of(corpus, data_type, tmp_path, max_frames_in_batch=1500), workers)
    assert {s["key"]: s["cause"] for s in skipped} == bad and len(skipped) == len(bad)
    assert all(s["detail"] and "\n" not in s["detail"] for s in skipped)
    assert came == Counter(good)


def test_corrupt_corpus_shard_that_is_cut_or_goes_after_indexing(tmp_path: Path):
    corpus = write_corrupt_corpus(tmp_path / "data", raw=1, shard=150)
    dataset = dataset_of(corpus, "shard", tmp_path)
    rows = dataset.index.samples
    cut, gone = sorted({Path(s["tar"]) for s in rows})[:2]
    middle = [s for s in rows if s["tar"] == str(cut)][20]
    with open(cut, "r+b") as f:
        f.truncate(middle["offset"] + 1000)
    gone.unlink()
    late = {s["key"] for s in rows if s["tar"] == str(cut) and s["offset"] >= middle["offset"] and s["size"]}
    lost = {s["key"] for s in rows if s["tar"] == str(gone) and s["size"]}
    came, skipped = epoch_of(dataset, 0)
    causes = {s["key"]: s["cause"] for s in skipped}
    expected = {**corpus.bad["shard"], **dict.fromkeys(late, "truncated"), **dict.fromkeys(lost, "missing")}
    assert causes == expected and len(skipped) == len(expected)
    assert came == Counter(k for k in corpus.good["shard"] if k not in expected)


def test_corruption_is_of_ten_kinds_and_more():
    assert len({cause for _, cause in corrupt_files().values()}) >= 5 and len(corrupt_files()) >= 10
