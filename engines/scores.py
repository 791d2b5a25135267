"""The score of a user row, as :mod:`fllm_export.engines.reference` defines it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fllm_export.engines.query import Query
from fllm_export.table.codecs import Codec
from fllm_export.table.shard import Tile


def score_rows(codec: Codec, dim: int, tile: Tile, query: Query) -> npt.NDArray[np.float32]:
    """Return the scores of the rows of a tile in some codec, float32 [B, rows], by the definition of the reference."""
    sums = query.values @ codec.values(tile.stored, dim).T
    scales = query.scale[:, None] * tile.stored["scales"].astype(np.float64)
    bias = 0.0 if tile.bias is None else tile.bias.astype(np.float64)
    return (sums * scales + bias).astype(np.float32)
