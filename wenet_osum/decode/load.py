"""A model ready to be asked, by a few facts that any process can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoadSpec:
    """Which model, where, and how it looks for answers. Each is the flag of that name of ``osum transcribe``.

    Attributes:
        checkpoint: a ``.pt``, or a model folder. config: of the run; None: ``config.yaml`` of the model folder.
        gpu: a CUDA card's number; -1: see ``device``. dtype: None: the config's.
        num_threads: of the process; 0: torch's choice.
        override_config: ``KEY=VALUE``, several.
        mode: ``llm_greedy`` or ``llm_beam``, with ``beam_size`` hypotheses.
        draft: ``none``, ``exact`` or ``relaxed``.
    """

    checkpoint: str
    config: str | None = None
    device: str = "cpu"
    gpu: int = -1
    dtype: str | None = None
    num_threads: int = 0
    override_config: tuple[str, ...] = ()
    mode: str = "llm_greedy"
    beam_size: int = 10
    draft: str = "none"
