"""Hub ids: telling one from a path, and one line when the hub cannot be reached."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from wenet_osum.errors import OsumError

# Patterns of a repository's files. Some repositories also hold a second copy of their weights under other
# names (openai/whisper-large-v3: fp32 beside fp16), which these leave out.
CONFIG_FILES = ["config.json"]
WEIGHT_FILES = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]
TOKENIZER_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_id(name: str) -> bool:
    """Whether ``name`` is no path here and has a hub id's form, ``owner/name``."""
    return not Path(name).exists() and HUB_ID.fullmatch(name) is not None


def fetch(name: str, files: list[str], where: str, **options: Any) -> Path:
    """A local folder with the ``files`` (patterns) of a hub repository, downloaded where they are not
    there yet. (transformers itself would try for a minute before it gives up.) ``options`` go to
    ``snapshot_download``: revision, cache_dir, local_files_only.

    Raises:
        OsumError: the hub cannot be reached, or has no such repository.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=files, **options))
    except Exception as e:  # the hub's client raises its own errors and its network library's
        kind = type(e.__cause__ or e).__name__
        raise OsumError(
            where,
            f"{name!r} is no local folder and could not be fetched from the hub ({kind})",
            f"run `hf download {name} --local-dir DIR` where the hub can be reached and give DIR",
        ) from None
