"""A headless Chromium and a server for it: fixtures, as a plugin of pytest (``pytest_plugins``)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_browser import CHROMIUM, DESKTOP, tone
from page_stand_in import StandIn, running, stand_in
from playwright.sync_api import Browser, Page, expect, sync_playwright


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
    """Opens a page in a browser of its own. At the end of the test: no console error but those ``expected``, and
    no request to anywhere else."""
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
