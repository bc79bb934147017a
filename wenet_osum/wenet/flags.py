"""The flags of WeNet's programs that it reads without looking, looked at before it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wenet_osum.config import read_config
from wenet_osum.errors import OsumError


def values(flags: list[str], name: str) -> list[str]:
    """The values of ``--name value`` and ``--name=value``, in order."""
    found = []
    for i, word in enumerate(flags):
        if word == name and i + 1 < len(flags):
            found.append(flags[i + 1])
        elif word.startswith(f"{name}="):
            found.append(word.partition("=")[2])
    return found


def flag(flags: list[str], name: str) -> str | None:
    """The value that counts, the last one; None when the flag is not there."""
    found = values(flags, name)
    return found[-1] if found else None


def check_flags(program: str, flags: list[str]) -> None:
    """Raises:
    OsumError: a config that is no YAML or, for ``recognize``, lacks what it takes for granted; an override of a
        key that the config does not have or not in that type; an engine without what it needs; a batch of no
        utterances; fewer checkpoints than are to be averaged.
    """
    if program == "wenet.bin.average_model":
        check_checkpoints(flags)
    engine = flag(flags, "--train_engine")
    if engine == "deepspeed" and flag(flags, "--deepspeed_config") is None:
        raise OsumError("--deepspeed_config", "is missing", "give DeepSpeed's json")
    if engine == "torch_fsdp" and flag(flags, "--device") == "cpu":
        raise OsumError(
            "--train_engine torch_fsdp", "is not for a CPU in WeNet", "take torch_ddp or deepspeed"
        )
    path = flag(flags, "--config")
    if path is None:
        return  # what is missing is told by WeNet's own parser
    config = read_config(path)
    for item in values(flags, "--override_config"):
        check_override(item, config)
    if program == "wenet.bin.recognize":
        for key in ("filter_conf", "batch_conf"):
            if not isinstance((config.get("dataset_conf") or {}).get(key), dict):
                mend = "give the train.yaml that training wrote"
                raise OsumError(f"{path}: dataset_conf.{key}", "is missing, and recognize needs it", mend)
        size = flag(flags, "--batch_size")
        if size is not None and size.lstrip("-").isdigit() and int(size) < 1:
            raise OsumError(f"--batch_size {size}", "is no batch", "give 1 or more")


def check_checkpoints(flags: list[str]) -> None:
    src, num = flag(flags, "--src_path"), flag(flags, "--num") or "5"
    if src is None or not num.isdigit():
        return
    found = [p for p in Path(src).glob("*.pt") if p.stem.startswith(("epoch_", "step_"))]
    if len(found) < int(num):
        what = f"has {len(found)} checkpoints, --num is {num}"
        raise OsumError(src, what, "lower --num, train longer, or check --src_path")


def check_override(item: str, config: dict[str, Any]) -> None:
    words = item.split()
    if len(words) != 2:
        raise OsumError(f"--override_config {item!r}", "is not 'KEY VALUE'", "write 'a.b value'")
    section: Any = config
    for key in words[0].split("."):
        if not isinstance(section, dict) or key not in section:
            mend = "WeNet overrides keys that the config has; add it there"
            raise OsumError(f"--override_config {item!r}", f"the config has no {words[0]}", mend)
        section = section[key]
    try:  # WeNet turns the word into the type of what is there
        if not isinstance(section, bool):
            type(section)(words[1])
    except (TypeError, ValueError):
        what = f"{words[1]!r} cannot take the place of {section!r:.80}"
        raise OsumError(f"--override_config {item!r}", what, "write it into the config") from None
