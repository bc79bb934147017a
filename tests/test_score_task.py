"""score_task: every kind of task through its parser, and the report."""

import io
import json

import pytest
from rich.console import Console

from wenet_osum.errors import OsumError
from wenet_osum.score import format_table, score_task, write_scores
from wenet_osum.score.bootstrap import Draws
from wenet_osum.tasks import load_tasks

TASKS = load_tasks()
FEW = Draws(50)

REFS = [
    {
        "key": "u1",
        "wav": "1.wav",
        "txt": "good morning",
        "lang": "en",
        "event": "cough",
        "emotion": "happy",
        "style": "客服",
        "gender": "female",
        "age": "adult",
        "reply": "good evening to you",
        "align": [[0.0, 0.5, "good"], [0.5, 1.0, "morning"]],
    },
    {
        "key": "u2",
        "wav": "2.wav",
        "txt": "你好吗",
        "lang": "zh",
        "event": "laugh",
        "emotion": "sad",
        "style": "诗歌散文",
        "gender": "male",
        "age": "old",
        "reply": "我很好",
        "align": [[0.0, 0.2, "你"], [0.2, 0.4, "好"], [0.4, 0.6, "吗"]],
    },
]


def perfect(task):
    return {ref["key"]: task.compose(task.answer_of(ref)) for ref in REFS}


def printed(scores):
    """The rows of the table as they come out on a terminal."""
    console = Console(width=200, file=io.StringIO())
    console.print(format_table(scores, "demo"))
    return [line for line in console.file.getvalue().splitlines() if "│" in line]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_right_answers_score_full_and_no_answers_nothing(name):
    task = TASKS[name]
    best = {"mer": 0.0, "aas_ms": 0.0, "accuracy": 100.0, "exact": 100.0}
    worst = {"mer": 100.0, "aas_ms": None, "accuracy": 0.0, "exact": 0.0}
    full = score_task(task, REFS, perfect(task), draws=FEW)
    none = score_task(task, REFS, {}, draws=FEW)
    assert full["value"] == best[full["metric"]]
    assert none["value"] == worst[none["metric"]]
    assert (full["task"], full["tag"]) == (name, task.tag)
    assert {k: full["counts"][k] for k in ("utterances", "missing", "unparseable", "extra")} == {
        "utterances": 2,
        "missing": 0,
        "unparseable": 0,
        "extra": 0,
    }
    assert none["counts"]["missing"] == 2
    json.dumps([full, none], allow_nan=False)


def test_asr_by_language():
    score = score_task(TASKS["asr"], REFS, {"u1": "good evening", "u2": "你号嘛"}, draws=FEW)
    assert score["metric"] == "mer"
    assert score["value"] == pytest.approx(100 * 3 / 5)
    assert score["by_lang"]["en"]["metric"] == "wer"
    assert score["by_lang"]["en"]["value"] == pytest.approx(50.0)
    assert score["by_lang"]["zh"]["metric"] == "cer"
    assert score["by_lang"]["zh"]["value"] == pytest.approx(100 * 2 / 3)
    assert sum(part["counts"]["ref_tokens"] for part in score["by_lang"].values()) == 5


def test_language_is_told_by_the_script_where_the_list_does_not():
    refs = [{k: v for k, v in ref.items() if k != "lang"} for ref in REFS]
    assert set(score_task(TASKS["asr"], refs, {}, draws=FEW)["by_lang"]) == {"en", "zh"}


def test_label_task_counts_label_and_transcript_apart():
    score = score_task(TASKS["ser"], REFS, {"u1": "good day<HAPPY>", "u2": "你好吗"}, draws=FEW)
    assert score["metric"] == "accuracy"
    assert score["value"] == pytest.approx(50.0)
    assert score["counts"] == {"utterances": 2, "missing": 0, "unparseable": 1, "extra": 0, "right": 1}
    assert score["fields"]["emotion"]["accuracy"] == pytest.approx(50.0)
    assert score["transcript"]["value"] == pytest.approx(100 * 1 / 5)


def test_label_only_task_has_no_transcript():
    score = score_task(TASKS["ser_only"], REFS, {"u1": "<happy>", "u2": "<happy>"}, draws=FEW)
    assert score["value"] == pytest.approx(50.0)
    assert "transcript" not in score


def test_compound_is_right_when_all_labels_are():
    hyps = {"u1": "<adult><female>", "u2": "<adult><male>"}
    score = score_task(TASKS["age_gender_only"], REFS, hyps, draws=FEW)
    assert score["value"] == pytest.approx(50.0)
    assert score["fields"]["age"]["accuracy"] == pytest.approx(50.0)
    assert score["fields"]["gender"]["accuracy"] == pytest.approx(100.0)


