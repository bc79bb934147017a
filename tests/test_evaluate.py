"""Decoded scores on the dev list while training: those of ``osum recognize`` and ``osum score``, whatever the ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import command, run_config, stage1_config, stage2_config, write_corpus, write_list
from test_augment import ALL, write_sounds
from test_engines import run_ranks
from test_train_decode import train_args

from wenet_osum.bin import recognize, train
from wenet_osum.bin.common import make_index
from wenet_osum.checkpoint.assemble import load_table, prepare_configs
from wenet_osum.checkpoint.weights import save_checkpoint
from wenet_osum.config import load_config, save_config
from wenet_osum.dataset.dataset import OsumDataset
from wenet_osum.dataset.lists import read_raw_list
from wenet_osum.errors import OsumError
from wenet_osum.models.osum import DecodeResult
from wenet_osum.score.files import read_hypotheses
from wenet_osum.score.score import score_task
from wenet_osum.text import init_tokenizer
from wenet_osum.train.engine import Engine
from wenet_osum.train.evaluate import DevScorer, drawn, figures
from wenet_osum.wenet.encoders import build_model


def scorer_of(
    folder: Path, data: Path, engine: Engine, config: dict[str, Any] | None = None, **conf: Any
) -> DevScorer:
    path = run_config(folder, config or stage2_config(), cv_decode_conf={"utterances": 3, **conf})
    configs = load_config(path)
    tokenizer, table = init_tokenizer(configs), load_table(configs)
    prepare_configs(configs, tokenizer)
    save_config(configs, folder / "train.yaml")
    index = make_index([str(data)], "raw", table, tokenizer.encode, configs["dataset_conf"])
    dataset = OsumDataset(index, table, tokenizer, configs["dataset_conf"], configs["seed"], False)
    return DevScorer(dataset, tokenizer, table, configs, engine)


def model_of(folder: Path) -> Any:
    """The model of ``train.yaml``, its random weights large enough that answers differ."""
    torch.manual_seed(3)
    model = build_model(load_config(folder / "train.yaml"))
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(8)
    return model


class Pupil:
    """Knows the answer to every utterance of ``lengths`` frames, and says "no" to the others."""

    modes = ("llm_greedy",)
    training = True

    def __init__(self, scorer: DevScorer, lengths: set[int]):
        self.scorer, self.lengths, self.seen = scorer, lengths, []

    def eval(self) -> None:
        self.training = False

    def train(self, learning: bool) -> None:
        self.training = learning

    def decode(self, modes: list[str], feats: Any, lengths: Any, infos: Any) -> dict[str, list[DecodeResult]]:
        assert not self.training
        index, table, out = self.scorer.dataset.index, self.scorer.table, []
        for task, frames in zip(infos["tasks"], lengths.tolist()):
            self.seen.append((task, frames))
            sample = index.samples[index.frames.tolist().index(frames)]
            right = table[task].compose(table[task].answer_of(sample))
            out.append(DecodeResult(self.scorer.tokenizer.encode(right if frames in self.lengths else "no")))
        return {"llm_greedy": out}


def test_figures_of_a_model_that_knows_half(tmp_path: Path):
    data = write_corpus(tmp_path / "data")
    scorer = scorer_of(tmp_path, data, Engine(), utterances=99, batch_size=4)
    pupil = Pupil(scorer, {30, 39, 48})  # "good morning", "open the door", "今天天气好"
    scores = scorer(pupil)
    assert pupil.training and len(pupil.seen) == len(set(pupil.seen)) == 3 * 6
    assert scores["ser/accuracy"] == 50 and scores["sttc/exact"] == 50
    # "no" is right the first time, then wrong for "where is my blue hat" and "一二三".
    assert scores["asr/mer"] == pytest.approx(100 * (5 + 3) / (2 + 3 + 5 + 1 + 5 + 3))
    assert scores["asr/wer_en"] == pytest.approx(100 * 5 / 11) and scores["asr/cer_zh"] == 37.5
    assert set(scores) == {
        *("asr/mer", "asr/wer_en", "asr/cer_zh", "ser/accuracy", "ser/transcript_mer"),
        *("sttc/exact", "sttc/transcript_mer"),
    }


@pytest.mark.parametrize("config", [stage1_config(), stage2_config()], ids=["stage1", "stage2"])
def test_scores_are_those_of_recognize_and_score(tmp_path: Path, config: dict[str, Any]):
    data = write_corpus(tmp_path / "data", 9)
    scorer = scorer_of(tmp_path, data, Engine(), config, batch_size=2)
    model = model_of(tmp_path).train()
    state, rng = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    scores, answers = scorer(model), scorer.answers(model)
    assert torch.equal(torch.get_rng_state(), rng) and model.training  # a resumed run draws the same
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert scorer(model) == scores and scorer.rows.keys() == {"asr", "ser", "sttc"}

    save_checkpoint(model, tmp_path / "final.pt", {})
    table, samples = scorer.table, {s["key"]: s for _, s in read_raw_list(data)}
    texts = []
    for name, rows in scorer.rows.items():
        part = [samples[scorer.dataset.index.samples[row]["key"]] for row in rows]
        assert len(part) == 3
        args = ["--config", tmp_path / "train.yaml", "--checkpoint", tmp_path / "final.pt", "--task", name]
        args += ["--test_data", write_list(tmp_path / "part.list", part), "--result_dir", tmp_path / name]
        assert command(recognize.main, *args, "--modes", model.modes[0], "--num_threads", 1) == 0
        hyps = read_hypotheses(tmp_path / name / model.modes[0] / "text")
        assert {k: " ".join(t.split()) for k, t in answers[name].items()} == hyps
        expected = figures(score_task(table[name], part, hyps))
        assert expected == {k: v for k, v in scores.items() if k.startswith(f"{name}/")}
        texts += hyps.values()
    assert len(set(texts)) > 3  # not one answer to everything


def two_ranks(engine: Engine, folder: Path) -> dict[str, Any]:
    scorer = scorer_of(folder / f"run{engine.rank}", folder / "data" / "data.list", engine, batch_size=2)
    return {"scores": scorer(model_of(folder / "run0")), "batches": len(scorer.batches)}


@pytest.mark.slow
def test_any_number_of_ranks_finds_the_same(tmp_path: Path):
    data = write_corpus(tmp_path / "data", 9)
    for r in range(2):
        (tmp_path / f"run{r}").mkdir()
    scorer = scorer_of(tmp_path / "run0", data, Engine(), batch_size=2)
    expected = scorer(model_of(tmp_path / "run0"))
    for found in run_ranks(tmp_path, two_ranks):
        assert found == {"scores": expected, "batches": 6}


@pytest.mark.integration
def test_training_keeps_the_scores_with_each_checkpoint(tmp_path: Path):
    """With every augmentation on beside it, by flags alone."""
    data = write_corpus(tmp_path / "data", 6)
    flags = ["cv_decode_conf.utterances=2", *(f"dataset_conf.{name}=true" for name in ALL)]
    flags += [f"dataset_conf.{name}_conf.list={path}" for name, path in write_sounds(tmp_path).items()]
    more = [item for flag in flags for item in ("--override_config", flag)]
    assert (
        command(train.main, *train_args(tmp_path, run_config(tmp_path, stage2_config()), data, "m", *more))
        == 0
    )
    facts = yaml.safe_load((tmp_path / "m" / "epoch_0.yaml").read_text(encoding="utf-8"))
    assert {"loss", "ser/accuracy", "ser/transcript_mer", "sttc/exact"} <= set(facts["loss_dict"])
    assert facts["dataset_conf"]["volume_perturb"] is True


def test_an_utterance_that_cannot_be_read_is_an_error_and_no_crash(tmp_path: Path):
    data = write_corpus(tmp_path / "data", 3)
    scorer = scorer_of(tmp_path, data, Engine(), tasks=["ser"])
    (tmp_path / "data" / "u01.wav").unlink()
    assert scorer(Pupil(scorer, {30, 39, 48}))["ser/accuracy"] == pytest.approx(200 / 3)


def test_the_same_utterances_every_time_and_others_for_another_task():
    rows = list(range(100, 200))
    assert drawn(rows, 10, 1, "asr") == drawn(rows, 10, 1, "asr") != drawn(rows, 10, 1, "ser")
    assert drawn(rows, 10, 1, "asr") != drawn(rows, 10, 2, "asr")
    assert drawn(rows, 500, 1, "asr") == rows


def test_figures_leave_out_what_is_undefined():
    srwt = {"task": "srwt", "metric": "aas_ms", "value": None, "aligned": 0.0}
    assert figures(srwt) == {"srwt/aligned": 0.0}
    fields = {"age": {"accuracy": 50.0}, "gender": {"accuracy": 75.0}}
    both = {"task": "age_gender", "metric": "accuracy", "value": 25.0, "fields": fields}
    assert figures(both) == {
        "age_gender/accuracy": 25.0,
        "age_gender/accuracy_age": 50.0,
        "age_gender/accuracy_gender": 75.0,
    }
    english = {
        "task": "asr",
        "metric": "mer",
        "value": 5.0,
        "by_lang": {"en": {"metric": "wer", "value": 5.0}},
    }
    assert figures(english) == {"asr/wer": 5.0}


def test_bad_input_tasks_without_an_answer(tmp_path: Path):
    data = write_corpus(tmp_path / "data", 3)
    for names, says in ((["sgc"], "is asked sgc"), (["nosuch"], "unknown task")):
        with pytest.raises(OsumError, match=says):
            scorer_of(tmp_path, data, Engine(), tasks=names)
    for conf in ({"utterances": -1}, {"batch_size": 0}, {"utterance": 3}):
        with pytest.raises(OsumError, match="cv_decode_conf"):
            scorer_of(tmp_path, data, Engine(), **conf)


def test_two_dev_lists_with_one_key_are_told_at_the_start(tmp_path: Path) -> None:
    one, two = write_corpus(tmp_path / "one", count=2), write_corpus(tmp_path / "two", count=2)
    both = tmp_path / "dev.yaml"
    both.write_text(yaml.safe_dump({n: {"path": str(p), "weight": 1} for n, p in (("a", one), ("b", two))}))
    with pytest.raises(OsumError, match="2 utterances of the dev list have the key u0"):
        scorer_of(tmp_path, both, Engine("cpu", "fp32"), utterances=4)
