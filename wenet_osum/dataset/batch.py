"""Examples put together to a batch: padded, or one behind the other."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from wenet_osum.constants import IGNORE_ID
from wenet_osum.errors import BadUtterance

Batch = dict[str, Any]


def collate(examples: list[dict[str, Any] | BadUtterance], pack: bool = False) -> Batch:
    """Make a batch with WeNet's keys.

    Args:
        examples: as ``OsumDataset.example`` gives them, or why there is none.
        pack: the frames of all utterances in one row, without padding.

    Returns:
        ``keys``, ``tasks``, ``langs``, ``questions`` (None where there is no own one) lists; ``feats`` (B, T, F) padded with 0, or with ``pack`` (sum of T, F);
        ``feats_lengths`` (B,); ``target``, ``prompt``, ``ctc_target`` (B, n) padded with -1, ``target_lengths``
        (B,); ``target_weights`` (B, n + 1) padded with 0: the answer's and its end's share in the loss;
        ``skipped``: what could not be read, as ``{"key", "cause", "detail"}``. Without a good example only ``keys``,
        empty, and ``skipped``.
    """
    good = [e for e in examples if isinstance(e, dict)]
    skipped = [
        {"key": e.key, "cause": e.cause, "detail": e.detail} for e in examples if isinstance(e, BadUtterance)
    ]
    if not good:
        return {"keys": [], "skipped": skipped}
    batch: Batch = {"skipped": skipped}
    for name, plural in (("key", "keys"), ("task", "tasks"), ("lang", "langs"), ("question", "questions")):
        batch[plural] = [e[name] for e in good]
    feats = [e["feats"] for e in good]
    batch["feats"] = torch.cat(feats) if pack else pad_sequence(feats, batch_first=True)
    batch["feats_lengths"] = torch.tensor([len(f) for f in feats])
    for name in ("target", "prompt", "ctc_target"):
        batch[name] = pad_sequence([e[name] for e in good], batch_first=True, padding_value=IGNORE_ID)
    batch["target_weights"] = pad_sequence([e["target_weights"] for e in good], batch_first=True)
    batch["target_lengths"] = torch.tensor([len(e["target"]) for e in good])
    return batch
