"""The NumPy engine: plain, exact, and the judge of all others.

The score of a user is defined here. With v the row's stored values, q the item's integers, and their scales:

    score = float32( (sum_j v_j q_j) * (row_scale * item_scale) + bias )

The sum is taken in float64. Of all codecs but fp32 and fp16, every product is a multiple of one power of two and the
sum stays below 2^53 of them, so it is exact in any order; the score is rounded once, at the end. For fp32 and fp16 the
item vector is not quantised, and float64 leaves the order of summation no more than rare last-digit differences.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fllm_export.engines.base import Answer, Request
from fllm_export.engines.estimator import Estimator, estimates
from fllm_export.engines.gumbel import gumbel
from fllm_export.engines.partial import Partial
from fllm_export.engines.query import Query
from fllm_export.engines.scores import score_rows
from fllm_export.engines.tiled import TiledEngine
from fllm_export.link import EXPONENTIAL, Link
from fllm_export.table.shard import Tile
from fllm_export.table.table import Table

Noise = Callable[[int, npt.NDArray[np.int64]], npt.NDArray[np.float64]]


class NumpyEngine(TiledEngine):
    """Scores with one float64 matrix product per tile, and estimates denominators as libfllm does."""

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self._estimator: Estimator | None = None

    def _scan(self, z: npt.NDArray[np.float32], request: Request) -> Answer:
        """Scan every row; where an estimate is requested, it takes the place of the sum."""
        found = super()._scan(z, request)
        if not estimates(self.table, request):
            return found
        self._estimator = self._estimator or Estimator(self.table)
        return self._estimator.estimate(self.query(z), request, found)

    def score_tile(self, tile: Tile, query: Query, request: Request) -> Partial:
        """Score, perturb when sampling, select."""
        return select_users(score(self.table, tile, query), tile.ids, request, self.facts.link)


def score(table: Table, tile: Tile, query: Query) -> npt.NDArray[np.float32]:
    """Return the scores of a tile's users, float32 [B, rows], by the definition above."""
    return score_rows(table.codec, table.layout.dim, tile, query)


def select_users(
    scores: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], request: Request, link: Link = EXPONENTIAL
) -> Partial:
    """Return the best users of scored rows, [B, rows], whose ids ascend."""
    keys = scores if request.mode == "topk" else perturb(link.logits(scores), ids, request.seeds, gumbel)
    m, total = link.log_sums(scores)
    if request.filter is not None:
        allowed = request.filter.allows(ids)
        keys, scores, ids = keys[:, allowed], scores[:, allowed], ids[allowed]
    return Partial.best(keys, scores, ids, request.k, m, total)


def perturb(
    logits: npt.NDArray[np.float64], ids: npt.NDArray[np.int64], seeds: tuple[int, ...], noise: Noise
) -> npt.NDArray[np.float32]:
    """Return logit plus noise, float32 [B, rows]; the noise of a row is that of (the item's seed, the user id)."""
    by_seed = {seed: noise(seed, ids) for seed in set(seeds)}
    perturbed = np.stack([row + by_seed[seed] for row, seed in zip(logits, seeds, strict=True)])
    return perturbed.astype(np.float32)
