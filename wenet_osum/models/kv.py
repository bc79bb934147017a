"""The keys and values of sequences under way, each at its true length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wenet_osum.errors import OsumError


class KeyValues:
    """Keys and values of a batch, padded on the left, with which columns are real.

    Args:
        cache: transformers' ``DynamicCache`` after the first pass.
        real: (B, T) bool.

    Raises:
        OsumError: an LLM that keeps states of another kind (a sliding window, a recurrence), in which no single
            column can be taken away.
    """

    def __init__(self, cache: Any, real: Tensor):
        from transformers.cache_utils import DynamicLayer

        self.cache, self.real = cache, real
        if any(type(layer) is not DynamicLayer for layer in cache.layers):
            kinds = {type(layer).__name__ for layer in cache.layers}
            raise OsumError(
                "decoder_conf", f"the LLM keeps {', '.join(kinds)}", "use one with full attention"
            )

    def lengths(self) -> Tensor:
        """(B,) real columns of each row: the position of its next token."""
        return self.real.sum(dim=1)

    def select(self, rows: Tensor) -> None:
        """Keep ``rows`` (n,), in that order, repeated where they repeat."""
        self.real = self.real[rows]
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
        self.squeeze()

    def squeeze(self) -> None:
        """Bring each row's real columns together on the right and drop the rest, where there is something to drop."""
        length = int(self.lengths().max()) if len(self.real) else 0
        if length == self.real.size(1) and bool(self.real[:, -1:].all()) and self.in_one_piece():
            return
        order = torch.argsort(self.real.int(), dim=1, stable=True)[:, self.real.size(1) - length :]
        self.real = self.real.gather(1, order)
        for layer in self.cache.layers:
            index = order[:, None, :, None].expand(-1, layer.keys.size(1), -1, layer.keys.size(3))
            layer.keys = layer.keys.gather(2, index)
            index = index[..., :1].expand(-1, -1, -1, layer.values.size(3))
            layer.values = layer.values.gather(2, index)

    def in_one_piece(self) -> bool:
        """Whether no row has padding behind a real column."""
        return not bool((self.real[:, :-1] & ~self.real[:, 1:]).any())

    def rows(self, indices: list[int]) -> list[Row]:
        """Copies of single rows without padding, to be put back by ``join``."""
        found = []
        for b in indices:
            real = self.real[b]
            found.append([(layer.keys[b][:, real], layer.values[b][:, real]) for layer in self.cache.layers])
        return found

    @classmethod
    def join(cls, rows: list[Row]) -> KeyValues:
        """A batch of rows, padded on the left."""
        from transformers.cache_utils import DynamicCache

        cache = DynamicCache()
        length = max(row[0][0].size(1) for row in rows)
        for number in range(len(rows[0])):
            parts = []
            for which in (0, 1):
                parts.append(
                    torch.stack(
                        [
                            torch.nn.functional.pad(
                                r[number][which], (0, 0, length - r[number][which].size(1), 0)
                            )
                            for r in rows
                        ]
                    )
                )
            cache.update(parts[0], parts[1], number)
        lengths = torch.tensor([row[0][0].size(1) for row in rows], device=rows[0][0][0].device)
        return cls(cache, torch.arange(length, device=lengths.device)[None] >= length - lengths[:, None])


Row = list[tuple[Tensor, Tensor]]  # a layer's keys and values (heads, length, size)
