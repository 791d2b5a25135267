"""The rows of a shard while it is written: decoded once, for everything that is made of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


class ShardRows:
    """What a shard's codes stand for, float32 [n, d], in the order in which the rows will be stored."""

    def __init__(self, decoded: F32) -> None:
        self._decoded = decoded
        self._order: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self._decoded)

    def reorder(self, order: npt.NDArray[np.int64]) -> None:
        """Change the order, int64 [n], once; rows are gathered when they are read, so that no copy of all is made."""
        self._order = order

    def part(self, start: int, stop: int) -> F32:
        """Return rows ``start`` to ``stop``, fewer at the end."""
        return self._decoded[start:stop] if self._order is None else self._decoded[self._order[start:stop]]

    def sample(self, count: int) -> F32:
        """Return at most ``count`` evenly spaced rows."""
        chosen = np.linspace(0, len(self) - 1, min(count, len(self))).astype(np.int64)
        return self._decoded[chosen if self._order is None else self._order[chosen]]
