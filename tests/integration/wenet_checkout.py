"""The WeNet checkout that ``WENET_DIR`` names, and how its programs are run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WENET = Path(os.environ.get("WENET_DIR") or "/no/WENET_DIR")
needs_wenet = pytest.mark.skipif(
    "WENET_DIR" not in os.environ, reason="WENET_DIR is unset: no WeNet checkout to run against"
)


def run_wenet(script: str, *args: object, cwd: Path, mended: bool = False) -> str:
    """Run a script of the checkout (or any other file) as it stands, or ``mended`` under our wrapper.

    Returns:
        its stdout; a script that fails, fails the test.
    """
    wrapper = ["-m", "wenet_osum.wenet"] if mended else []
    command = [sys.executable, *wrapper, str(WENET / script), *map(str, args)]
    paths = [str(ROOT), str(WENET), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout
