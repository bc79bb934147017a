"""Which utterances ``filter_conf`` lets through: WeNet's rules, each with the cause it sets aside by."""

from __future__ import annotations

from typing import Any

from wenet_osum.errors import BadUtterance

# As WeNet's recognize.py has it: what training would leave out is decoded all the same.
WIDE_OPEN = {
    "max_length": 102400,
    "min_length": 0,
    "token_max_length": 102400,
    "token_min_length": 0,
    "min_output_input_ratio": 0,
    "max_output_input_ratio": 102400,
}


def check_length(key: str, seconds: float, limits: dict[str, Any]) -> float:
    """The length in 10 ms frames, not rounded, once it is within ``min_length`` and ``max_length``.

    Raises:
        BadUtterance: ``too_short`` or ``too_long``.
    """
    frames = seconds * 100
    if frames < limits["min_length"]:
        what = f"{seconds:.2f} s, filter_conf.min_length is {limits['min_length'] / 100} s"
        raise BadUtterance(key, "too_short", what)
    if frames > limits["max_length"]:
        most = f"{limits['max_length'] / 100:.2f} s (filter_conf.max_length, or what the encoder has positions for)"
        raise BadUtterance(key, "too_long", f"{seconds:.2f} s, at most {most}")
    return frames


def check_answer(key: str, tokens: int, frames: float, limits: dict[str, Any]) -> None:
    """Whether an answer of so many ids goes with so many 10 ms frames.

    Raises:
        BadUtterance: ``answer_too_short``, ``answer_too_long``, ``answer_sparse`` or ``answer_dense``.
    """
    ratio = tokens / frames if frames else None
    for bad, cause, name in (
        (tokens < limits["token_min_length"], "answer_too_short", "token_min_length"),
        (tokens > limits["token_max_length"], "answer_too_long", "token_max_length"),
        (
            ratio is not None and ratio < limits["min_output_input_ratio"],
            "answer_sparse",
            "min_output_input_ratio",
        ),
        (
            ratio is not None and ratio > limits["max_output_input_ratio"],
            "answer_dense",
            "max_output_input_ratio",
        ),
    ):
        if bad:
            what = f"{tokens} tokens in {frames:.0f} frames of 10 ms, filter_conf.{name} is {limits[name]}"
            raise BadUtterance(key, cause, what)
