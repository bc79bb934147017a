"""What several tests of the page do with a headless Chromium; the fixtures are in ``page_fixtures``."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from playwright.sync_api import Page, expect

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NEEDS_CHROMIUM = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]

DESKTOP, PHONE, NARROW = (1280, 900), (390, 844), (360, 740)
TONE = 440.0  # Hz, of the microphone that Chromium plays
expect.set_options(timeout=20_000)  # ms: a busy machine


def tone(path: Path, seconds: float = 3.0, rate: int = 16000) -> Path:
    t = np.arange(int(seconds * rate)) / rate
    sf.write(path, 0.3 * np.sin(2 * np.pi * TONE * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 1.5 * t)), rate)
    return path


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
