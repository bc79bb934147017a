"""An exported OSUM in vLLM, an optional engine: nothing else in the package imports this.

vLLM finds ``register`` by the entry point ``vllm.general_plugins`` and calls it in each of its processes.
Written against vLLM 0.31 to 0.33 (``docs/vllm.md``).
"""

from __future__ import annotations

from wenet_osum.errors import OsumError


def register() -> None:
    """Make vLLM know OSUM's config, processor and model. Calling it again changes nothing.

    Raises:
        OsumError: vLLM is not installed.
    """
    try:
        from vllm import ModelRegistry
    except ModuleNotFoundError as e:
        if e.name != "vllm":
            raise
        raise OsumError("wenet_osum.vllm", "vllm is not installed", "pip install wenet_osum[vllm]") from None
    import wenet_osum.hf  # noqa: F401  (transformers' Auto classes)

    # By name: vLLM imports the model where it runs it, so that no other process touches the device.
    ModelRegistry.register_model(
        "OsumForConditionalGeneration", "wenet_osum.vllm.model:OsumForConditionalGeneration"
    )
