"""Reading tensors from files that others wrote: torch files, safetensors, folders.

None of them may run code: torch files are read with ``weights_only=True``, and a pickle that names
anything but tensors is refused.
"""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wenet_osum.errors import OsumError

COPY_AGAIN = "copy it again, or take an earlier one"
INDEX = "model.safetensors.index.json"


def read_torch(path: Path) -> Any:
    """What a torch file holds: tensors, numbers, text, and dicts and lists of them.

    Raises:
        OsumError: not a whole torch file, or a pickle that could run code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as e:  # a damaged pickle makes torch raise nearly anything: KeyError, AssertionError ...
        if isinstance(e, OSError) and e.errno != errno.EINVAL:  # EINVAL: a seek to before a cut file's start
            raise
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        if "mmap" in reason:  # torch's word for a file that is no zip archive
            reason = "no torch file of torch 1.6 or newer"
        elif reason.startswith("Weights only"):  # torch goes on to say how one would run the code
            named = re.search(r"GLOBAL (\S+) (?:was not|whose module)", str(e))
            what = f" ({named[1]})" if named else ""
            raise OsumError(
                str(path),
                f"holds Python objects besides tensors{what}, which may run code",
                "give a plain state dict",
            ) from None
        raise OsumError(str(path), f"not a whole checkpoint ({reason[:120]})", COPY_AGAIN) from None


def flat(state: Any, path: str | Path) -> dict[str, Tensor]:
    """``state`` itself, once it is known to be names and tensors. Raises OsumError where it is not."""
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise OsumError(
            str(path), "not a flat state dict of tensors", "give a model checkpoint, such as final.pt"
        )
    return state


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of one ``.safetensors`` file, by mmap.

    Raises:
        OsumError: no such file, cut off, or a header that does not fit what follows it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise OsumError(str(path), "no such file", "copy the folder again, whole")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError) as e:
        reason = str(e).splitlines()[0][:120] if str(e) else type(e).__name__
        raise OsumError(str(path), f"not a whole safetensors file ({reason})", COPY_AGAIN) from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises OsumError where the file holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OsumError(str(path), "no such file", "check the path") from None
    except ValueError as e:
        raise OsumError(str(path), f"not JSON ({e})", "copy it again") from None
    if not isinstance(content, dict):
        raise OsumError(str(path), "not a JSON object", "copy the folder again, whole")
    return content


def read_hf_folder(folder: str | Path) -> dict[str, Tensor]:
    """The weights of a Hugging Face folder: ``model.safetensors``, or the shards its index names.

    Raises:
        OsumError: no safetensors, a shard that is missing or holds other tensors than the index says.
    """
    folder = Path(folder)
    if not (folder / INDEX).is_file():
        if not (folder / "model.safetensors").is_file():
            raise OsumError(
                str(folder),
                "has no model.safetensors",
                "save it as safetensors, or name its .bin file itself",
            )
        return read_safetensors(folder / "model.safetensors")
    index = read_json(folder / INDEX).get("weight_map")
    if not isinstance(index, dict) or not all(
        isinstance(shard, str) and Path(shard).name == shard for shard in index.values()
    ):
        raise OsumError(
            str(folder / INDEX), "no weight_map from names to files beside it", "copy the folder again, whole"
        )
    state: dict[str, Tensor] = {}
    for shard in sorted(set(index.values())):
        part = read_safetensors(folder / shard)
        wrong = set(part) ^ {name for name, where in index.items() if where == shard}
        if wrong:
            raise OsumError(
                str(folder / shard),
                f"{min(wrong)} is in this file or in {INDEX}, not in both",
                "copy the folder again, whole",
            )
        state.update(part)
    return state
