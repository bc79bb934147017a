"""The page in a real Chromium: uploads, the microphone, examples, feedback, both languages, the keyboard, phones.

Runs where a ``chromium`` is (Debian's package of that name). OSUM_PAGE_SHOTS=DIR keeps the screenshots.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from page_stand_in import TEXT, WORDS, StandIn, feedback_of, heard, running, stand_in
from playwright.sync_api import Browser, Page, expect, sync_playwright

from wenet_osum.decode.formats import Transcript, as_json, srt, vtt
from wenet_osum.decode.join import Segment
from wenet_osum.serve.errors import Busy, TimedOut, TooLarge, WorkerLost
from wenet_osum.serve.service import Question
from wenet_osum.serve.settings import Limits
from wenet_osum.tasks import load_tasks

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]

DESKTOP, PHONE, NARROW = (1280, 900), (390, 844), (360, 740)
TONE = 440.0  # Hz, of the microphone that Chromium plays
expect.set_options(timeout=20_000)  # ms: a busy machine
EIGHT = ["asr", "srwt", "ved", "ser", "ssr", "sgc", "sap", "sttc"]


def tone(path: Path, seconds: float = 3.0, rate: int = 16000) -> Path:
    t = np.arange(int(seconds * rate)) / rate
    sf.write(path, 0.3 * np.sin(2 * np.pi * TONE * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 1.5 * t)), rate)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "examples").mkdir()
    for name in ("a_happy_dog", "小狗跑得快"):
        tone(folder / "examples" / f"{name}.wav")
    tone(folder / "microphone.wav", 30, 48000)
    return folder


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Browser]:
    flags = [
        *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
        f"--use-file-for-fake-audio-capture={folder / 'microphone.wav'}",
        "--autoplay-policy=no-user-gesture-required",
    ]
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def server(folder: Path, tmp_path: Path) -> Iterator[StandIn]:
    with running(stand_in(examples=folder / "examples", feedback=tmp_path / "feedback.jsonl")) as server:
        yield server


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    kept = Path(os.environ.get("OSUM_PAGE_SHOTS") or tmp_path / "shots")
    kept.mkdir(parents=True, exist_ok=True)
    return kept


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page in a browser of its own. At the end of the test: no console error that it did not expect, and
    no request to anywhere else."""
    with visiting(browser) as visit:
        yield visit


@contextmanager
def visiting(browser: Browser) -> Iterator[Callable[..., Page]]:
    contexts, errors, outside = [], [], []

    def visit(url: str, size: tuple[int, int] = DESKTOP, expected: str = "^$", **options: Any) -> Page:
        width, height = size
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()

        def console(message: Any) -> None:
            if message.type in ("error", "warning") and not re.search(expected, message.text):
                errors.append(message.text)

        def request(request: Any) -> None:
            if not request.url.startswith((url, "blob:", "data:")):
                outside.append(request.url)

        page.on("console", console)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.on("request", request)
        page.goto(url)
        expect(page.locator("#tasks input").first).to_be_attached()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert errors == [] and outside == []


def upload(page: Page, path: Path) -> None:
    page.set_input_files("#file", path)


def answered(page: Page, count: int = 8) -> None:
    expect(page.locator("#cards article")).to_have_count(count)
    expect(page.locator("#cards")).to_be_visible()


def fits(page: Page) -> None:
    """Nothing is wider than the screen, and nothing that is clicked is too small for a finger."""
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    small = """[...document.querySelectorAll('button, .button, select, .chip')]
        .filter((e) => e.offsetParent && !e.matches('.word') && e.getBoundingClientRect().height < 28)
        .map((e) => e.textContent)"""
    assert page.evaluate(small) == []


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


