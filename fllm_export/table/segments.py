"""Making further shards of a table: rows in its own codec, sketch, tiles and refinement rows."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from fllm_export.errors import UsageError
from fllm_export.files import Later, sha256_file
from fllm_export.table.bit_planes import into_blocks
from fllm_export.table.clusters import Tiling
from fllm_export.table.codec_names import RefineName
from fllm_export.table.footprint import row_counts
from fllm_export.table.layout import ShardEntry, TableLayout
from fllm_export.table.options import TableOptions
from fllm_export.table.refinement_maker import RefinementMaker
from fllm_export.table.rounding import Rounding
from fllm_export.table.shard import Array, Tile, write_shard
from fllm_export.table.shard_rows import ShardRows, in_order
from fllm_export.table.sketch_maker import SketchMaker
from fllm_export.table.table import Table, shard_shape
from fllm_export.table.tile_maker import TileMaker

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
RowTensors = dict[str, Array]
"""By name a tensor with an element or a row for every user: the codec's, ``ids``, and perhaps ``bias`` and those of
refinement rows."""


class Segment(NamedTuple):
    """A shard, and the file of the refinement rows of the same users in the same order, where the table has any."""

    rows: ShardEntry
    finer: ShardEntry | None


def segments_of(layout: TableLayout) -> list[Segment]:
    """Return the shards of a table with their refinement rows."""
    finer = [None] * len(layout.shards) if layout.refinement is None else layout.refinement.shards
    return [Segment(*pair) for pair in zip(layout.shards, finer, strict=True)]


class SegmentMaker:
    """Writes rows as the table stores them: its codec, the basis of its sketch, its tile size.

    Args:
        table: the open table.
        shard_bytes: size of a shard at most.
    """

    def __init__(self, table: Table, shard_bytes: int) -> None:
        layout = table.layout
        self._codec = table.codec
        self._layout = layout
        self._shape = shard_shape(layout)
        refine = cast("RefineName", "no" if layout.refinement is None else layout.refinement.codec)
        self._finer = RefinementMaker(refine, layout.item_dim, table.codec, layout.dim)
        self._sketch = SketchMaker("auto", table.codec.name, layout.dim)
        if layout.sketch_dims:
            self._sketch.take_up(table.shards[0].beside)
        self._tiles = TileMaker("yes" if layout.tile_bounds else "no", layout.dim, layout.tile_rows)
        self._tiles.decide(whole_table=False)
        options = TableOptions(
            quant=table.codec.name,
            shard_bytes=shard_bytes,
            sketch="yes" if layout.sketch_dims else "no",
            cluster="yes" if layout.tile_bounds else "no",
        )
        _, rows = row_counts(options, layout.dim)
        self.shard_rows = max(1, rows // layout.tile_rows) * layout.tile_rows
        """Rows of a full shard."""

    def encoded(self, rows: F32, ids: I64, bias: F32 | None, rounding: Rounding) -> RowTensors:
        """Return finite rows float32 [n, item_dim] as the table stores them.

        Raises:
            UsageError: there is a bias and the table has none, or the other way round.
        """
        if self._layout.bias != (bias is not None):
            raise UsageError(
                "bias was given" if bias is not None else "no bias was given",
                expected="bias for every row" if self._layout.bias else "no bias, as the table has none",
            )
        scanned = self._codec.encode(np.ascontiguousarray(rows[:, : self._layout.dim]), rounding)
        return self._named({**scanned, **self._finer.encode(rows)}, ids, bias)

    def stored(self, tile: Tile, finer: RowTensors | None) -> RowTensors:
        """Return rows that the table holds already, with what is stored of their refinement rows."""
        return self._named(
            tile.stored if finer is None else {**tile.stored, **self._finer.give(finer)}, tile.ids, tile.bias
        )

    def write(self, path: Path, finer_path: Path, parts: list[RowTensors], later: Later) -> Segment:
        """Publish a shard of some rows, whose ids are different, and their refinement rows, to be synced later."""
        tensors = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        order = np.argsort(tensors["ids"], kind="stable")
        tensors = in_order(tensors, order)
        if self._layout.tile_bounds or self._layout.sketch_dims:
            tensors = self._described(tensors)
        finer = self._finer.write(finer_path, self._finer.take(tensors), later)
        if self._codec.in_blocks:
            tensors["codes"] = into_blocks(tensors["codes"])
        size = write_shard(path, self._shape.holding(tensors), tensors, later)
        return Segment(ShardEntry(path.name, len(order), size, sha256_file(path)), finer)

    def _named(self, stored: RowTensors, ids: I64, bias: F32 | None) -> RowTensors:
        return {**stored, "ids": ids} if bias is None else {**stored, "ids": ids, "bias": bias}

    def _described(self, tensors: RowTensors) -> RowTensors:
        """Return a shard's tensors in tile order, with what rules rows and tiles out."""
        rows = ShardRows(self._codec, tensors, self._layout.dim)
        beside: RowTensors = {}
        if self._layout.tile_bounds:
            ends = None
            if len(rows) > self._layout.tile_rows:  # else one tile holds them all
                order, ends = self._tiling(rows)
                tensors = in_order(tensors, order)
                rows = ShardRows(self._codec, tensors, self._layout.dim)
            bias = tensors["bias"].view(np.float32) if self._layout.bias else None
            beside |= self._tiles.tensors(rows, bias, ends)
        if self._layout.sketch_dims:
            beside |= self._sketch.tensors(rows)
        return {**tensors, **beside}

    def _tiling(self, rows: ShardRows) -> Tiling:
        """Return the order of a shard's rows and its tiles: of even size where the table's readers know no others."""
        return self._tiles.tiling(rows) if self._layout.tile_ends else Tiling(self._tiles.order(rows), None)
