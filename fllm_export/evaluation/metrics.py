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
        k = ranked.shape[1]
        sizes = np.array([len(right) for right in truth])
        hits = np.array([np.isin(row, right) for row, right in zip(ranked, truth, strict=True)]).reshape(ranked.shape)
        some = sizes > 0
        if not some.any():
            return cls(0.0, 0.0, 0.0, 0)
        hits, sizes = hits[some], sizes[some]
        discounts = 1 / np.log2(np.arange(2, k + 2))
        ideal = np.cumsum(discounts)[np.minimum(sizes, k) - 1]
        return cls(
            precision=float((hits.sum(1) / k).mean()),
            recall=float((hits.sum(1) / sizes).mean()),
            ndcg=float(((hits * discounts).sum(1) / ideal).mean()),
            lists=len(sizes),
        )