def test_the_microphone_sends_16_khz_mono(server: StandIn, visit: Any) -> None:
    page = visit(server.url, locale="en-US", permissions=["microphone"])
    page.get_by_role("button", name="Record").click()
    expect(page.locator("#clock")).to_have_text(re.compile("^0:0[2-9]"))
    page.get_by_role("button", name="Stop and listen").click()
    answered(page)
    wave, rate = sf.read(io.BytesIO(server.asked[0][0]))
    info = sf.info(io.BytesIO(server.asked[0][0]))
    assert (rate, wave.ndim, info.subtype) == (16000, 1, "PCM_16") and 1.5 < len(wave) / rate < 20
    loudest = np.fft.rfftfreq(len(wave), 1 / rate)[np.abs(np.fft.rfft(wave)).argmax()]
    assert abs(loudest - TONE) < 3 and np.abs(wave).max() > 0.05
    expect(page.locator("#name")).to_have_text("Recording")
    assert page.evaluate("navigator.mediaDevices.enumerateDevices().then(d => d.length)") > 0
    expect(page.get_by_role("button", name="Record")).to_have_attribute("aria-pressed", "false")


def test_a_recording_ends_where_the_server_takes_no_more(visit: Any) -> None:
    settings = stand_in()
    for limits in (Limits(max_seconds=1.5), Limits(max_bytes=44 + 48000)):
        settings.limits = limits
        with running(settings) as server:
            page = visit(server.url, locale="en-US", permissions=["microphone"])
            page.get_by_role("button", name="Record").click()
            answered(page)
            assert 1.3 < sf.info(io.BytesIO(server.asked[-1][0])).duration <= 1.5


def test_a_refused_microphone_is_told(server: StandIn, visit: Any) -> None:
    page = visit(server.url, locale="en-US")
    refuse = (
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))"
    )
    page.evaluate(f"() => {{ {refuse} }}")
    page.get_by_role("button", name="Record").click()
    expect(page.locator("#alert")).to_contain_text("may not use the microphone")


def test_an_example_and_feedback(server: StandIn, visit: Any, tmp_path: Path) -> None:
    page = visit(server.url, locale="en-US")
    page.get_by_role("button", name="a happy dog").click()
    answered(page)
    page.locator('[data-task="sgc"]').get_by_role("button", name="Right").click()
    expect(page.locator('[data-task="sgc"] .thanks')).to_be_visible()
    emotion = page.locator('[data-task="ser"]')
    emotion.get_by_role("button", name="Wrong").click()
    emotion.get_by_role("combobox", name="Emotion").select_option("happy")
    emotion.get_by_role("button", name="Send").click()
    expect(emotion.locator(".thanks")).to_be_visible()
    transcript = page.locator('[data-task="asr"]')
    transcript.get_by_role("button", name="Wrong").click()
    transcript.get_by_label("What would be right?").fill("the small dog <b>ran</b>")
    transcript.get_by_role("button", name="Send").click()
    expect(transcript.locator(".thanks")).to_be_visible()
    rows = feedback_of(tmp_path / "feedback.jsonl")
    assert [(r["task"], r["verdict"], r["file"]) for r in rows] == [
        ("sgc", "right", "a_happy_dog.wav"),
        ("ser", "wrong", "a_happy_dog.wav"),
        ("asr", "wrong", "a_happy_dog.wav"),
    ]
    assert rows[1]["corrected"]["labels"] == {"emotion": "happy"}
    assert rows[1]["answer"]["labels"] == {"emotion": "sad"}
    assert rows[2]["corrected"]["text"] == "the small dog <b>ran</b>"
    page.locator('[data-language="zh"]').click()  # what was said stays said
    expect(page.locator(".thanks")).to_have_count(3)


def test_tasks_and_a_question_of_ones_own(server: StandIn, visit: Any, folder: Path) -> None:
    page = visit(server.url, locale="en-US")
    page.get_by_role("button", name="None").click()
    upload(page, tone(folder / "talk.wav"))
    expect(page.locator("#alert")).to_have_text("Choose at least one task.")
    page.get_by_text("More tasks").click()
    page.locator(".chip", has_text="Age and gender").first.click()
    page.get_by_text("In your own words").click()
    page.get_by_label("Question").fill("How old, and who?")
    page.get_by_role("button", name="Ask").click()
    answered(page, 1)
    assert [q for _, q in server.asked] == [Question(("age_gender",), "How old, and who?")]
    expect(page.locator("h4")).to_have_text(["Age", "Gender"])


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


