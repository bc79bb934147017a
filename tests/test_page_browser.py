"""What the page shows in a real Chromium: answers, words that follow the playback, both languages, the keyboard, phones.

Runs where a ``chromium`` is (Debian's package of that name). OSUM_PAGE_SHOTS=DIR keeps the screenshots.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from page_browser import DESKTOP, NARROW, NEEDS_CHROMIUM, PHONE, answered, fits, tone, upload
from page_stand_in import TEXT, WORDS, StandIn, feedback_of, heard
from playwright.sync_api import expect

from wenet_osum.decode.formats import Transcript, as_json, srt, vtt
from wenet_osum.decode.join import Segment
from wenet_osum.serve.service import Question
from wenet_osum.tasks import load_tasks

pytest_plugins = ["page_fixtures"]
pytestmark = NEEDS_CHROMIUM

EIGHT = ["asr", "srwt", "ved", "ser", "ssr", "sgc", "sap", "sttc"]


def test_a_file_is_asked_all_eight_tasks(server: StandIn, visit: Any, folder: Path) -> None:
    page = visit(server.url, locale="en-US")
    upload(page, tone(folder / "talk.wav"))
    answered(page)
    assert server.asked[0][1] == Question(tuple(EIGHT))
    assert sf.info(io.BytesIO(server.asked[0][0])).duration == 3.0
    expect(page.locator('[data-task="asr"] .said')).to_have_text(TEXT)
    expect(page.locator('[data-task="srwt"] .words')).to_have_text(TEXT)
    emotion = page.locator('[data-task="ser"]')
    expect(emotion.locator(".value")).to_have_text("sad94 %")
    expect(emotion.locator(".bar").first).to_have_text("sad94 %")
    wide = "e => e.getBoundingClientRect().width / e.parentElement.getBoundingClientRect().width"
    assert abs(emotion.locator(".fill").first.evaluate(wide) - 0.94) < 0.01
    expect(emotion.locator("details .bar")).to_have_count(4)
    expect(page.locator('[data-task="sttc"] .replied')).to_contain_text("the dog eats meat")
    expect(page.locator('[data-task="sap"] .problems')).to_contain_text("no more room")
    expect(page.locator("#status")).to_contain_text("8 answers in")


def test_words_follow_the_playback_and_seek(server: StandIn, visit: Any, folder: Path) -> None:
    page = visit(server.url, locale="en-US")
    upload(page, tone(folder / "talk.wav"))
    answered(page)
    words = page.locator(".word")
    expect(page.locator("#time")).to_have_text("0:00.0 / 0:03.0")
    page.locator("#wave").focus()
    for _ in range(18):  # 0.1 s each
        page.keyboard.press("ArrowRight")
    expect(page.locator(".word.now")).to_have_count(0)  # a pause between two words
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".word.now")).to_have_text("runs")
    watch = """() => { window.seen = []; const audio = document.querySelector('audio');
        new MutationObserver(() => { const now = document.querySelector('.word.now');
            if (now) seen.push([now.textContent, audio.currentTime]); })
        .observe(document.querySelector('.words'), {attributes: true, subtree: true, attributeFilter: ['class']}); }"""
    page.keyboard.press("Home")
    page.evaluate(watch)
    page.locator("#play").click()
    expect(page.locator("#time")).to_have_text("0:03.0 / 0:03.0")
    expect(page.locator("#play")).to_have_attribute("aria-label", "Play")
    seen = list(dict(page.evaluate("seen")).items())
    assert [word for word, _ in seen] == [w.word for w in WORDS if w.word in dict(seen)] and len(seen) > 3
    times = {w.word: (w.start, w.end) for w in WORDS}
    assert all(times[word][0] <= at < times[word][1] + 0.3 for word, at in seen)  # 0.3: a busy machine
    words.nth(4).click()
    expect(page.locator("#time")).to_have_text(re.compile("^0:02.[34]"))
    expect(page.locator("#play")).to_have_attribute("aria-label", "Play")  # it stops behind the word
    page.locator("#wave").click(position={"x": 1, "y": 20})
    expect(page.locator("#time")).to_have_text("0:00.0 / 0:03.0")


def test_the_waveform_shows_the_recording(server: StandIn, visit: Any, folder: Path) -> None:
    wave = np.zeros(48000)
    wave[24000:] = 0.5 * np.sin(np.arange(24000) / 5)  # silence, then sound
    sf.write(folder / "half.wav", wave, 16000)
    page = visit(server.url)
    upload(page, folder / "half.wav")
    answered(page)
    inked = """canvas => { const {width, height} = canvas, pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
        const half = [0, 0]; for (let i = 0; i < width * height; i++) half[2 * (i % width) < width ? 0 : 1] += pixels[4 * i + 3] > 0;
        return half; }"""
    page.wait_for_timeout(200)
    left, right = page.locator("#wave canvas").evaluate(inked)
    assert right > 8 * left > 0


def test_both_languages_and_the_choice_is_kept(server: StandIn, visit: Any, folder: Path) -> None:
    page = visit(server.url, locale="zh-CN")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.get_by_role("button", name="录音")).to_be_visible()
    upload(page, tone(folder / "talk.wav"))
    answered(page)
    expect(page.locator('[data-task="ser"] .value')).to_have_text("悲伤94 %")
    page.get_by_role("button", name="English").click()
    expect(page.locator('[data-task="ser"] .value')).to_have_text("sad94 %")
    assert len(server.asked) == 1  # the answers stay
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_every_word_has_both_languages(server: StandIn, visit: Any) -> None:
    page = visit(server.url, locale="en-US")
    names = {
        "task": list(load_tasks()),
        "field": list(load_tasks().fields),
        "value": [v for f in load_tasks().fields.values() for v in f.values],
    }
    told = """async (names) => { const s = await import('./page/static/strings.js'), found = {};
        for (const language of ['zh', 'en']) { s.translate(language);
            found[language] = Object.fromEntries(Object.entries(names).map(([kind, of]) => [kind, of.map(s[kind + 'Name'])])); }
        return found; }"""
    found = page.evaluate(told, names)
    han = re.compile("[\u4e00-\u9fff]")
    assert all(han.search(word) for words in found["zh"].values() for word in words), found["zh"]
    assert not any(han.search(word) for words in found["en"].values() for word in words), found["en"]
    keys = """async () => { const text = await (await fetch('page/static/strings.js')).text();
        return ['en', 'zh'].map((l) => text.split(`\\n  ${l}: {`)[1].split('\\n  },')[0].match(/^ +\\w+(?=:)/gm)); }"""
    english, chinese = page.evaluate(keys)
    assert english == chinese and len(english) > 60


def test_the_keyboard_alone(server: StandIn, visit: Any, tmp_path: Path) -> None:
    page = visit(server.url, locale="en-US")
    seen = """() => { const e = document.activeElement, visible = [e, e.nextElementSibling, e.parentElement?.querySelector('.button')]
        .some((x) => x && getComputedStyle(x).outlineStyle === 'solid' && parseFloat(getComputedStyle(x).outlineWidth) >= 2);
        const named = e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent;
        return [visible, named.trim(), e.tagName, e.id || e.className]; }"""

    def tab_to(wanted: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            visible, named, tag, what = page.evaluate(seen)
            if tag != "BODY":
                assert visible and named, f"no focus or no name to see on {tag} {what}"
            if re.search(wanted, named):
                return
        raise AssertionError(f"Tab never comes to {wanted}")

    tab_to("^中文$")
    tab_to("^Choose a file$")
    tab_to("^a happy dog$")
    page.keyboard.press("Enter")
    answered(page)
    tab_to("^Emotion$")  # a task
    page.keyboard.press("Space")
    tab_to("^Ask again$")
    page.keyboard.press("Enter")
    answered(page, 7)
    tab_to("^Play$")
    tab_to("^Position")
    page.keyboard.press("ArrowRight")
    tab_to("^the, 0:00.20$")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#time")).to_have_text(re.compile("^0:0(0.9|1.[0-3])"))
    page.keyboard.press("End")
    expect(page.locator(":focus")).to_have_text("快")
    tab_to("Wrong")
    page.keyboard.press("Enter")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("dog")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".thanks")).to_be_focused()
    assert feedback_of(tmp_path / "feedback.jsonl")[0]["corrected"] == {"text": "dog", "labels": {}}


def test_what_the_model_says_is_text_and_not_markup(
    server: StandIn, visit: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = "<img src=x onerror=alert(1)>"

    def evil(name: str, duration: float) -> Any:
        found = heard(name, duration)
        found.answer.text, found.answer.problems = bad, [bad]
        return found

    monkeypatch.setattr("page_stand_in.heard", evil)
    page = visit(server.url)
    upload(page, tone(folder / f"{bad.replace('/', '')}.wav"))
    answered(page)
    expect(page.locator('[data-task="asr"] .said')).to_have_text(bad)
    assert page.locator("main img").count() == 0


def test_subtitles_are_those_of_the_command(server: StandIn, visit: Any) -> None:
    page = visit(server.url)
    long = heard("asr", 200.0)
    long.segments = [
        Segment(
            0.0, 31.5, "here is a sentence that is too long for one row of a screen --> & <more> of it", {}
        ),
        Segment(31.2, 60.0, "然后是一句很长的中文，长到一行放不下，所以要分成两行来显示给大家看", {}),
        Segment(100.0, 100.0, "none", {}),
    ]
    timed = heard("srwt", 200.0)
    timed.answer.words = [
        *(w._replace(start=w.start + n, end=w.end + n) for n in (0, 2.5, 4000) for w in WORDS),
        WORDS[0]._replace(start=4002.5, end=4002.55, word=" A  B "),
    ]
    for tasks in ({"asr": long}, {"asr": long, "srwt": timed}, {}):
        done = Transcript("a.wav", "a", 200.0, tasks)
        write = """async (answer) => { const s = await import('./page/static/save.js');
            return [s.asSrt(answer), s.asVtt(answer)]; }"""
        found = page.evaluate(write, json.loads(as_json(done)))
        assert found == [srt(done), vtt(done)]


def test_copied_and_saved(server: StandIn, visit: Any, folder: Path) -> None:
    page = visit(server.url, locale="en-US", permissions=["clipboard-read", "clipboard-write"])
    upload(page, tone(folder / "talk.wav"))
    answered(page)
    page.get_by_role("button", name="Copy text").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"{TEXT}\n") and "Emotion: sad (94 %)" in copied
    for suffix, start in (("TXT", TEXT), ("SRT", "1\n00:00:00,200"), ("VTT", "WEBVTT"), ("JSON", '{"file"')):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=suffix, exact=True).click()
        assert waiting.value.suggested_filename == f"talk.{suffix.lower()}"
        assert Path(waiting.value.path()).read_text(encoding="utf-8").startswith(start)


@pytest.mark.parametrize(
    ("locale", "size", "scheme"),
    [
        ("en-US", DESKTOP, "light"),
        ("zh-CN", DESKTOP, "dark"),
        ("en-US", PHONE, "dark"),
        ("zh-CN", PHONE, "light"),
        ("en-US", NARROW, "light"),
    ],
    ids=["en-desktop-light", "zh-desktop-dark", "en-phone-dark", "zh-phone-light", "en-narrow-light"],
)
def test_it_fits(
    server: StandIn, visit: Any, shots: Path, folder: Path, locale: str, size: tuple[int, int], scheme: str
) -> None:
    page = visit(server.url, size, locale=locale, color_scheme=scheme, reduced_motion="reduce")
    name = f"{locale[:2]}-{size[0]}-{scheme}"
    fits(page)
    page.screenshot(path=shots / f"{name}-empty.png", full_page=True)
    upload(page, tone(folder / "talk.wav"))
    answered(page)
    page.locator("#wave").focus()
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    page.locator('[data-task="ser"]').get_by_role("button").last.click()
    fits(page)
    page.screenshot(path=shots / f"{name}.png", full_page=True)
    moving = "getComputedStyle(document.querySelector('.record .dot')).animationName"
    assert page.evaluate(moving) == "none"
