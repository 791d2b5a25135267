"""Ranking metrics at K, for users of an item and for items of a user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Ranking:
    """Metrics of ranked lists, averaged over the lists whose truth is not empty.

    Attributes:
        precision: hits / K.
        recall: hits / size of the truth.
        ndcg: binary gain, discount 1 / log2(rank + 1), over the ideal list of min(K, size of the truth) hits.
        lists: number of lists averaged.
    """

    precision: float
    recall: float
    ndcg: float
    lists: int

    @classmethod
    def of(cls, ranked: npt.NDArray[np.int64], truth: Sequence[npt.NDArray[np.int64]]) -> Ranking:
        """Score one ranked list a row against its set of right answers.

        Args:
            ranked: best first, [lists, K]; an id occurs once in a row.
            truth: for each row the right ids.
        """
        return Hits.of(ranked, truth).at(ranked.shape[1])


@dataclass(frozen=True)
class Hits:
    """Where ranked lists are right.

    Attributes:
        found: whether each entry is right, best first, bool [lists, K].
        sizes: number of right answers of each list, int64 [lists].
    """

    found: npt.NDArray[np.bool_]
    sizes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, ranked: npt.NDArray[np.int64], truth: Sequence[npt.NDArray[np.int64]]) -> Hits:
        """Compare ranked ids, best first, [lists, K], with the right ids of each list."""
        found = [np.isin(row, right) for row, right in zip(ranked, truth, strict=True)]
        return cls(np.array(found, bool).reshape(ranked.shape), np.array([len(right) for right in truth], np.int64))

    def at(self, k: int) -> Ranking:
        """Return the metrics of the first ``k`` entries."""
        some = self.sizes > 0
        if not some.any():
            return Ranking(0.0, 0.0, 0.0, 0)
        hits, sizes = self.found[some, :k], self.sizes[some]
        discounts = 1 / np.log2(np.arange(2, k + 2))
        ideal = np.cumsum(discounts)[np.minimum(sizes, k) - 1]
        return Ranking(
            precision=float((hits.sum(1) / k).mean()),
            recall=float((hits.sum(1) / sizes).mean()),
            ndcg=float(((hits * discounts).sum(1) / ideal).mean()),
            lists=len(sizes),
        )

    def recalls(self, k: int) -> npt.NDArray[np.float64]:
        """Return the recall of the first ``k`` entries of each list, float64 [lists]; 0 where nothing is right."""
        found: npt.NDArray[np.float64] = self.found[:, :k].sum(1) / np.maximum(self.sizes, 1)
        return found

    def curves(self) -> tuple[list[float], list[float]]:
        """Return precision and recall at 1 to K, averaged over the lists whose truth is not empty."""
        some = self.sizes > 0
        if not some.any():
            return [0.0] * self.found.shape[1], [0.0] * self.found.shape[1]
        sums = np.cumsum(self.found[some], axis=1)
        ranks = np.arange(1, self.found.shape[1] + 1)
        return (sums / ranks).mean(0).tolist(), (sums / self.sizes[some][:, None]).mean(0).tolist()
