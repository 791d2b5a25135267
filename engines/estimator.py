"""The estimate of a softmax denominator from a sample, and the bound of its error: the definition.

Three kinds of rows add up to it: the users found, by their exact scores; all rows of the most promising tiles; and for
every other row the panel (:mod:`fllm_export.engines.panel`), each of whose rows stands for a part of the table.
docs/internals/log_probabilities.md says why the error is bounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fllm_export.engines.base import Answer, Request, told_errors
from fllm_export.engines.panel import SUMMED_ROWS, Panel
from fllm_export.engines.query import Query
from fllm_export.engines.scores import score_rows
from fllm_export.table import tile_bounds
from fllm_export.table.shard import Tile
from fllm_export.table.table import Table

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_BLOCK = 64
_TILES_READ, _TILES_OF_ONE = 16, 512
"""One tile in so many, or begun, is read in full, at most so many."""
_BOUND_SHARE = 0.3
"""Of the way from the score of a tile's middle to its bound, where its promise lies."""
_LOG_OF_MISS = math.log(3 / 0.05)
_DEVIATIONS = math.sqrt(2 * _LOG_OF_MISS)
_RANGES = (1 / 3 + 2 * math.sqrt(_BLOCK / (_BLOCK - 1))) * _LOG_OF_MISS
"""Maurer and Pontil 2009, theorem 11, for both sides and a variance V within blocks of n rows, at 95%: the sum of
independent numbers of [0, b] is off by at most sqrt(2 V ln 60) + (1/3 + 2 sqrt(n / (n - 1))) b ln 60."""
_LOST = 4e-6
"""What float32 sums lose of a sum of squares, relative to it: a variance may be that much larger than it seems."""
_CERTIFIED = 1e-3
"""A proven error up to this is told in place of a smaller one that is merely likely."""


def estimates(table: Table, request: Request) -> bool:
    """Whether a request is answered by an estimate, and not by the sum over every row.

    It does not depend on the items, so that an item's answer is the same in any company.
    """
    if request.log_probs != "estimate" or request.mode != "topk":
        return False
    if table.layout.stored_rows <= SUMMED_ROWS:
        return False
    # Without bounds of tiles, nothing bounds the scores of rows that a filter refuses.
    return table.layout.tile_bounds or request.filter is None


@dataclass(frozen=True)
class _Bounds:
    """Of one item, over the tiles as they are stored; both float64 [tiles]."""

    upper: F64
    promise: F64


