"""What a run needs to go on exactly where it stopped, in one folder that is whole or not there.

``MODEL_DIR/states/step_00001200/``:

    model.pt       every weight that a checkpoint holds (checkpoint/weights.py), not averaged
    ema.pt         the averages of ``ema_decay``, when it is on
    optimizer.pt   moments of the optimizer, scale of fp16 (an engine that shards may have files of its own)
    state.json     epoch, batches of it that are done, step, schedule, what was set aside, health, config; sizes
                   of the files

Random numbers are not among it: those of a batch follow from (seed, epoch, number of the batch), see
``loop.py``. The schedule is a function of the step. So a state is small beside its weights, and the
same for every rank.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wenet_osum.checkpoint.weights import read_infos
from wenet_osum.errors import OsumError
from wenet_osum.fileio import atomic_write

FOLDER, FACTS = "states", "state.json"

# What may be another in the run that goes on; everything else would make it another run.
FREE = (
    *(
        "max_epoch",
        "log_interval",
        "save_interval",
        "state_interval",
        "keep_states",
        "accum_grad",
        "grad_clip",
    ),
    *(
        "dtype",
        "use_amp",
        "train_engine",
        "save_states",
        "model_dir",
        "health_conf",
        "cv_decode_conf",
        "cv_swap",
    ),
    "dataset_conf.max_bad_share",
)


def state_folder(model_dir: Path, step: int) -> Path:
    return model_dir / FOLDER / f"step_{step:08d}"


def write_state(folder: Path, parts: Path, facts: dict[str, Any], keep: int) -> None:
    """Give ``parts``, a folder with the files of a state, its facts and its final name; drop all but the
    last ``keep`` states. Called by one rank."""
    sizes = {p.relative_to(parts).as_posix(): p.stat().st_size for p in parts.rglob("*") if p.is_file()}
    with atomic_write(parts / FACTS) as f:
        json.dump({**facts, "files": sizes}, f, ensure_ascii=False)
    for path in parts.rglob("*"):  # on the disk before the name is
        sync(path)
    if folder.exists():
        remove(folder)
    os.replace(parts, folder)
    sync(folder.parent)
    for old in list(whole_states(folder.parent.parent))[keep:]:
        remove(old)


def remove(folder: Path) -> None:
    """Take a state's name away before its files, so that a kill leaves nothing that looks like one."""
    gone = folder.with_name(f".{folder.name}.gone.tmp")
    shutil.rmtree(gone, ignore_errors=True)
    os.replace(folder, gone)
    shutil.rmtree(gone)


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unfinished(model_dir: Path, step: int) -> Path:
    """Where the files of a state are put before it is one; what a killed run left there is removed."""
    base = model_dir / FOLDER
    base.mkdir(parents=True, exist_ok=True)
    for left in base.glob(".*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    parts = base / f".step_{step:08d}.tmp"
    parts.mkdir()
    return parts


def save_tensors(content: Any, path: Path) -> None:
    with atomic_write(path, "wb") as f:
        torch.save(content, f)


def all_states(model_dir: Path) -> list[Path]:
    """The folders named as states are, the newest first."""
    found = (model_dir / FOLDER).glob("step_*")
    return sorted((f for f in found if re.fullmatch(r"step_\d{8,}", f.name)), reverse=True)


def whole_states(model_dir: Path) -> Iterator[Path]:
    """The states of a run that are whole, the newest first; one that is not is told and passed over."""
    for folder in all_states(model_dir):
        try:
            sizes = read_facts(folder)["files"].items()
            whole = all((folder / name).stat().st_size == size for name, size in sizes)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if whole:
            yield folder
        else:
            logging.warning("%s: not whole, passed over", folder)


def drop_after(model_dir: Path, step: int) -> None:
    """Remove the states and checkpoints of later steps than the run stands at: of an earlier run in this folder, or
    of one that is now gone back on. Left there, they would be taken for this run's."""
    late = [f for f in all_states(model_dir) if int(f.name.removeprefix("step_")) > step]
    for folder in late:
        remove(folder)
    for infos in model_dir.glob("*.yaml"):
        ours = re.fullmatch(r"(epoch|step)_\d+", infos.stem)
        if ours and read_infos(infos)["step"] + infos.stem.startswith("step_") > step:
            late.append(infos)
            infos.unlink()
            infos.with_suffix(".pt").unlink(missing_ok=True)
    if late:
        names = ", ".join(sorted(f.stem for f in late))
        logging.info("%s: of a run that is begun anew or gone back on, removed: %s", model_dir, names)


def read_facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / FACTS).read_text(encoding="utf-8"))


