"""Ordering the rows of a shard into coherent tiles and describing each tile, while the table is written."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fllm_export.table import tile_bounds
from fllm_export.table.clusters import FEATURES, Tiling, clustered, features, principal_directions, tiling
from fllm_export.table.options import Choice
from fllm_export.table.shard_rows import ShardRows

Array = npt.NDArray[np.generic]
I64 = npt.NDArray[np.int64]

TILE_ROWS = 1_024
"""Rows of a clustered tile: smaller ones are more coherent, and cost more to bound (docs/internals/tiles.md)."""

SAMPLE_ROWS = 16_384
"""Rows of a shard, if it has as many, that its principal directions are found by."""

_CHUNK_NUMBERS = 1 << 20
"""Decoded at once: what a processor's caches hold."""


class TileMaker:
    """Clusters the rows of each shard by themselves, so that writing needs no more memory than a shard.

    Args:
        choice: ``auto`` clusters tables of more than one shard: smaller ones are scanned in no time.
        dim: dimension of a row.
        tile_rows: rows of a tile where nothing is clustered; a clustered one has no more.
    """

    def __init__(self, choice: Choice, dim: int, tile_rows: int) -> None:
        self._choice = choice
        self._dim = dim
        self._plain_tile_rows = tile_rows
        self.clusters = False

    @property
    def tile_rows(self) -> int:
        """Rows of a tile."""
        return min(TILE_ROWS, self._plain_tile_rows) if self.clusters else self._plain_tile_rows

    @property
    def row_bytes(self) -> int:
        """Bytes that bounds may add to a row at most, rounded up."""
        if self._choice == "no":
            return 0
        return -(-4 * (self._dim + tile_bounds.EXTENTS) // min(TILE_ROWS, self._plain_tile_rows))

    def decide(self, *, whole_table: bool) -> None:
        """Settle, before the first shard is written, whether tiles are clustered.

        Args:
            whole_table: whether the first shard is the table's only one.
        """
        self.clusters = self._choice == "yes" or (self._choice == "auto" and not whole_table)

    def tiling(self, rows: ShardRows) -> Tiling:
        """Return the order in which rows, given by ascending id, are stored, and the tiles; ids ascend within each."""
        return tiling(self._points(rows), self.tile_rows)

    def order(self, rows: ShardRows) -> I64:
        """Return the order in which rows, given by ascending id, are stored in tiles that are full but for the last."""
        return clustered(self._points(rows), self.tile_rows)

    def _points(self, rows: ShardRows) -> npt.NDArray[np.float32]:
        directions = principal_directions(rows.sample(SAMPLE_ROWS))
        step = max(1, _CHUNK_NUMBERS // self._dim)
        points = np.empty((len(rows), FEATURES + 1), np.float32)
        for start in range(0, len(rows), step):
            points[start : start + step] = features(rows.part(start, start + step), directions)
        return points

    def tensors(self, rows: ShardRows, bias: npt.NDArray[np.float32] | None, ends: I64 | None) -> dict[str, Array]:
        """Return the tensors that bound the scores of the tiles of a shard with rows and bias [n] in stored order.

        Args:
            rows: of the shard.
            bias: of each, where the table has any.
            ends: of tiles of uneven size; None where all but the last are full.
        """
        found = [
            tile_bounds.describe_tiles(rows.part(start, stop), None if bias is None else bias[start:stop], tile)
            for start, stop, tile in self._runs(len(rows), ends)
        ]
        directions, extents = zip(*found, strict=True)
        tensors: dict[str, Array] = {} if ends is None else {"tile_ends": ends}
        return tensors | {"tile_directions": np.concatenate(directions), "tile_extents": np.concatenate(extents)}

    def _runs(self, rows: int, ends: I64 | None) -> Iterator[tuple[int, int, int]]:
        """Yield begin and end of each run of rows that are described at once, and the rows of its tiles."""
        if ends is not None:
            for start, stop in pairwise([0, *ends.tolist()]):
                yield start, stop, stop - start
            return
        step = max(1, _CHUNK_NUMBERS // self._dim // self.tile_rows) * self.tile_rows
        for start in range(0, rows, step):
            yield start, start + step, self.tile_rows
