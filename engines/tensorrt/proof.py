"""From a plan's float32 scores to the exact answer, and the proof that nothing was left out.

A plan returns the K best rows of each slice by scores s' that are float32's. They lie within a margin of the exact
scores s of the definition (``engines/reference.py``), so that

* a row of the answer has s' + margin >= the k-th largest s' - its margin: only those rows are scored exactly;
* a row that the plan left out of its K has s' of at most the K-th, the slice's *lowest*: where lowest + margin is less
  than the exact score of the k-th user, no row of the slice is missing.

With q the item's integers, w the sum of its digits' magnitudes (128 |high| + |low|), c a row's codes, and both
scales:  |s' - s| <= factor * item scale * row scale * ||c|| * ||w|| + 2^-21 * (|s'| + |bias|).

int8: sums of digits are exact; what follows are six roundings to 24 bits. fp8: an assumption, see :data:`ASSUMED`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fllm_export.engines.partial import F32, F64, I64, NO_USER
from fllm_export.engines.query import Query
from fllm_export.engines.reference import score
from fllm_export.engines.tensorrt.lane import Scored, Slice
from fllm_export.table.table import Table

ASSUMED = ("fp8",)
"""Codecs whose margin is an assumption that no GPU has confirmed, so that no answer of theirs is called exact.

Tensor cores are taken to add fp8 products with about 13 bits behind the largest, a partial sum for each 32 of them or
so. docs/guides/tensorrt.md says so to users; a GPU that has confirmed it takes the codec out of this list.
"""

_ROUNDING = 2.0**-21
_COMPRESS_AT = 64


def factor(codec: str, dim: int) -> float:
    """Return the margin's factor: how much of a sum of products may be lost."""
    return 2.0**-20 if codec == "int8" else 2.0**-11 * (1 + dim / 128)


class Margin:
    """How far a plan's scores may be from the exact ones.

    Args:
        query: the items.
        digits: float32 [digits, B, d], theirs.
        base: of the digits.
        share: of :func:`factor`.
        reach: the largest norm of a row, scale included.
        most_bias: the largest magnitude of a bias.
    """

    def __init__(self, query: Query, digits: F32, base: int, share: float, reach: float, most_bias: float) -> None:
        weights = np.float64(base) ** np.arange(len(digits))[::-1]
        sizes = np.tensordot(weights, np.abs(digits.astype(np.float64)), 1)
        self._constant = share * reach * query.scale * np.linalg.norm(sizes, axis=1) + _ROUNDING * most_bias

    def above(self, scores: F32, items: slice | I64 = slice(None)) -> F64:
        """Return the most that the exact scores may be, for float32 [B, n]."""
        return scores + self._of(scores, items)

    def below(self, scores: F32, items: slice | I64 = slice(None)) -> F64:
        """Return the least that the exact scores may be."""
        return scores - self._of(scores, items)

    def _of(self, scores: F32, items: slice | I64) -> F64:
        # A place without a row has the score -inf, exactly.
        finite = np.where(np.isneginf(scores), 0.0, np.abs(scores)).astype(np.float64)
        total: F64 = self._constant[items, None] + _ROUNDING * finite
        return total


