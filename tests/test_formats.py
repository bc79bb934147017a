"""What was heard, written and read back: text, JSON, SubRip, WebVTT, CTM."""

from __future__ import annotations

import html
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wenet_osum.decode import formats
from wenet_osum.decode.formats import Heard, Transcript, check_formats, rows, subtitles, width
from wenet_osum.decode.join import Segment
from wenet_osum.errors import OsumError
from wenet_osum.tasks import load_tasks
from wenet_osum.tasks.answer import Answer, Word

TASKS = load_tasks()
times = st.floats(0, 9000).map(lambda t: round(t, 2))
# Anything a tokenizer may give, line ends and the marks of the formats among it.
texts = st.text(st.characters(exclude_categories=["Lu", "Lt", "Cs"]), max_size=60) | st.lists(
    st.sampled_from(["the", "dog", "小", "狗", "-->", "<b>", "&amp;", "&", "1", "\n\n", "\u2028", "webvtt"])
).map(" ".join)


@st.composite
def timed_words(draw: st.DrawFn) -> list[Word]:
    """Words with starts that do not go back; they may overlap, last no time, or have no text."""
    starts = sorted(draw(st.lists(times, max_size=30)))
    return [Word(s, s + draw(st.sampled_from([0, 0.01, 0.3, 1.0, 9.0])), draw(texts)) for s in starts]


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    edges = sorted(draw(st.lists(times, max_size=12)))
    segments = [Segment(a, b, draw(texts), {}) for a, b in zip(edges[::2], edges[1::2])]
    words = draw(timed_words() | st.none())
    raw = draw(texts)
    tasks = {"asr": Heard(raw, Answer(raw), {}, segments)}
    if words is not None:
        tasks["srwt"] = Heard(raw, Answer(raw, words=words), {}, [])
    return Transcript(draw(texts), draw(texts) or "a", 9000.0, tasks)


