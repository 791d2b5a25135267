"""Ordering the rows of a shard into coherent tiles and describing each tile, while the table is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.table import tile_bounds
from fllm_export.table.clusters import clustered, features, principal_directions
from fllm_export.table.codecs import Codec
from fllm_export.table.options import Choice

Array = npt.NDArray[np.generic]

TILE_ROWS = 1_024
"""Rows of a clustered tile: smaller ones are more coherent, and cost more to bound (docs/internals/tiles.md)."""

_CHUNK_NUMBERS = 1 << 22
_SAMPLE_ROWS = 16_384


class TileMaker:
    """Clusters the rows of each shard by themselves, so that writing needs no more memory than a shard.

    Args:
        choice: ``auto`` clusters tables of more than one shard: smaller ones are scanned in no time.
        codec: the table's.
        dim: numbers in a row.
        tile_rows: rows of a tile where nothing is clustered; a clustered one has no more.
    """

    def __init__(self, choice: Choice, codec: Codec, dim: int, tile_rows: int) -> None:
        self._choice = choice
        self._codec = codec
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

    def order(self, stored: Mapping[str, Array]) -> npt.NDArray[np.int64]:
        """Return the order in which rows, given by ascending id, are stored; ids ascend within each tile."""
        rows = len(stored["scales"])
        sample = np.linspace(0, rows - 1, min(rows, _SAMPLE_ROWS)).astype(np.int64)
        directions = principal_directions(self._decoded(stored, sample))
        step = max(1, _CHUNK_NUMBERS // self._dim)
        chunks = (self._decoded(stored, slice(start, start + step)) for start in range(0, rows, step))
        points = np.concatenate([features(chunk, directions) for chunk in chunks])
        return clustered(points, self.tile_rows)

    def tensors(self, stored: Mapping[str, Array]) -> dict[str, Any]:
        """Return the tensors that bound the scores of a shard's tiles; none where rows are not clustered."""
        if not self.clusters:
            return {}
        directions, extents = zip(*self._described(stored), strict=True)
        return {"tile_directions": np.stack(directions), "tile_extents": np.stack(extents)}

    def _described(self, stored: Mapping[str, Array]) -> list[tuple[tile_bounds.F32, tile_bounds.F32]]:
        names = self._codec.tensors(self._dim)
        found = []
        for start in range(0, len(stored["scales"]), self.tile_rows):
            tile = slice(start, start + self.tile_rows)
            part = {name: stored[name][tile] for name in names}
            bias = stored["bias"][tile].view(np.float32) if "bias" in stored else None
            found.append(tile_bounds.describe(self._codec.rows(part, self._dim), bias))
        return found

    def _decoded(self, stored: Mapping[str, Array], rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        names = self._codec.tensors(self._dim)
        return self._codec.decode({name: stored[name][rows] for name in names}, self._dim)
