"""Our checkpoints: ``NAME.pt``, a flat state dict of tensors, and ``NAME.yaml`` beside it, as WeNet has them.

A pretrained LLM that stayed frozen is not written again: it is named in the config and read from there.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from wenet_osum.checkpoint.check import check_state
from wenet_osum.checkpoint.files import flat, read_torch
from wenet_osum.checkpoint.folder import read_folder
from wenet_osum.checkpoint.lora import is_llm
from wenet_osum.checkpoint.whisper import check_fit, form_of, read_source
from wenet_osum.errors import OsumError
from wenet_osum.fileio import atomic_write


def llm_elsewhere(model: nn.Module) -> set[str]:
    """Names of the weights, adapters aside, of an LLM that comes from its own folder."""
    if not getattr(model.decoder, "pretrained", False):
        return set()
    return {n for n in model.state_dict() if is_llm(n)}


def state_to_save(model: nn.Module) -> dict[str, Tensor]:
    """The model's state dict less a frozen LLM that was loaded from its own folder."""
    learns = {n for n, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    llm = llm_elsewhere(model)
    elsewhere = llm if llm.isdisjoint(learns) else set()
    return {n: t for n, t in model.state_dict().items() if n not in elsewhere}


def save_checkpoint(model: nn.Module, path: str | Path, infos: dict[str, Any]) -> None:
    """``write_checkpoint`` of the weights that ``model`` has now."""
    write_checkpoint(state_to_save(model), path, infos)


def write_checkpoint(weights: dict[str, Tensor], path: str | Path, infos: dict[str, Any]) -> None:
    """Write ``path`` (``.pt``) and its ``.yaml``; the yaml comes last, so a pair is whole when it is there."""
    path = Path(path)
    with atomic_write(path, "wb") as f:
        torch.save(weights, f)
    with atomic_write(path.with_suffix(".yaml")) as f:
        yaml.safe_dump(infos, f, allow_unicode=True)


def read_infos(path: str | Path) -> dict[str, Any]:
    """What the ``.yaml`` beside a checkpoint says of it; ``epoch`` and ``step`` are whole numbers.

    Raises:
        OsumError: the file is not in that form.
    """
    try:
        infos = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return {**infos, "epoch": int(infos["epoch"]), "step": int(infos["step"])}
    except (yaml.YAMLError, ValueError, KeyError, TypeError):
        raise OsumError(
            str(path), "does not tell a checkpoint's epoch and step", "take the file that training wrote"
        ) from None


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a flat state dict of tensors: a ``.pt``, or a model folder (``checkpoint/folder.py``) less its LLM.

    Raises:
        OsumError: no file, not a whole torch file, or something other than tensors in it.
    """
    path = Path(path)
    if path.is_dir():
        return read_folder(path)
    if not path.is_file():
        raise OsumError(str(path), "no such checkpoint", "check --checkpoint, or train first")
    return flat(read_torch(path), path)


def load_checkpoint(model: Any, path: str | Path) -> None:
    """Load weights into ``model``; every key must fit.

    Raises:
        OsumError: a Whisper's own weights, a shape that differs, a key that is missing or left over (named).
    """
    state = read_state(path)
    if (form := form_of(state)) != "wenet_osum":
        what = f"holds the weights of a Whisper alone ({form}), not of this model"
        raise OsumError(str(path), what, "start training from it by --enc_init")
    own, source = Path(path) / "llm", getattr(model.decoder, "source", None)
    if source is not None and own.is_dir() and own.resolve() != Path(source).resolve():
        raise OsumError(
            "decoder_conf.llm", f"is {source}, {path} has an LLM of its own", f"use {path}/config.yaml"
        )
    llm = llm_elsewhere(model)
    trained_llm = not llm.isdisjoint(state)
    check_state(state, model.state_dict(), str(path), set() if trained_llm else llm)
    model.load_state_dict(state, strict=False)
    if trained_llm:  # no longer what its folder holds, so it goes into the checkpoints to come
        model.decoder.pretrained = False


def init_modules(model: nn.Module, path: str | Path, prefixes: list[str]) -> int:
    """WeNet's ``--enc_init``: copy the weights under ``prefixes`` from another checkpoint, ours or a Whisper
    in any form that ``wenet_osum.checkpoint.whisper`` reads. Says what it leaves in the file.

    Returns:
        how many tensors were copied.

    Raises:
        OsumError: a prefix that the checkpoint or the model has nothing for, a tensor that is missing or
            left over under it, a shape that differs.
    """
    source = read_source(str(path))
    check_fit(model, source, str(path), {p.split(".")[0] for p in prefixes})
    own = model.state_dict()
    chosen: dict[str, Tensor] = {}
    for prefix in prefixes:
        part = {n: t for n, t in source.state.items() if n.startswith(prefix)}
        expected = {n for n in own if n.startswith(prefix)}
        if not part or not expected:
            whose = "the checkpoint" if not part else "this model"
            raise OsumError("--enc_init_mods", f"{whose} has no weights under {prefix!r}", "check the prefix")
        for name, tensor in part.items():
            if name not in own or own[name].shape != tensor.shape:
                has = tuple(own[name].shape) if name in own else "nothing"
                raise OsumError(
                    str(path), f"{name} is {tuple(tensor.shape)}, the model has {has}", mend_shape(name)
                )
        missing = expected - set(part)
        if missing:
            raise OsumError(str(path), f"{min(missing)} is missing", mend_shape(min(missing)))
        chosen.update(part)
    model.load_state_dict(chosen, strict=False)
    left = Counter(n.split(".")[0] for n in source.state if n not in chosen)
    if left:
        words = ", ".join(f"{n} under {part}." for part, n in left.items())
        logging.info("%s (%s): not asked for and left: %s", path, source.form, words)
    return len(chosen)


def mend_shape(name: str) -> str:
    """Which keys of a config a shape follows from."""
    if name.endswith(".pe") or name == "decoder.positions":
        return f"set {name.split('.')[0]}_conf.max_positions to the file's"
    if name == "encoder.embed.conv.0.weight":
        return "set input_dim and log_mel_spectrogram_conf.num_mel_bins to the file's mel bins"
    if name == "decoder.embed.weight":
        return "use that Whisper's own tokenizer"
    return f"make {name.split('.')[0]}_conf the same as there"
