"""What the figures come from: data, config, commit, versions, time."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import wenet_osum
from wenet_osum.errors import OsumError
from wenet_osum.fileio import read_lines

_PACKAGES = ("torch", "transformers", "numpy", "soundfile", "jiwer", "sacrebleu")
_LONGEST_CONFIG = 100_000  # characters shown


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run.

    Attributes:
        pairs: name and value of each fact but the time, in order.
        time: when the page is written (UTC, ISO 8601). All else is the same whenever that is.
        config_path, config: the training's config and its text; empty where there is none.
    """

    pairs: list[tuple[str, str]]
    time: str
    config_path: str = ""
    config: str = ""


def gather_facts(
    pairs: Sequence[tuple[str, str]], decode_dir: str | Path, config: str | Path | None = None
) -> RunFacts:
    """Facts of a run.

    Args:
        pairs: what the caller knows: data, mode, normaliser ...
        decode_dir: ``train.yaml`` is looked for in it and in the folder above, where ``run.sh`` has it.
        config: its path, given.

    Raises:
        OsumError: the config cannot be read.
    """
    code = Path(wenet_osum.__file__).parent
    pairs = [
        *pairs,
        (
            "code",
            " ".join(part for part in (f"wenet_osum {wenet_osum.__version__}", commit_of(code)) if part),
        ),
        ("versions", ", ".join([f"Python {platform.python_version()}", *_versions()])),
    ]
    beside = (Path(decode_dir) / "train.yaml", Path(decode_dir).parent / "train.yaml")
    path = Path(config) if config else next((p for p in beside if p.is_file()), None)
    if path is None:
        return RunFacts(pairs, _now())
    text = "".join(f"{line}\n" for _, line in read_lines(path))
    if len(text) > _LONGEST_CONFIG:
        text = f"{text[:_LONGEST_CONFIG]}\n... and {len(text) - _LONGEST_CONFIG} characters more\n"
    return RunFacts(pairs, _now(), str(path), text)


def commit_of(folder: Path) -> str:
    """``commit abc123, with changes``; empty where git does not keep ``folder`` or is not there."""
    try:
        # A package that lies in somebody else's checkout (a .venv in it, say) is not of its commit.
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"commit {commit}, with changes" if changes else f"commit {commit}"


def set_aside(folders: Iterable[Path]) -> Counter[str]:
    """Utterances that decoding has set aside, cause -> how many, from the lists in the tasks' folders.

    Raises:
        OsumError: a line of such a list is malformed.
    """
    causes: dict[str, str] = {}
    for folder in folders:
        for name in ("skipped.jsonl", "decode.skipped.jsonl"):
            if not (folder / name).is_file():
                continue
            for n, line in read_lines(folder / name):
                try:
                    row = json.loads(line)
                    causes[str(row["key"])] = str(row["cause"])
                except (ValueError, KeyError, TypeError):
                    raise OsumError(f"{folder / name}:{n}", "malformed", "decode again") from None
    return Counter(causes.values())


def _git(folder: Path, *command: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *command], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()


def _versions() -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # put on the path by hand
            continue
    return found


def _now() -> str:
    """The time, or SOURCE_DATE_EPOCH (reproducible-builds.org) where that is set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = float(epoch) if epoch.isdigit() else datetime.datetime.now().timestamp()
    return datetime.datetime.fromtimestamp(now, datetime.timezone.utc).isoformat(timespec="seconds")