class Exact:
    """The best users of each item so far, by exact scores.

    Args:
        table: the rows.
        query: the items.
        k: users an item.
    """

    def __init__(self, table: Table, query: Query, k: int) -> None:
        self._table, self._query, self._k = table, query, k
        self._ids: list[I64] = [np.empty(0, np.int64) for _ in query.scale]
        self._scores: list[F32] = [np.empty(0, np.float32) for _ in query.scale]

    def offer(self, item: int, rows: I64) -> None:
        """Score rows, given by their numbers in the table, for an item."""
        if len(rows) == 0:
            return
        tile = self._table.gather(np.unique(rows))
        one = self._query.part(slice(item, item + 1))
        ids = np.concatenate([self._ids[item], tile.ids])
        scores = np.concatenate([self._scores[item], score(self._table, tile, one)[0]])
        _, once = np.unique(ids, return_index=True)
        order = once[np.lexsort((ids[once], -scores[once]))][: self._k]
        self._ids[item], self._scores[item] = ids[order], scores[order]

    def is_zero(self, items: I64) -> npt.NDArray[np.bool_]:
        """Return which of some items are all zeros."""
        zero: npt.NDArray[np.bool_] = np.abs(self._query.values[items]).max(1) == 0
        return zero

    def threshold(self, item: int) -> float:
        """Return the score of the k-th user, -inf while there are fewer."""
        scores = self._scores[item]
        return float(scores[-1]) if len(scores) == self._k else -np.inf

    def users(self) -> tuple[I64, F32]:
        """Return ids and scores, [B, k]; -1 and -inf where there are fewer."""
        ids = np.full((len(self._ids), self._k), NO_USER)
        scores = np.full(ids.shape, -np.inf, np.float32)
        for item, (found, theirs) in enumerate(zip(self._ids, self._scores, strict=True)):
            ids[item, : len(found)], scores[item, : len(found)] = found, theirs
        return ids, scores


class Candidates:
    """What the plan returned of all slices: the rows that may be in the answer, and each slice's lowest.

    Args:
        k: users an item.
        plan_k: users that the plan returns of a slice.
        margin: of the plan's scores.
    """

    def __init__(self, k: int, plan_k: int, margin: Margin) -> None:
        self._k, self._plan_k, self._margin = k, plan_k, margin
        self._scores: list[F32] = []
        self._rows: list[I64] = []
        self._slices: list[Slice] = []
        self._lowest: list[F32] = []
        self._m: list[F32] = []
        self._l: list[F32] = []

    def add(self, scored: Scored) -> None:
        """Take a slice's results in."""
        self._scores.append(scored.scores)
        self._rows.append(scored.rows)
        self._m.append(scored.m)
        self._l.append(scored.l)
        if scored.slice.valid > self._plan_k:
            self._slices.append(scored.slice)
            self._lowest.append(scored.scores[:, -1])
        if len(self._scores) > _COMPRESS_AT:
            self._compress()

    def denominator(self) -> tuple[F64, F64]:
        """Return (m, l) of all slices, [B]."""
        m, total = np.stack(self._m).astype(np.float64), np.stack(self._l).astype(np.float64)
        peak = m.max(0)
        return peak, (total * np.exp(m - peak)).sum(0)

    def hand_over(self, exact: Exact) -> None:
        """Have those rows scored exactly that may be in the answer."""
        kept = self._compress()
        for item, mask in enumerate(kept):
            exact.offer(item, self._rows[0][item, mask])

    def unproven(self, exact: Exact) -> list[tuple[Slice, I64]]:
        """Return the slices of which a row may be missing, and for which items."""
        found = []
        for part, lowest in zip(self._slices, self._lowest, strict=True):
            items = open_items(self._margin, exact, lowest, np.arange(len(lowest)))
            if len(items):
                found.append((part, items))
        return found

    def _compress(self) -> npt.NDArray[np.bool_]:
        """Drop what is out of the question; return which of the rows that are left are not, bool [B, n]."""
        scores, rows = np.concatenate(self._scores, 1), np.concatenate(self._rows, 1)
        order = np.argsort(-scores, axis=1, kind="stable")
        scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        last = min(self._k, scores.shape[1]) - 1
        least = self._margin.below(scores[:, last : last + 1])
        kept = (self._margin.above(scores) >= least) & ~np.isneginf(scores)
        width = max(1, int(kept.sum(1).max()))
        self._scores, self._rows = [scores[:, :width]], [rows[:, :width]]
        return kept[:, :width]


def open_items(margin: Margin, exact: Exact, lowest: F32, items: I64) -> I64:
    """Return those of some items for which a row below ``lowest``, float32 [items], may be in the answer."""
    most = margin.above(lowest[:, None], items)[:, 0]
    thresholds = np.array([exact.threshold(int(item)) for item in items])
    # Put so that what is not a number proves nothing.
    return items[~(most < thresholds)]
