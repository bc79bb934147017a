"""A real checkout of WeNet, named by ``WENET_DIR``; without it these tests are skipped, and say so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def wenet_dir() -> Path:
    folder = os.environ.get("WENET_DIR")
    if not folder:
        pytest.skip("WENET_DIR is not set: give a checkout of wenet-e2e/wenet")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def python(wenet_dir: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run this Python with our package and WeNet's checkout at hand; stops the test on a bad exit status
    unless ``fails`` is given."""

    def run(*argv: object, fails: bool = False, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        env["PYTHONPATH"] = f"{REPO}{os.pathsep}{env.get('PYTHONPATH', '')}"
        words = [sys.executable, *map(str, argv)]
        done = subprocess.run(words, capture_output=True, text=True, env=env, cwd=cwd, timeout=600)
        assert (done.returncode != 0) == fails, done.stderr[-3000:] + done.stdout[-1000:]
        return done

    return run
