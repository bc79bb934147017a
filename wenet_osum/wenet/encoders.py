"""WeNet's encoders in our own programs: ``encoder: conformer`` before our adapter and LLM."""

from __future__ import annotations

from typing import Any

from wenet_osum.errors import OsumError
from wenet_osum.registry import ENCODERS, init_model, load_models
from wenet_osum.wenet.find import import_wenet


def borrow_encoder(name: str) -> None:
    """Add WeNet's encoder ``name`` to our table.

    Raises:
        OsumError: there is no WeNet, or it has no encoder of that name.
    """
    known = ", ".join(sorted(ENCODERS))
    try:
        table = import_wenet().WENET_ENCODER_CLASSES
    except OsumError as e:
        what = f"unknown name {name!r}, and there are no encoders of WeNet's ({e.what})"
        raise OsumError("encoder", what, f"choose one of {known}, or {e.mend}") from None
    if name not in table:
        raise OsumError(
            "encoder", f"unknown name {name!r}", f"choose one of {known}, {', '.join(sorted(table))}"
        )
    ENCODERS[name] = table[name]


def build_model(configs: dict[str, Any]) -> Any:
    """``init_model``, with WeNet's encoders where the config names one and WeNet is there."""
    load_models()
    if configs["encoder"] not in ENCODERS:
        borrow_encoder(configs["encoder"])
    return init_model(configs)
