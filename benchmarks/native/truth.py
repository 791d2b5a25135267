"""The exact float32 ranking, by one matrix product a chunk of rows, and how much of it an answer holds."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from benchmarks.native.population import F32

I64 = npt.NDArray[np.int64]


class Best:
    """The best ``k`` of rows that come in chunks of scores; unordered until asked."""

    def __init__(self, items: int, k: int) -> None:
        self._k = k
        self._scores = np.full((items, k), -np.inf, np.float32)
        self._ids = np.full((items, k), -1, np.int64)

    def add(self, scores: F32, first_id: int) -> None:
        """Take up scores [items, n] of the rows ``first_id`` and on.

        Only what reaches the worst score kept so far is looked at again: one comparison a score, mostly.
        """
        for item, row in enumerate(scores >= self._scores.min(1)[:, None]):
            above = np.flatnonzero(row)
            if len(above):
                self._merge(item, scores[item, above], above + first_id)

    def ids(self) -> I64:
        """Return the ids [items, k], best first."""
        return np.take_along_axis(self._ids, self._order(), 1)

    def scores(self) -> F32:
        """Return the scores [items, k], best first."""
        return np.take_along_axis(self._scores, self._order(), 1)

    def _order(self) -> I64:
        return np.lexsort((self._ids, -self._scores), axis=1)

    def _merge(self, item: int, scores: F32, ids: I64) -> None:
        scores = np.concatenate([self._scores[item], scores])
        ids = np.concatenate([self._ids[item], ids])
        kept = np.argpartition(-scores, self._k - 1)[: self._k]
        self._scores[item], self._ids[item] = scores[kept], ids[kept]


def exact_top(chunks: Iterable[F32], items: F32, k: int) -> I64:
    """Return the ids [B, k] of the rows with the largest float32 products, best first."""
    best = Best(len(items), k)
    start = 0
    for chunk in chunks:
        best.add(items @ chunk.T, start)
        start += len(chunk)
    return best.ids()


def recall(found: I64, truth: I64) -> float:
    """Return the mean share of each item's true ids that were found."""
    shares = [len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, truth, strict=True)]
    return float(np.mean(shares))
