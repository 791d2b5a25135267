"""What a tile or a shard returns, and how two of them become one without loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

NO_USER = -1


@dataclass(frozen=True)
class Partial:
    """The best users of some rows, and the softmax denominator's share of those rows.

    Attributes:
        ids: int64 [B, j], ordered by (key descending, id ascending); j may be less than K.
        keys: float32 [B, j], what the order is by: the score, or its logit plus noise.
        scores: float32 [B, j].
        m: float64 [B], the largest logit of the rows, or another number near it.
        l: float64 [B], sum of exp(logit - m) over the rows.
    """

    ids: I64
    keys: F32
    scores: F32
    m: F64
    l: F64  # noqa: E741 - the design's name, as in (m, l)

    @classmethod
    def best(cls, keys: F32, scores: F32, ids: I64, k: int, m: F64, l: F64) -> Partial:  # noqa: E741
        """Keep the ``k`` best of scored rows: ``keys`` and ``scores`` [B, rows], ``ids`` [rows] ascending.

        A key that is not a number comes first, so that whoever checks the answer meets it.
        """
        chosen = select(np.where(np.isnan(keys), np.float32(np.inf), keys), k)
        best_keys, best_scores = (np.take_along_axis(array, chosen, 1) for array in (keys, scores))
        return cls(ids[chosen], best_keys, best_scores, m, l)

    @property
    def logsumexp(self) -> F64:
        """Return m + log l, [B]."""
        return self.m + np.log(self.l)


def merge(parts: Sequence[Partial], k: int) -> Partial:
    """Return the best ``k`` of the union, and the denominator's (m, l) of all rows; exact for any cut into parts."""
    if len(parts) == 1 and parts[0].ids.shape[1] <= k:
        return parts[0]
    ids, keys, scores = (np.concatenate([getattr(p, name) for p in parts], 1) for name in ("ids", "keys", "scores"))
    order = np.lexsort((ids, -keys), axis=1)[:, :k]
    m = np.max([p.m for p in parts], axis=0)
    total = np.sum([p.l * np.exp(p.m - m) for p in parts], axis=0)
    best_ids, best_keys, best_scores = (np.take_along_axis(array, order, 1) for array in (ids, keys, scores))
    return Partial(best_ids, best_keys, best_scores, m, total)


def select(keys: F32, k: int) -> I64:
    """Return the columns of the ``k`` largest keys of each row of [B, n], by (key descending, column ascending).

    Partial sorting alone may keep any of several equal keys at the cut; the lowest columns are kept here.
    """
    columns = keys.shape[1]
    if k >= columns:
        return np.argsort(-keys, axis=1, kind="stable")
    cut = np.partition(keys, columns - k, axis=1)[:, columns - k]
    chosen = np.empty((len(keys), k), np.int64)
    for row, (values, threshold) in enumerate(zip(keys, cut, strict=True)):
        above = np.flatnonzero(values > threshold)
        level = np.flatnonzero(values == threshold)[: k - len(above)]
        candidates = np.sort(np.concatenate([above, level]))
        chosen[row] = candidates[np.argsort(-values[candidates], kind="stable")]
    return chosen
