"""What the commands share: the task table of a run, ids the model needs, lines about what they hold."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wenet_osum.errors import OsumError
from wenet_osum.tasks import TaskTable, load_tasks


def resolve_beside(configs: dict[str, Any], config_path: str) -> None:
    """Point tokenizer files that are not where the config says at those of their name beside the config
    (``train.yaml``), as ``wenet.load_model`` does: a model folder can be moved, and used from anywhere."""
    conf = configs["tokenizer_conf"]
    for key, value in conf.items():
        if isinstance(value, str) and not Path(value).exists():
            beside = Path(config_path).parent / Path(value).name
            if beside.exists():
                conf[key] = str(beside)


def at_least(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number from ``least`` up."""

    def read(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return int(text)

    return read


def load_table(configs: dict[str, Any]) -> TaskTable:
    """The built-in tasks and those of the config's ``tasks`` file."""
    return load_tasks(*([configs["tasks"]] if configs["tasks"] else []))


def prepare_configs(configs: dict[str, Any], tokenizer: Any) -> None:
    """Fill in what follows from the tokenizer: ``vocab_size``, ``output_dim``, the special ids.

    Raises:
        OsumError: the config was trained with a tokenizer of another size.
    """
    size = tokenizer.vocab_size()
    if configs["vocab_size"] not in (None, size):
        raise OsumError(
            "tokenizer_conf",
            f"the tokenizer has {size} ids, the model was trained with {configs['vocab_size']}",
            "use the tokenizer of that run",
        )
    configs["vocab_size"] = configs["output_dim"] = size
    special = configs["tokenizer_conf"].setdefault("special_tokens", {})
    special.setdefault("eos", tokenizer.eos_id)
    special.setdefault("sos", tokenizer.eos_id)


def count_line(skipped: list[dict[str, str]]) -> str:
    """``; set aside: 3 too_long, 1 truncated`` or nothing."""
    counts = Counter(entry["cause"] for entry in skipped).most_common()
    return "; set aside: " + ", ".join(f"{n} {cause}" for cause, n in counts) if counts else ""


def describe(model: Any) -> str:
    """Parameters by part and how many learn, one line."""
    words = []
    for name, parameters in model.parts().items():
        total = sum(p.numel() for p in parameters)
        learning = sum(p.numel() for p in parameters if p.requires_grad)
        if total:
            words.append(f"{name} {total:,}" + ("" if learning == total else f" ({learning:,} learn)"))
    return "parameters: " + ", ".join(words)
