"""The Dockerfile and the systemd unit, as far as they can be looked at without Docker and without a system to start."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from wenet_osum.bin.serve import get_args

ROOT = Path(__file__).resolve().parents[1]
UNIT = ROOT / "examples/osum/osum-serve.service"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instruction(name: str) -> str:
    """The last line of the Dockerfile with this instruction, without it."""
    lines = re.findall(rf"^{name} ((?:.*\\\n)*.*)", DOCKERFILE, re.M)
    assert lines, f"no {name}"
    return str(lines[-1])


def test_the_image_copies_what_is_there_and_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.M) for name in line.split()}
    assert copied == kept and all((ROOT / name).exists() for name in copied)


def test_an_installed_package_has_the_page() -> None:
    assert '"serve/page/static/*"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert (ROOT / "wenet_osum/serve/page/static/index.html").exists()


def test_the_image_serves_as_nobody() -> None:
    assert instruction("USER") == "10001"
    assert json.loads(instruction("ENTRYPOINT")) == ["osum", "serve"]
    args = get_args(json.loads(instruction("CMD")))
    assert (args.host, args.port) == ("0.0.0.0", 8000)
    assert "http://127.0.0.1:8000/health" in instruction("HEALTHCHECK")


def test_the_unit_starts_osum_serve() -> None:
    command = shlex.split(re.findall("^ExecStart=(.+)", UNIT.read_text(), re.M)[0])
    assert command[:2] == ["/opt/osum/bin/osum", "serve"]
    assert get_args(command[2:]).host == "127.0.0.1"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    there = UNIT.read_text().replace("/opt/osum/bin/osum", "/bin/true")  # it must exist
    (tmp_path / UNIT.name).write_text(there)
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / UNIT.name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stderr == ""