@contextlib.contextmanager
def only_run(model_dir: Path) -> Iterator[None]:
    """No other run trains in this folder for as long.

    Raises:
        OsumError: one does.
    """
    model_dir.mkdir(parents=True, exist_ok=True)
    with open(model_dir / ".lock", "a") as f:
        try:
            # Of this process alone: data workers, which may live a moment longer, do not inherit it.
            fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OsumError(str(model_dir), "another run trains here", "wait for it, or stop it") from None
        except OSError:  # a file system without locks
            logging.info("%s: cannot be locked against a second run", model_dir)
        yield


def check_unstated(resume: str | None, model_dir: Path) -> None:
    """Raises:
    OsumError: nothing was said of the states that are there, and a run from the start would remove them.
    """
    if resume is None and (found := all_states(model_dir)):
        what = f"has the states of a run (the newest {found[0].name})"
        raise OsumError(str(model_dir), what, "give --resume auto to go on, or --resume none to begin anew")


def find_state(resume: str | None, model_dir: Path) -> Path | None:
    """The state that ``--resume`` means: ``auto`` is the newest whole one, if there is any; else a folder.

    Raises:
        OsumError: the folder named is no whole state.
    """
    if resume in (None, "none"):
        return None
    if resume == "auto":
        found = next(whole_states(model_dir), None)
        logging.info("--resume auto: %s", found or f"no state in {model_dir / FOLDER}, so from the start")
        return found
    folder = Path(str(resume))
    if folder not in list(whole_states(folder.parent.parent)):
        raise OsumError(f"--resume {resume}", "is no whole state", f"name a folder of {FOLDER}/, or auto")
    return folder


def index_mark(index: Any) -> str:
    """A mark of what the plan of an epoch follows from: the utterances' lengths, tasks, answers, corpora, blocks."""
    # Sets of tasks by their names: their numbers depend on which list was looked at first.
    code = np.array([zlib.crc32(repr(names).encode()) for names in index.tasks.sets], np.uint32)
    mark = zlib.crc32(repr(index.weights).encode())
    for column in (index.frames, code[index.tasks.number], index.answers, index.corpus, index.block):
        mark = zlib.crc32(column.tobytes(), mark)
    return f"{len(index)}:{mark:08x}"


def check_same_run(facts: dict[str, Any], configs: dict[str, Any], mark: str, where: Path) -> None:
    """Raises:
    OsumError: the state is of another config or another list; names the first key that differs.
    """
    theirs, ours = flat(facts["configs"]), flat(json.loads(json.dumps(configs)))
    for key in sorted({*theirs, *ours}):
        head = key.split(".")[0]
        # Where a file lies may change, and what is in a tokenizer shows in its size and in the answers' lengths.
        free = key in FREE or head in FREE or key.endswith("_path")
        if theirs.get(key) != ours.get(key) and not free:
            what = f"was saved with {key} {theirs.get(key)!r}, this run has {ours.get(key)!r}"
            raise OsumError(f"{where}", what, "make them agree, or begin anew with --resume none")
    if facts["index"] != mark:
        what = f"was saved with other training utterances ({facts['index']}, now {mark})"
        raise OsumError(f"{where}", what, "train on the same lists, or begin anew with --resume none")


def flat(section: dict[str, Any], at: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    out: dict[str, Any] = {}
    for key, value in section.items():
        out.update(flat(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value})
    return out


def load_tensors(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)
