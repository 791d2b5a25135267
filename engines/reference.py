"""The NumPy engine: plain, exact, and the judge of all others.

The score of a user is defined here. With v the row's stored values, q the item's integers, and their scales:

    score = float32( (sum_j v_j q_j) * (row_scale * item_scale) + bias )

The sum is taken in float64. For int8, fp8 and int4 every product is a multiple of one power of two and the sum stays
below 2^53 of them, so it is exact in any order; the score is rounded once, at the end. For fp32 and fp16 the item
vector is not quantised, and float64 leaves the order of summation no more than rare last-digit differences.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fllm_export.engines.base import Request
from fllm_export.engines.gumbel import gumbel
from fllm_export.engines.partial import Partial, select
from fllm_export.engines.query import Query
from fllm_export.engines.tiled import TiledEngine
from fllm_export.table.shard import Tile
from fllm_export.table.table import Table


class NumpyEngine(TiledEngine):
    """Scores with one float64 matrix product a tile."""

    name = "numpy"

    def score_tile(self, tile: Tile, query: Query, request: Request) -> Partial:
        """Score, perturb when sampling, select."""
        return select_users(score(self.table, tile, query), tile.ids, request)


def score(table: Table, tile: Tile, query: Query) -> npt.NDArray[np.float32]:
    """Return the scores of a tile's users, float32 [B, rows], by the definition above."""
    sums = query.values @ table.codec.values(tile.stored, table.layout.dim).T
    scales = query.scale[:, None] * tile.stored["scales"].astype(np.float64)
    bias = 0.0 if tile.bias is None else tile.bias.astype(np.float64)
    return (sums * scales + bias).astype(np.float32)


def select_users(scores: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], request: Request) -> Partial:
    """Return the best users of scored rows, [B, rows], whose ids ascend."""
    keys = scores if request.mode == "topk" else perturb(scores, ids, request.seeds)
    chosen = select(keys, request.k)
    m = scores.max(1).astype(np.float64)
    l = np.exp(scores.astype(np.float64) - m[:, None]).sum(1)  # noqa: E741 - the design's name
    best_keys, best_scores = (np.take_along_axis(array, chosen, 1) for array in (keys, scores))
    return Partial(ids[chosen], best_keys, best_scores, m, l)


def perturb(
    scores: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], seeds: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Return score plus Gumbel noise of (seed, user id), float32 [B, rows]."""
    noise = {seed: gumbel(seed, ids) for seed in set(seeds)}
    return np.stack([row.astype(np.float64) + noise[seed] for row, seed in zip(scores, seeds, strict=True)]).astype(
        np.float32
    )
