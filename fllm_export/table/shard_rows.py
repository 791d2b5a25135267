"""The rows of a shard while it is written: decoded part by part, for everything that is made of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fllm_export.table.codecs import Codec, Tensors
from fllm_export.table.shard import Array

F32 = npt.NDArray[np.float32]


def in_order(tensors: Mapping[str, Array], order: npt.NDArray[np.int64]) -> dict[str, Array]:
    """Return tensors by row with their rows in an order [n]."""
    # take() copies rows as wholes, in a fourth of the time that indexing needs.
    return {name: np.take(array, order, axis=0) for name, array in tensors.items()}


class ShardRows:
    """What a shard's codes stand for, float32 [n, d], in the order of the codes.

    Rows are decoded again whenever they are read: decoding a part that stays in the processor's cache takes less time
    than reading it from a copy of all rows, which would be as large as several shards.

    Args:
        codec: the codec.
        tensors: its stored tensors, whose first extent is n, and others, which are not read.
        dim: d.
    """

    def __init__(self, codec: Codec, tensors: Tensors, dim: int) -> None:
        self._codec = codec
        self._stored = {name: tensors[name] for name in codec.tensors(dim)}
        self._dim = dim

    def __len__(self) -> int:
        return len(self._stored["scales"])

    def part(self, start: int, stop: int) -> F32:
        """Return rows ``start`` to ``stop``, fewer at the end."""
        return self._decoded(slice(start, stop))

    def sample(self, count: int) -> F32:
        """Return at most ``count`` evenly spaced rows."""
        return self._decoded(np.linspace(0, len(self) - 1, min(count, len(self))).astype(np.int64))

    def _decoded(self, chosen: slice | npt.NDArray[np.int64]) -> F32:
        return self._codec.decode({name: array[chosen] for name, array in self._stored.items()}, self._dim)