def test_srwt_in_milliseconds():
    hyps = {"u1": "<0.02>good<0.5><0.50>morning<1.1>", "u2": "<0.00>你<0.20>"}
    score = score_task(TASKS["srwt"], REFS, hyps, draws=FEW)
    # 20 + 0 + 0 + 100 + 0 + 0 ms over the 6 boundaries of 3 words; 2 of 5 words are not there
    assert score["value"] == pytest.approx(20.0)
    assert score["aligned"] == pytest.approx(60.0)
    assert score["transcript"]["value"] == pytest.approx(40.0)


def test_sttc_reply_and_transcript():
    hyps = {"u1": "good morning<开始回答>Good evening to you!", "u2": "你好<开始回答>不好"}
    score = score_task(TASKS["sttc"], REFS, hyps, draws=FEW)
    assert score["value"] == pytest.approx(50.0)
    assert score["transcript"]["value"] == pytest.approx(20.0)


def test_a_ninth_task_is_scored_from_its_yaml_alone(tmp_path):
    path = tmp_path / "accent.yaml"
    path.write_text(
        "accent:\n"
        "  tag: <TRANSCRIBE> <ACCENT>\n"
        "  label: {name: accent, atom: ACCENT, file: utt2accent, values: [north, south]}\n"
        "  prompts: {en: ['Which accent is it?']}\n",
        encoding="utf-8",
    )
    task = load_tasks(path)["accent"]
    refs = [REFS[0] | {"accent": "north"}, REFS[1] | {"accent": "south"}]
    score = score_task(task, refs, {"u1": "good morning<north>", "u2": "你好吗<north>"}, draws=FEW)
    assert score["value"] == pytest.approx(50.0)
    assert score["fields"]["accent"]["confusion"]["matrix"] == [[1, 0, 0], [1, 0, 0]]
    assert "50.00 %" in printed({"accent": score})[0]


def test_references_without_the_label_are_left_out_and_their_answers_counted_as_extra():
    refs = [REFS[0], {"key": "u2", "wav": "2.wav", "txt": "你好吗"}]
    score = score_task(TASKS["ser"], refs, {"u1": "good morning<happy>", "u2": "你好吗<sad>"}, draws=FEW)
    assert score["value"] == 100.0
    assert score["counts"]["utterances"] == 1
    assert score["counts"]["extra"] == 1


def test_composed_references_are_read_as_osum_writes_them():
    refs = [{"key": "a", "wav": "a.wav", "task": "<TRANSCRIBE> <EMOTION>", "txt": "hello<SAD>"}]
    assert score_task(TASKS["ser"], refs, {"a": "hello<sad>"}, draws=FEW)["value"] == 100.0


def test_clip_without_speech():
    refs = [{"key": "a", "wav": "a.wav", "txt": "", "event": "cough"}]
    score = score_task(TASKS["ved"], refs, {"a": "<cough>"}, draws=FEW)
    assert score["value"] == 100.0
    assert score["transcript"]["value"] is None


def test_bad_input_references():
    with pytest.raises(OsumError, match="sttc: no reference has what this task asks for"):
        score_task(TASKS["sttc"], [{"key": "a", "wav": "a.wav", "txt": "x"}], {})
    with pytest.raises(OsumError, match="u1: two references have this key"):
        score_task(TASKS["asr"], [REFS[0], REFS[0]], {})
    with pytest.raises(OsumError, match="u1: .*'glad'"):
        score_task(TASKS["ser"], [REFS[0] | {"emotion": "glad"}], {})


def test_json_is_in_the_papers_order_and_the_same_every_time(tmp_path):
    names = ["sttc", "ser_only", "asr", "sap", "age_gender", "srwt"]
    scores = {n: score_task(TASKS[n], REFS, perfect(TASKS[n]), draws=FEW) for n in names}
    write_scores(scores, tmp_path / "a.json")
    write_scores(dict(reversed(scores.items())), tmp_path / "b.json")
    assert list(json.loads((tmp_path / "a.json").read_text("utf-8"))) == [
        "asr",
        "srwt",
        "sap",
        "sttc",
        "age_gender",
        "ser_only",
    ]
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_json_is_whole_or_not_there(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_scores({"asr": {"value": float("nan")}}, tmp_path / "scores.json")
    assert list(tmp_path.iterdir()) == []


def test_table_has_a_row_a_task_with_its_figures():
    hyps = {"u1": "good day<happy>", "u2": "你好吗"}
    scores = {n: score_task(TASKS[n], REFS, hyps, draws=FEW) for n in ("ser", "asr", "srwt")}
    scores["srwt"] = score_task(TASKS["srwt"], REFS, {}, draws=FEW)
    rows = printed(scores)
    assert [row.split()[1] for row in rows] == ["asr", "srwt", "ser"]
    assert "accuracy" in rows[2]
    assert "50.00 %" in rows[2]
    assert "transcript MER 20.00 %" in rows[2]
    assert "undefined" in rows[1]
    assert "zh CER" in rows[0]
