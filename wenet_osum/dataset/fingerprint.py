"""Short names for contents, and for all that an index depends on beside its lists."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wenet_osum import __version__
from wenet_osum.hub import TOKENIZER_FILES
from wenet_osum.tasks import TaskTable


def fingerprint(
    table: TaskTable, encode: Callable[[str], list[int]], conf: dict[str, Any], *others: object
) -> str:
    """The same for the same tasks, tokenizer, ``filter_conf``, ``time_step`` and ``others``."""
    facts = [__version__, repr(list(table.values())), conf["filter_conf"], conf["time_step"], *others]
    return digest(json.dumps([*facts, _tokenizer_facts(encode)], sort_keys=True).encode())


def digest(*contents: bytes) -> str:
    """The hash of some bytes, in hexadecimal digits."""
    hasher = hashlib.blake2b(digest_size=16)
    for content in contents:
        hasher.update(content)
    return hasher.hexdigest()


def digest_file(path: str | Path) -> str:
    """``digest`` of a file, read piece by piece."""
    hasher = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as f:
        while piece := f.read(1 << 20):
            hasher.update(piece)
    return hasher.hexdigest()


def _tokenizer_facts(encode: Callable[[str], list[int]]) -> list[Any]:
    """What tells one tokenizer from another: its settings and the content of its files, wherever they lie."""
    owner = getattr(encode, "__self__", encode)
    facts: list[Any] = [type(owner).__name__, encode("Good morning 今天天气好<happy><0.42>")]
    for name, value in sorted(getattr(owner, "__dict__", {}).items()):
        if name == "backend":
            continue
        path = Path(value) if isinstance(value, (str, Path)) else None
        if path and path.is_file():
            facts.append([name, digest(path.read_bytes())])
        elif path and path.is_dir():
            files = sorted({f for pattern in TOKENIZER_FILES for f in path.glob(pattern)})
            facts.append([name, [[f.name, digest(f.read_bytes())] for f in files]])
        else:
            facts.append([name, repr(value)])
    return facts