class Estimator:
    """Estimates denominators of searches of one open table.

    Args:
        table: the open table.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._link = table.layout.link
        self._panel = Panel.of(table)
        self._sizes = np.concatenate([np.diff(shard.tile_ends, prepend=0) for shard in table.shards])
        self._starts = np.cumsum(self._sizes) - self._sizes

    def estimate(self, query: Query, request: Request, found: Answer) -> Answer:
        """Return an answer whose logsumexp, [B], is that of an estimate, with the bound of its error."""
        items = [self._item(query.part(slice(i, i + 1)), request, found, i) for i in range(len(found.ids))]
        logsumexp, error, certified = (np.array(values) for values in zip(*items, strict=True))
        return replace(
            found,
            logsumexp=logsumexp,
            log_probs_exact=np.zeros(len(items), np.bool_),
            log_prob_error=told_errors(error, logsumexp),
            log_probs_certified=certified,
        )

    def _item(self, query: Query, request: Request, found: Answer, item: int) -> tuple[float, float, bool]:
        """Return the logsumexp of one item, the most by which it is off, and whether that is proven."""
        bounds = self._bounds(query)
        read = self._tiles_read(bounds)
        apart, known = self._counted_apart(query, read, found.ids[item], found.scores[item])
        drawn = self._logits(self._panel.tile, query)
        drawn[apart] = -np.inf
        m = float(max(drawn.max(initial=-np.inf), known.max(initial=-np.inf)))
        sums, variance = self._drawn(np.exp(drawn - m))
        counted, part = float(np.exp(known - m).sum()), self._panel.part_rows
        total, least = counted + part * sums, counted + sums
        uppers = bounds.upper if bounds is not None else np.full(1, np.inf)
        others = np.delete(self._link.logits(uppers), read)
        full = bool(found.complete[item]) and request.filter is None and len(found.ids[item]) == request.k
        last = self._link.logits(found.scores[item][-1:])
        most = float(last[0]) if full else float(others.max(initial=-np.inf))
        with np.errstate(over="ignore"):
            off = part * (_DEVIATIONS * math.sqrt(variance) + _RANGES * float(np.exp(most - m)))
            capped = np.minimum(others, most if full and request.exact else np.inf)
            rows = np.delete(self._sizes, read) if bounds is not None else np.ones(1)
            upper = counted + float((np.exp(capped - m) * rows).sum())
        likely = max(math.log1p(off / total), math.log(total / max(total - off, least)))
        proven = max(math.log(max(upper / total, 1.0)), math.log(total / least)) if bounds is not None else math.inf
        certified = proven <= max(likely, _CERTIFIED)
        error = proven if certified else likely
        return m + math.log(total), error if math.isfinite(error) else math.nan, certified and math.isfinite(error)

    def _drawn(self, values: F64) -> tuple[float, float]:
        """Return the sum over the rows drawn, and its variance within blocks of the panel.

        That of a last block that is not whole is no more than its sum of squares.
        """
        padded = np.zeros(-(-self._panel.slots // _BLOCK) * _BLOCK)
        padded[self._panel.filled] = values
        blocks = padded.reshape(-1, _BLOCK)
        squares = (blocks**2).sum(1)
        variances = np.maximum(squares - blocks.sum(1) ** 2 / _BLOCK, _LOST * squares) * (_BLOCK / (_BLOCK - 1))
        if self._panel.slots % _BLOCK:
            variances[-1] = squares[-1]
        return float(values.sum()), float(variances.sum())

    def _bounds(self, query: Query) -> _Bounds | None:
        if not self._table.layout.tile_bounds:
            return None
        q = (query.values[0] * query.scale[0]).astype(np.float64)
        directions, extents = (
            np.concatenate([shard.beside[name].view(np.float32) for shard in self._table.shards])
            for name in ("tile_directions", "tile_extents")
        )
        upper = tile_bounds.bounds(directions, extents, q)
        low, high, _, bias = extents.astype(np.float64).T
        middle = (low + high) / 2 * (directions.astype(np.float64) @ q) + bias
        return _Bounds(upper, middle + _BOUND_SHARE * (upper - middle))

    def _tiles_read(self, bounds: _Bounds | None) -> I64:
        if bounds is None:
            return np.zeros(0, np.int64)
        count = min(_TILES_READ, -(-len(self._starts) // _TILES_OF_ONE))
        return np.argsort(-bounds.promise, kind="stable")[:count]

    def _counted_apart(
        self, query: Query, read: I64, ids: I64, scores: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.bool_], F64]:
        """Return which rows drawn are counted apart, bool [n], and the logits of all rows that are, float64."""
        numbers = [np.arange(self._starts[t], self._starts[t] + self._sizes[t]) for t in read]
        rows = np.concatenate([*numbers, np.zeros(0, np.int64)])
        rows = rows[~self._table.tombstones.marks(rows)]
        apart = np.isin(self._panel.rows, rows) | np.isin(self._panel.tile.ids, ids)
        if not len(rows):
            return apart, self._link.logits(scores)
        tile = self._table.gather(rows)
        others = ~np.isin(ids, tile.ids)
        return apart, np.concatenate([self._logits(tile, query), self._link.logits(scores[others])])

    def _logits(self, tile: Tile, query: Query) -> F64:
        """Return the logits of the rows of a tile for one item, float64 [rows]."""
        return self._link.logits(score_rows(self._table.codec, self._table.layout.dim, tile, query)[0])
