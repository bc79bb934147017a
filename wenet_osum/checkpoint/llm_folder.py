"""A causal LM as Hugging Face keeps it: ``config.json`` and safetensors, sharded above 2 GB.

Tensors read here lie in the files (mmap) until they are used, and are written a shard at a time, so a model
passes through in far less memory than it has weights.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wenet_osum.checkpoint.files import INDEX, read_json
from wenet_osum.errors import OsumError

SHARD_SIZE = 2_000_000_000  # bytes; safetensors before 0.7 copies what it writes


def read_llm_config(path: str | Path) -> Any:
    """The ``transformers`` config of an LLM, from its folder or its ``config.json``.

    Raises:
        OsumError: no such file, or no config of a model that transformers knows.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    path = Path(path)
    path = path / "config.json" if path.is_dir() else path
    raw = read_json(path)
    try:
        config = AutoConfig.for_model(raw.pop("model_type", None), **raw)
        model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        config.architectures = [model.__name__]
    except (ValueError, TypeError, KeyError, StrictDataclassError) as e:
        reason = str(e).strip().splitlines()[-1].strip() if str(e).strip() else type(e).__name__
        raise OsumError(
            str(path), f"no config of a causal LM ({reason})", "give the LLM's config.json"
        ) from None
    return config


def config_keys(config: Any) -> dict[str, Any]:
    """A config as ``decoder_conf.llm_config`` takes it: the keys of its class, and no file's extras."""
    known = {**type(config)().to_dict(), "model_type": None}
    return {k: v for k, v in config.to_dict().items() if k in known}


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write one file; safetensors' words for a full disk become one line. It may be read by whoever may read the
    files beside it (safetensors lets its owner alone), such as a server's own user."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({n: t.contiguous() for n, t in tensors.items()}, path, metadata={"format": "pt"})
    except SafetensorError as e:
        raise OsumError(str(path), f"cannot be written ({e})", "free some space and run again") from None
    umask = os.umask(0o077)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def write_sharded(folder: Path, tensors: Iterable[tuple[str, Tensor]]) -> torch.dtype:
    """Write named tensors, one shard in memory at a time: ``model.safetensors``, or
    ``model-00001-of-0000N.safetensors`` ... and their index. Returns the last one's type."""
    shards: list[list[str]] = []

    def write(shard: dict[str, Tensor]) -> None:
        write_safetensors(folder / f"{len(shards)}.part", shard)
        shards.append(list(shard))

    shard: dict[str, Tensor] = {}
    size = total = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > SHARD_SIZE:
            write(shard)
            shard, size = {}, 0
        shard[name] = tensor
        size, total = size + tensor.nbytes, total + tensor.nbytes
    write(shard)
    if len(shards) == 1:
        (folder / "0.part").rename(folder / "model.safetensors")
        return tensor.dtype
    weight_map = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        (folder / f"{i}.part").rename(folder / file)
        weight_map.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return tensor.dtype


def write_llm(folder: Path, config: Any, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write an LLM's folder that ``AutoModelForCausalLM.from_pretrained`` loads; ``config`` is a
    transformers config. An output layer that is tied to the embedding is not written twice."""
    folder.mkdir(parents=True)
    tied = config.tie_word_embeddings
    config.dtype = write_sharded(folder, ((n, t) for n, t in tensors if n != "lm_head.weight" or not tied))
    config.save_pretrained(folder)
