"""What scoring reads: decoded text as WeNet writes it, and the references."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from wenet_osum.dataset.kaldi import read_data_dir
from wenet_osum.dataset.lists import read_raw_list
from wenet_osum.dataset.tables import read_table, stop
from wenet_osum.errors import OsumError
from wenet_osum.fileio import read_lines
from wenet_osum.tasks import TaskTable


def read_hypotheses(path: str | Path) -> dict[str, str]:
    """Read a decoder's ``text``: ``key answer`` a line, blank or tab between; key -> answer.

    A line with a key alone is an empty answer. Blank lines are passed over.

    Raises:
        OsumError: no such file, a line that is not UTF-8, or a key twice.
    """
    hyps: dict[str, str] = {}
    for n, line in read_lines(path):
        if not line.strip():
            continue
        # Only blank and tab part them: an id may hold other white space, such as U+3000.
        key, *rest = re.split("[ \t]+", line.strip(" \t"), maxsplit=1)
        if key in hyps:
            raise OsumError(f"{path}:{n}", f"a second hypothesis for {key}", "keep one, or decode again")
        hyps[key] = rest[0].strip() if rest else ""
    return hyps


def find_decoded(decode_dir: str | Path, mode: str, tasks: TaskTable) -> dict[str, Path]:
    """Find the decoded tasks, ``DECODE_DIR/TASK/MODE/text``; task name -> file.

    Raises:
        OsumError: there is no such folder, nothing was decoded by that mode, or a folder that was
            is named after no task of the table.
    """
    root = Path(decode_dir)
    if not root.is_dir():
        raise OsumError(str(root), "no such folder", "decode first, or check the path")
    found: dict[str, Path] = {}
    for path in sorted(root.glob(f"*/{mode}/text")):
        folder = path.parent.parent
        if folder.name not in tasks:
            raise OsumError(
                str(folder),
                f"no task is named {folder.name!r}",
                "give the file that defines it with --task_conf",
            )
        found[folder.name] = path
    if not found:
        modes = sorted({path.parent.name for path in root.glob("*/*/text")})
        mend = f"it has {', '.join(modes)}: give one of them with --mode" if modes else "decode first"
        raise OsumError(str(root), f"no TASK/{mode}/text in it", mend)
    return found


def read_references(path: str | Path, tasks: TaskTable) -> list[dict[str, Any]]:
    """Sample dicts of a Kaldi data dir or of a raw list.

    Of a dir's ``utt2question`` and ``utt2description``, which scoring alone reads, a sample gets ``question`` and
    ``description``: what a judge of replies is shown (AIR-Bench's questions are written, not spoken).

    Raises:
        OsumError: neither is there, it is empty, or a line of it is bad.
    """
    path = Path(path)
    if path.is_dir():
        samples = read_data_dir(path, tasks)
        for field in ("question", "description"):
            if (file := path / f"utt2{field}").is_file():
                table = read_table(file, stop)
                for sample in samples:
                    if sample["key"] in table:
                        sample[field] = table[sample["key"]].value
    elif path.is_file():
        samples = []
        for where, sample in read_raw_list(path):
            try:
                tasks.offered(sample)
            except OsumError as e:
                raise OsumError(where, e.what, e.mend) from None
            samples.append(sample)
    else:
        raise OsumError(str(path), "no such data dir or list", "check --data")
    if not samples:
        raise OsumError(str(path), "no utterance in it", "check --data")
    return samples