def test_errors_in_words(server: StandIn, visit: Any, folder: Path) -> None:
    page = visit(server.url, locale="en-US", expected="status of (400|413|429|500|503|504)")
    alert = page.locator("#alert")
    notes = folder / "notes.wav"
    notes.write_text("no audio")
    upload(page, notes)
    expect(alert).to_contain_text("cannot be read as audio")
    expect(alert).to_contain_text("libsndfile does not know it")
    talk = tone(folder / "talk.wav")
    for error, words in (
        (TooLarge("longer than 7200 s"), "too long: at most 2 h"),
        (TooLarge("26 MiB, at most 25"), "too large: at most 25 MB"),
        (WorkerLost("is gone"), "not ready"),
        (TimedOut(600), "took too long"),
        (RuntimeError("a bug"), "went wrong in the server"),
    ):
        server.errors.append(error)
        upload(page, talk)
        expect(alert).to_contain_text(words)
        expect(page.locator("#cards")).to_be_hidden()
    page.get_by_role("button", name="Try again").click()
    answered(page)
    expect(alert).to_be_hidden()


def test_a_file_that_is_too_large_is_not_sent(server: StandIn, visit: Any, folder: Path) -> None:
    page = visit(server.url, locale="en-US")
    large = folder / "large.wav"
    with open(large, "wb") as f:
        f.truncate(26 << 20)
    upload(page, large)
    expect(page.locator("#alert")).to_contain_text("too large: at most 25 MB")
    assert server.asked == []


def test_a_busy_server_is_asked_again(server: StandIn, visit: Any, folder: Path) -> None:
    page = visit(server.url, locale="en-US", expected="status of 429")
    server.errors.append(Busy(2))
    upload(page, tone(folder / "talk.wav"))
    expect(page.locator("#status")).to_contain_text("busy")
    expect(page.locator("#tick")).to_have_text(re.compile("^[12] s$"))
    answered(page)
    assert len(server.asked) == 2


def test_an_api_key_is_asked_for_and_sent(visit: Any, folder: Path, tmp_path: Path) -> None:
    settings = {"examples": folder / "examples", "feedback": tmp_path / "feedback.jsonl"}
    with running(stand_in(keys=("secret",), **settings)) as server:
        page = visit(server.url, locale="en-US", expected="status of 401")
        expect(page.get_by_label("API key")).to_be_visible()
        upload(page, tone(folder / "talk.wav"))
        expect(page.locator("#alert")).to_contain_text("valid API key")
        expect(page.get_by_label("API key")).to_be_focused()
        page.keyboard.type("secret")
        page.keyboard.press("Enter")
        answered(page)
        page.locator('[data-task="sgc"]').get_by_role("button", name="Right").click()
        expect(page.locator(".thanks")).to_be_visible()
        page.reload()  # remembered as long as the window is open
        page.get_by_role("button", name="a happy dog").click()
        answered(page)
    assert len(server.asked) == 2 and len(feedback_of(tmp_path / "feedback.jsonl")) == 1


def test_below_a_path_of_a_proxy(visit: Any, folder: Path, tmp_path: Path) -> None:
    settings = {"examples": folder / "examples", "feedback": tmp_path / "feedback.jsonl"}
    with running(stand_in(**settings), "/osum") as server:
        page = visit(server.url, locale="en-US", permissions=["microphone"])
        page.get_by_role("button", name="a happy dog").click()
        answered(page)
        page.locator('[data-task="sgc"]').get_by_role("button", name="Right").click()
        expect(page.locator(".thanks")).to_be_visible()
        page.get_by_role("button", name="Record").click()
        expect(page.locator("#clock")).to_have_text(re.compile("^0:0[1-9]"))
        page.get_by_role("button", name="Stop and listen").click()
        expect(page.locator("#name")).to_have_text("Recording")
        answered(page)
        page.get_by_role("link", name="API").click()
        expect(page.locator("h1")).to_contain_text("osum")


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


def test_a_format_that_the_browser_cannot_play_is_answered(server: StandIn, visit: Any, folder: Path) -> None:
    sf.write(folder / "talk.caf", np.zeros(16000), 16000)
    page = visit(server.url, locale="en-US")
    upload(page, folder / "talk.caf")
    answered(page)
    expect(page.locator("#mute")).to_be_visible()
    expect(page.locator("#play")).to_be_disabled()


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
