"""What goes into the page in a real Chromium: the microphone, examples, questions, keys, feedback; and errors in words."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from page_browser import NEEDS_CHROMIUM, TONE, answered, tone, upload
from page_stand_in import StandIn, feedback_of, running, stand_in
from playwright.sync_api import expect

from wenet_osum.serve.errors import Busy, TimedOut, TooLarge, WorkerLost
from wenet_osum.serve.service import Question
from wenet_osum.serve.settings import Limits

pytest_plugins = ["page_fixtures"]
pytestmark = NEEDS_CHROMIUM


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


def test_a_format_that_the_browser_cannot_play_is_answered(server: StandIn, visit: Any, folder: Path) -> None:
    sf.write(folder / "talk.caf", np.zeros(16000), 16000)
    page = visit(server.url, locale="en-US")
    upload(page, folder / "talk.caf")
    answered(page)
    expect(page.locator("#mute")).to_be_visible()
    expect(page.locator("#play")).to_be_disabled()