def milliseconds(clock: str, point: str) -> int:
    match = re.fullmatch(rf"(\d\d+):([0-5]\d):([0-5]\d){re.escape(point)}(\d{{3}})", clock)
    assert match, clock
    hours, minutes, seconds, rest = map(int, match.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def read_cues(content: str, point: str) -> list[tuple[int, int, str]]:
    """Blocks of lines parted by empty ones, as players read them."""
    cues = []
    for block in filter(None, re.split(r"\n\n+", content)):
        lines = block.strip("\n").split("\n")
        if point == ",":
            assert lines.pop(0) == str(len(cues) + 1)
        start, arrow, end = lines[0].split(" ")
        assert arrow == "-->" and len(lines) == 2
        cues.append((milliseconds(start, point), milliseconds(end, point), lines[1]))
    return cues


def check_times(cues: list[tuple[int, int, str]]) -> None:
    at = 0
    for start, end, line in cues:
        assert at <= start < end and line.strip()
        at = end


@settings(deadline=None)  # the machine may be busy
@given(transcripts())
def test_srt_reads_back(done: Transcript):
    cues = read_cues(formats.srt(done), ",")
    check_times(cues)
    assert cues == [(s, e, line.replace("-->", "->")) for s, e, line in subtitles(done)]


@settings(deadline=None)  # the machine may be busy
@given(transcripts())
def test_vtt_reads_back(done: Transcript):
    head, _, rest = formats.vtt(done).partition("\n")
    assert head == "WEBVTT" and rest[:1] in ("", "\n")
    assert "-->" not in re.sub(r"(?m)^[\d:.]+ --> [\d:.]+$", "", rest)
    cues = read_cues(rest, ".")
    check_times(cues)
    assert all(re.fullmatch(r"[^<>&]*(&(amp|lt|gt);[^<>&]*)*", line) for _, _, line in cues)
    assert [(s, e, html.unescape(line)) for s, e, line in cues] == subtitles(done)


@settings(deadline=None)  # the machine may be busy
@given(transcripts())
def test_ctm_reads_back(done: Transcript):
    lines = formats.ctm(done).splitlines()
    words = done.tasks["srwt"].answer.words if "srwt" in done.tasks else []
    spoken = [w for w in words or [] if w.word.split()]
    assert len(lines) == len(spoken)
    for line, word in zip(lines, spoken):
        name, channel, start, duration, said = line.split()
        assert (
            name == re.sub(r"\s+", "_", done.name) and channel == "1" and said == "_".join(word.word.split())
        )
        assert float(start) == pytest.approx(word.start, abs=0.006)
        assert float(duration) == pytest.approx(word.end - word.start, abs=0.006) and float(duration) >= 0


@settings(deadline=None)  # the machine may be busy
@given(transcripts())
def test_json_reads_back(done: Transcript):
    content = formats.as_json(done)
    assert content.count("\n") == 1 and content.endswith("\n")
    row = json.loads(content)
    assert row["file"] == done.file and row["duration"] == 9000.0 and list(row["tasks"]) == list(done.tasks)
    for name, heard in done.tasks.items():
        task = row["tasks"][name]
        assert task["text"] == heard.answer.text and task["reply"] is None and task["labels"] == {}
        words = task["words"] and [Word(w["start"], w["end"], w["word"]) for w in task["words"]]
        assert words == heard.answer.words
        assert [Segment(labels={}, **s) for s in task["segments"]] == heard.segments


@settings(deadline=None)  # the machine may be busy
@given(transcripts(), st.booleans(), st.booleans())
def test_text_has_a_line_a_task(done: Transcript, with_file: bool, with_task: bool):
    lines = formats.text(done, with_file, with_task).split("\n")
    assert lines.pop() == "" and len(lines) == len(done.tasks)
    for line, (name, heard) in zip(lines, done.tasks.items()):
        columns = line.split("\t")
        assert columns.pop() == " ".join(heard.raw.split())
        assert columns == [" ".join(done.file.split())] * with_file + [name] * with_task


@settings(deadline=None)  # the machine may be busy
@given(timed_words())
def test_rows_keep_every_word_and_the_limits(words: list[Word]):
    found = rows(words)
    said = "".join("".join(w.word.split()) for w in words)
    assert "".join("".join(line.split()) for _, _, line in found) == said
    singles = {" ".join(w.word.split()) for w in words}
    for start, end, line in found:
        alone = any(re.sub(r"\s", "", line) == re.sub(r"\s", "", s) for s in singles)
        assert alone or (width(line) <= 42 and end - start <= 7.0 + 1e-9)


def test_rows_end_at_a_pause_and_when_full():
    words = [Word(0.1, 0.4, "good"), Word(0.4, 0.9, "morning"), Word(1.5, 1.8, "open"), Word(1.9, 2.3, "it")]
    assert rows(words) == [(0.1, 0.9, "good morning"), (1.5, 2.3, "open it")]
    chinese = [Word(i / 10, i / 10 + 0.1, "好") for i in range(50)]
    assert [len(line) for _, _, line in rows(chinese)] == [21, 21, 8]
    slow = [Word(i * 2.0, i * 2.0 + 1.9, "word") for i in range(8)]
    assert [(start, end) for start, end, _ in rows(slow)] == [(0, 5.9), (6, 11.9), (12, 15.9)]


def test_segments_are_shown_where_there_are_no_words():
    long = " ".join(["word"] * 20)
    segments = [Segment(0.0, 10.0, long, {}), Segment(12.0, 14.0, "yes", {}), Segment(14.0, 15.0, "", {})]
    done = Transcript("a.wav", "a", 15.0, {"asr": Heard(long, Answer(long), {}, segments)})
    shown = subtitles(done)
    assert [line for _, _, line in shown] == [" ".join(["word"] * 8)] * 2 + [" ".join(["word"] * 4), "yes"]
    assert shown[0][:2] == (0, 4000) and shown[2][1] == 10000 and shown[3][:2] == (12000, 14000)


def test_all_of_an_answer_is_in_json():
    answer = Answer("hi", {"emotion": "happy"}, [Word(0.1, 0.5, "hi")], "hello", ["odd"])
    heard = Heard(
        "hi<happy>",
        answer,
        {"emotion": {"happy": 0.75, "sad": 0.25}},
        [Segment(0, 1, "hi", {"emotion": "happy"})],
    )
    row = json.loads(formats.as_json(Transcript("a.wav", "a", 1.23456, {"x": heard})))
    assert row == {
        "file": "a.wav",
        "duration": 1.235,
        "tasks": {
            "x": {
                "text": "hi",
                "labels": {"emotion": "happy"},
                "probabilities": {"emotion": {"happy": 0.75, "sad": 0.25}},
                "words": [{"start": 0.1, "end": 0.5, "word": "hi"}],
                "reply": "hello",
                "problems": ["odd"],
                "segments": [{"start": 0, "end": 1, "text": "hi", "labels": {"emotion": "happy"}}],
            }
        },
    }
    failed = Transcript("b.wav", "b", error=OsumError("b.wav", "empty: zero bytes", "leave it out"))
    assert json.loads(formats.as_json(failed)) == {
        "file": "b.wav",
        "error": {"what": "empty: zero bytes", "mend": "leave it out"},
    }


@pytest.mark.parametrize(
    ("asked", "tasks", "where"),
    [
        (["text", "json", "srt", "vtt"], ["asr"], None),
        (["ctm"], ["ser", "srwt"], None),
        (["ctm"], ["asr", "ser"], "--format ctm: needs the times of words; ask for them: --task srwt"),
        (["text", "mp4"], ["asr"], "--format mp4: unknown format; choose among text, json, srt, vtt, ctm"),
    ],
)
def test_a_format_is_checked_against_the_tasks(asked, tasks, where):
    def check() -> None:
        check_formats(asked, [TASKS[name] for name in tasks])

    if where is None:
        check()
    else:
        with pytest.raises(OsumError, match=re.escape(where)):
            check()
