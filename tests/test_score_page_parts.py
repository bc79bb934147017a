"""What the report is made of: outcomes, groups, the worst utterances, drawings, clips, the commit."""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st
from page_helpers import ANSWERS, REFS, clip_file

from wenet_osum.score.figure import Figure, ratio
from wenet_osum.score.page import groups, run_facts, svg
from wenet_osum.score.page.clips import MAX_SECONDS, Clip, Clips
from wenet_osum.score.page.examples import MAX_STEPS, aligned, is_rtl
from wenet_osum.score.page.outcomes import outcomes
from wenet_osum.score.page.worst import worst
from wenet_osum.score.score import score_tree
from wenet_osum.tasks import Word, load_tasks
from wenet_osum.text.normalize import split_words


@pytest.mark.parametrize("name", ["asr", "srwt", "ser", "sttc", "age_gender"])
def test_outcomes_add_up_to_the_score(name):
    task = load_tasks()[name]
    refs = [{"wav": "x", **ref, **({"age": "old"} if name == "age_gender" else {})} for ref in REFS]
    text = ANSWERS.get(name, "a the cat sat<old><female>\nb x<adult>\n")
    hyps = dict(line.split(" ", 1) for line in text.splitlines())
    figure = score_tree(task, refs, hyps)["value"]
    found = outcomes(task, refs, hyps, figure)
    assert [o.key for o in found] == [r["key"] for r in refs if task.supported_by(r)]
    sums = np.sum([o.adds for o in found], 0)[None]
    assert float(figure.statistic(sums)[0]) == pytest.approx(figure.value)
    wrong = [o.key for o in found if o.badness[0] > 0]
    assert (
        wrong
        == {"asr": ["a", "c"], "srwt": ["a"], "ser": ["a", "c"], "sttc": ["a"], "age_gender": ["b", "c"]}[
            name
        ]
    )


@pytest.mark.parametrize("name", ["asr", "srwt", "sttc"])
def test_what_is_asked_of_all_keeps_no_answers(name):
    task = load_tasks()[name]
    refs = [{"wav": "x", **ref} for ref in REFS]
    hyps = dict(line.split(" ", 1) for line in ANSWERS[name].splitlines())
    found = outcomes(task, refs, hyps, score_tree(task, refs, hyps)["value"])
    for o in found:
        assert o.badness[0] >= 0 and o.tokens == len(split_words(task.answer_of(o.sample).text))
        assert not {"ref", "hyp"} & set(vars(o))  # 100,000 of them would not fit


def test_worst_of_labels_takes_confusions_in_turn():
    task = load_tasks()["ser"]
    refs = [{"key": f"{n}", "wav": "x", "txt": "", "emotion": "sad"} for n in range(6)]
    hyps = {"0": "<happy>", "1": "<happy>", "2": "<happy>", "3": "<fear>", "4": "<sad>"}
    shares = {k: {"emotion": {"happy": p}} for k, p in (("0", 0.5), ("1", 0.9), ("2", 0.7))}
    found = outcomes(task, refs, hyps, score_tree(task, refs, hyps)["value"])
    shown, wrong = worst(task, found, shares, 4)
    assert [o.key for o in shown] == ["1", "3", "2", "0"] and wrong == 5
    assert [o.key for o in worst(task, found, shares, 9)[0]] == ["1", "3", "2", "0", "5"]  # 5 has no answer


@given(st.lists(st.floats(-1e3, 1e4, allow_nan=False), max_size=60))
def test_bins_hold_every_value(values):
    edges = groups.round_edges(values)
    assert len(edges) <= groups.MAX_BINS + 1
    assert edges == sorted(set(edges))
    assert sum(b.group.utterances for b in groups.counted(values)) == (len(values) if len(edges) >= 3 else 0)
    if edges:
        assert edges[0] <= min(values) + 1e-6
        inside = sum(v < edges[-1] for v in values)
        assert inside >= 0.99 * len(values) - 1


def test_bin_values_are_those_of_their_utterances():
    task = load_tasks()["asr"]
    refs = [{"key": f"{n}", "wav": "x", "txt": "a b", "duration": 1.0 + n} for n in range(4)]
    hyps = {"0": "a b", "1": "a x", "2": "x x", "3": "a b"}
    figure = score_tree(task, refs, hyps)["value"]
    found = outcomes(task, refs, hyps, figure)
    bins = groups.binned(found, figure, lambda o: None if o.key == "3" else o.seconds, groups.Draws(10))
    filled = [(b.low, b.group.value) for b in bins if b.group.utterances]
    assert [value for _, value in filled] == [0.0, 50.0, 100.0]
    assert all(b.group.value is None for b in bins if not b.group.utterances)


def test_a_long_alignment_is_cut_and_says_so():
    shown = aligned(["a"] * 500, ["a"] * 499)
    assert len(shown.steps) == MAX_STEPS and shown.more == 300 and shown.counts["deletion"] == 1


def test_direction_is_that_of_the_first_letter():
    assert is_rtl("12 שלום abc") and is_rtl("مرحبا") and not is_rtl("abc שלום") and not is_rtl("123 ...")


def test_timeline_of_odd_times_is_drawn():
    for ref, hyp in (([], []), ([Word(0, 0, "x")], []), ([], [Word(5, 3600, "<&>")])):
        ET.fromstring(str(svg.timeline(ref, hyp, 0.0)))


def test_clip_is_the_segment_and_at_most_so_long(tmp_path):
    rate = 16000
    wave = np.concatenate([np.zeros(rate), 0.5 * np.sin(np.arange(rate) / 10), np.zeros(40 * rate)])
    sf.write(tmp_path / "x.wav", wave, rate)
    clips = Clips(10_000_000)
    part = clips.take({"key": "a", "wav": str(tmp_path / "x.wav"), "start": 1.0, "end": 2.0})
    whole = clips.take({"key": "b", "wav": str(tmp_path / "x.wav")})
    assert isinstance(part, Clip) and isinstance(whole, Clip)
    heard, _ = sf.read(clip_file(part.src))
    assert not part.cut and part.seconds == 1.0 and np.abs(heard).mean() > 0.2
    assert whole.cut and whole.seconds == MAX_SECONDS


def test_commit_is_that_of_tracked_code_alone(tmp_path):
    def git(*command: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *command], check=True, capture_output=True)

    assert run_facts.commit_of(tmp_path) == ""
    git("init", "-q")
    (tmp_path / "__init__.py").write_text("")
    assert run_facts.commit_of(tmp_path) == ""  # in a checkout, but not of it
    git("add", "__init__.py")
    git("commit", "-q", "-m", "x")
    assert re.fullmatch("commit [0-9a-f]{12}", run_facts.commit_of(tmp_path))
    (tmp_path / "__init__.py").write_text("x = 1\n")
    assert run_facts.commit_of(tmp_path).endswith(", with changes")


def test_part_of_a_figure_has_the_value_of_its_utterances():
    figure = Figure.of([[1, 2], [0, 2], [2, 2]], ratio)
    assert groups._part(figure, [0, 2]).value == 75.0
