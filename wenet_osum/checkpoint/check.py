"""Is a state dict the one a model needs?"""

from __future__ import annotations

from collections.abc import Container

from torch import Tensor

from wenet_osum.errors import OsumError


def check_state(
    state: dict[str, Tensor],
    own: dict[str, Tensor],
    where: str,
    spare: Container[str] = (),
    mend: str = "use the config it was trained with (train.yaml)",
) -> None:
    """Every name and shape of ``state`` as in ``own``; the names ``spare`` may be absent.

    Raises:
        OsumError: a shape that differs, a key that is missing or left over (named).
    """
    for name, tensor in state.items():
        if name not in own:
            raise OsumError(where, f"{name} is not in this model", mend)
        if own[name].shape != tensor.shape:
            shapes = f"{name} is {tuple(tensor.shape)}, the model has {tuple(own[name].shape)}"
            raise OsumError(where, shapes, mend)
    if missing := [n for n in own if n not in state and n not in spare]:
        raise OsumError(where, f"{len(missing)} weights are missing, the first is {missing[0]}", mend)
