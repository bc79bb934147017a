"""The report: what stands in it, that nothing else is asked for, and that no text can break out of its place."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import soundfile as sf
from page_helpers import Node, audio, clip_file, make, report, section, tree

from wenet_osum.bin.score import main
from wenet_osum.errors import OsumError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def html(folder):
    return report(folder)


def test_report_table_is_that_of_the_scores(folder, html, capsys):
    scores = json.loads((folder / "decode/scores.json").read_text())
    (table,) = tree(html).find("table", class_="scores")
    rows = [[cell.text for cell in row.children if isinstance(cell, Node)] for row in table.find("tr")][1:]
    assert [row[0] for row in rows] == list(scores) == ["asr", "srwt", "ser", "sttc"]
    assert [row[2].split()[0] for row in rows] == [f"{s['value']:.2f}" for s in scores.values()]
    assert [row[5] for row in rows] == [str(s["counts"]["utterances"]) for s in scores.values()]


def test_report_confusions_have_counts_recall_and_precision(html):
    (table,) = section(html, "task-ser").find("table", class_="confusion")
    rows = {row.find("th")[0].text: [c.text for c in row.find("td")] for row in table.find("tr")[1:]}
    assert rows["happy"] == ["1", "0", "0", "0", "0", "0", "0", "0", "0", "0 %"]
    assert rows["sad"] == ["1", "0", "0", "1", "0", "0", "0", "0", "0", "50 %"]
    assert rows["precision"][:2] == ["50 %", "–"]
    shares = [cell.attrs["style"] for cell in table.find("td", class_="cell") if cell.text == "1"]
    assert shares == ["--share:0.500", "--share:0.500", "--share:1.000"]


def test_report_alignment_marks_edits_by_more_than_colour(html):
    worst_first = section(html, "task-asr").find("li", class_="example")
    assert [li.find("h4")[0].text for li in worst_first] == ["a", "c"]
    steps = [
        [(part.tag, part.text) for part in step.children if isinstance(part, Node)]
        for step in worst_first[0].find("span", class_="off")
    ]
    assert steps == [[("del", "CAT"), ("ins", "HAT"), ("abbr", "S")], [("ins", "DOWN"), ("abbr", "I")]]
    assert "1 substituted, 1 inserted, of 3 tokens" in worst_first[0].text
    assert "no answer" in worst_first[1].text


def test_report_label_errors_are_told_with_probabilities_the_surest_first(html):
    errors = section(html, "task-ser").find("ul", class_="labels")
    assert [" ".join(e.text.split()) for e in errors] == [
        "emotion: happy (20 %) → answered sad (80 %)",
        "emotion: sad (40 %) → answered happy (60 %)",
    ]


def test_report_has_word_times_plots_groups_and_the_run(html, folder):
    (drawing,) = section(html, "task-srwt").find("svg", class_="timeline")
    words = [g.find("title")[0].text for g in drawing.find("g")]
    assert "cat: 0.34 to 0.5 s" in words and "sat: 0.5 to 0.9 s" in words
    assert len(drawing.find("rect", class_="alone")) == 1  # "sat" was not answered
    asr = section(html, "task-asr")
    assert [p.attrs["aria-label"] for p in asr.find("svg", class_="plot")] == [
        "mixed error rate by duration",
        "mixed error rate by length of the reference",
    ]
    kinds = [table.find("th")[0].text for table in asr.find("table", class_="group")]
    assert kinds == ["language", "emotion", "gender", "speaker"]
    language = asr.find("table", class_="group")[0]
    assert [[c.text for c in r.find("td")[:2]] for r in language.find("tr")[1:]] == [
        ["2", "75.00"],
        ["1", "0.00"],
    ]
    run = section(html, "run").text
    assert str(folder / "data.list") in run and "20 draws, seed 0" in run and "numpy" in run


def test_report_asks_for_nothing_else(html):
    for node in tree(html).walk():
        assert node.tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name, value in node.attrs.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "data", "poster", "action", "xlink:href"):
                assert value.startswith(("data:", "#")), (node.tag, name, value[:80])
    css = "".join(node.text for node in tree(html).find("style"))
    assert "url(" not in css and "@import" not in css
    (policy,) = (n for n in tree(html).find("meta") if n.attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.attrs["content"].startswith("default-src 'none'")


def test_report_links_lead_somewhere(html):
    ids = {node.attrs["id"] for node in tree(html).walk() if "id" in node.attrs}
    assert {a.attrs["href"].removeprefix("#") for a in tree(html).find("a")} <= ids


def test_report_drawings_are_well_formed(html):
    drawings = re.findall(r"<svg class=\"(?:plot|mark|timeline)\".*?</svg>(?=<)", html, re.S)
    assert len(drawings) > 10
    for node in tree(html).find("svg"):
        if node.attrs.get("role") == "img":
            assert node.attrs["aria-label"]
    for drawing in re.findall(r"<figure>(.*?)</figure>", html, re.S):
        ET.fromstring(drawing)


HOSTILE = [
    "<script>alert(1)</script>",
    "\"' onload=alert(1) x='",
    "</bdi></style><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }} {% include 'x' %} &lt;b&gt; &amp;",
    "שלום \u202eevil\u202c مرحبا",
    "long" * 500,
    "a\x00b\x1b[31m\x7f\x85",
]


def test_report_escapes_hostile_text(tmp_path):
    refs = [
        {
            **{
                "key": f"k{n}{text.replace(' ', '_')[:60]}",
                "txt": text.replace("<", "").replace(">", "") or "x",
            },
            **{"speaker": text, "lang": text, "emotion": "sad", "wav": text, "duration": n + 1.0},
        }
        for n, text in enumerate(HOSTILE)
    ]
    texts = [ref["key"] + " " + text for ref, text in zip(refs, HOSTILE)]
    folder = make(tmp_path, refs, {"asr": "\n".join(texts) + "\n", "ser": "\n".join(texts) + "\n"})
    (folder / "decode/train.yaml").write_text("a: </pre><script>alert(1)</script>\n")
    html = report(folder, "--normalizer", "plain")
    root = tree(html)
    assert not root.find("script") and not root.find("img")
    assert not any(name.startswith("on") for node in root.walk() for name in node.attrs)
    text = root.text
    assert "<script>alert(1)</script>" in text and "{{ 7 * 7 }}" in text and "&lt;b&gt;" in text
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", html)
    assert "a␀b␛[31m␡" in text
    # what has a direction of its own is kept apart from what is around it
    assert all("\u202e" not in node.text or node.find("bdi") for node in root.find("li", class_="example"))
    assert [d.attrs["dir"] for d in root.find("div", class_="aligned")].count(
        "rtl"
    ) == 1  # its transcript is right, and so in one list
    assert len(html) < 300_000


def test_report_recordings_play_and_the_same_twice(html):
    clips = audio(html)
    assert len(clips) == 2 + 1 + 2 + 1  # asr a c, srwt a, ser a c, sttc a
    wave, rate = sf.read(clip_file(clips[0]))
    assert rate == 16000 and abs(len(wave) - 8000) < 3000
    assert "6 in this page" in section(html, "run").text


def test_report_audio_budget_is_kept_and_told(tmp_path):
    folder = make(tmp_path)
    one = len(audio(report(folder))[0].partition(",")[2])
    html = report(folder, "--report_audio_mb", str(2.5 * one / 1e6))
    assert len(audio(html)) == 2
    assert sum(len(src.partition(",")[2]) for src in audio(html)) <= 2.5 * one
    assert "2 in this page; 4 had no room" in section(html, "run").text
    # in turn: the worst utterance of each task before the second worst of any
    assert [len(section(html, f"task-{t}").find("audio")) for t in ("asr", "srwt", "ser", "sttc")] == [
        1,
        1,
        0,
        0,
    ]
    assert not audio(report(folder, "--report_audio_mb", "0"))


def test_report_tells_of_recordings_that_cannot_be_read(tmp_path):
    folder = make(tmp_path)
    (folder / "0.wav").unlink()
    (folder / "2.wav").write_bytes(b"no audio")
    html = report(folder)
    assert "could not be read: missing 4, unreadable 2" in section(html, "run").text
    assert "no such file" in section(html, "task-asr").text


def test_report_is_the_same_but_for_its_time(tmp_path, monkeypatch):
    folder = make(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    first = report(folder)
    assert first == report(folder)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    second = report(folder)
    differ = [(a, b) for a, b in zip(first.split("\n"), second.split("\n")) if a != b]
    assert len(differ) == 1 and "1970-01-02T00:00:00+00:00" in differ[0][1]


def test_report_goes_where_it_is_told(tmp_path, capsys):
    folder = make(tmp_path)
    report(
        folder, "--report", str(folder / "pages/mine.html"), "--output", str(folder / "decode/report.html")
    )
    assert (folder / "pages/mine.html").read_text().startswith('<!DOCTYPE html>\n<html lang="en">')
    assert "mine.html" in capsys.readouterr().out
    (folder / "decode/report.html").unlink()
    argv = ["--data", str(folder / "data.list"), "--decode_dir", str(folder / "decode"), "--resamples", "5"]
    main([*argv, "--no_report"])
    assert not (folder / "decode/report.html").exists()
    main([*argv, "--output", str(folder / "elsewhere/s.json")])
    assert (folder / "elsewhere/report.html").is_file()


def test_report_shows_the_config(tmp_path):
    folder = make(tmp_path / "exp")
    assert "No training config" in section(report(folder), "run").text
    (folder / "train.yaml").write_text("model: osum\n")
    assert "model: osum" in section(report(folder), "run").text
    (folder / "other.yaml").write_text("model: mine\n")
    html = report(folder, "--config", str(folder / "other.yaml"))
    assert "model: mine" in section(html, "run").text and "model: osum" not in html


def test_report_tells_what_decoding_set_aside(tmp_path):
    folder = make(tmp_path)
    lines = [{"key": "c", "cause": "truncated", "detail": ""}, {"key": "z", "cause": "missing", "detail": ""}]
    for task in ("asr", "ser"):
        (folder / f"decode/{task}/skipped.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert "missing 1, truncated 1." in section(report(folder), "scores").text


def test_report_has_the_comparison(tmp_path):
    folder = make(tmp_path)
    make(tmp_path / "b", answers={"asr": "a the cat sat\nb 你好\nc no\n"})
    html = report(folder, "--against", str(folder / "b/decode"))
    (table,) = [t for t in section(html, "scores").find("table") if "difference" in t.text]
    rows = [[cell.text for cell in row.find("td")] for row in table.find("tr")[1:]]
    assert ["asr", "mer", "50.00", "0.00", "50.00"] in [row[:5] for row in rows]
    assert str(folder / "b/decode") in section(html, "run").text


@pytest.mark.parametrize(
    ("flags", "files", "line"),
    [
        (["--config", "gone.yaml"], {}, "gone.yaml: no such file"),
        (
            [],
            {"decode/ser/llm_greedy/answers.jsonl": "{}\n[]\n"},
            "answers.jsonl:2: no line of answers.jsonl",
        ),
        ([], {"decode/ser/skipped.jsonl": "{}\n"}, "skipped.jsonl:1: malformed"),
    ],
)
def test_bad_input_of_the_report(tmp_path, flags, files, line):
    folder = make(tmp_path)
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(OsumError, match=line):
        report(folder, *flags)
    assert not (folder / "decode/report.html").exists()


@pytest.mark.parametrize(
    "flags", [["--report_worst", "-1"], ["--report_audio_mb", "nan"], ["--no_report", "--report", "x"]]
)
def test_bad_input_report_flags(tmp_path, flags):
    with pytest.raises(SystemExit):
        report(make(tmp_path), *flags)


def test_report_of_many_utterances_stays_small(tmp_path):
    refs = [{"key": f"u{n:05d}", "wav": "x.wav", "txt": "a b c", "speaker": f"s{n}"} for n in range(2000)]
    answers = {"asr": "".join(f"u{n:05d} a x c\n" for n in range(2000))}
    folder = make(tmp_path, refs[:0], answers)
    (folder / "data.list").write_text("".join(json.dumps(r) + "\n" for r in refs))
    html = report(folder, "--report_worst", "3")
    asr = section(html, "task-asr")
    assert len(asr.find("li", class_="example")) == 3
    assert "3 of 2000 with an error" in asr.text and "1980 more are not shown" in asr.text
    assert "durations are not in the data" in section(html, "data").text
    assert len(html) < 60_000


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
QUIET += ("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr")


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_report_browser_shows_the_page_without_a_complaint(folder, html, tmp_path):
    def shown(page: Path, width: int) -> tuple[str, Path]:
        picture = tmp_path / f"{page.stem}-{width}.png"
        command = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"]
        done = subprocess.run(
            [*command, f"--screenshot={picture}", page.absolute().as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        return done.stderr, picture

    for width in (1200, 390):
        log, picture = shown(folder / "decode/report.html", width)
        assert "CONSOLE" not in log
        assert picture.stat().st_size > 10_000
    # The browser would complain, were there anything to complain of.
    (tmp_path / "bad.html").write_text(
        html.replace("<main>", '<main><script src="https://example.org/x.js"></script>')
    )
    log, _ = shown(tmp_path / "bad.html", 1200)
    assert "CONSOLE" in log
