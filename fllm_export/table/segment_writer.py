"""Cutting rows into full shards, and writing these."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fllm_export.files import Later
from fllm_export.table.segments import RowTensors, Segment, SegmentMaker
from fllm_export.table.table import Table
from fllm_export.table.tombstones import Tombstones


class SegmentWriter:
    """Takes rows in, and writes a shard whenever it is full.

    Attributes:
        segments: what was written.
        waiting_rows: rows that were taken in and are not written yet.

    Args:
        maker: makes the shards.
        directory: where they go.
        later: where syncs are put off to.
        names: from the number of a shard to the names of its file and of that of its refinement rows.
    """

    def __init__(
        self, maker: SegmentMaker, directory: Path, later: Later, names: Callable[[int], tuple[str, str]]
    ) -> None:
        self.segments: list[Segment] = []
        self.waiting_rows = 0
        self._maker = maker
        self._directory = directory
        self._later = later
        self._names = names
        self._waiting: list[RowTensors] = []

    def add(self, rows: RowTensors) -> None:
        """Take in rows; full shards are written at once."""
        count, start = len(rows["ids"]), 0
        while start < count:
            stop = min(start + self._maker.shard_rows - self.waiting_rows, count)
            self._waiting.append({name: array[start:stop] for name, array in rows.items()})
            self.waiting_rows += stop - start
            start = stop
            if self.waiting_rows == self._maker.shard_rows:
                self.write()

    def take_in(
        self, table: Table, tombstones: Tombstones, number: int, first: int, start: int = 0, stop: int | None = None
    ) -> None:
        """Take in rows ``start`` to ``stop`` of a shard of a table, those that are deleted left out.

        Args:
            table: the open table.
            tombstones: which of its rows are deleted.
            number: of the shard.
            first: number of its first row in scan order.
            start: first row, counted in the shard.
            stop: end of the rows; None, or a number beyond the shard's rows: its end.
        """
        shard = table.shards[number]
        tile = shard.tile(start, shard.rows if stop is None else min(stop, shard.rows))
        finer = None if table.refinement is None else table.refinement.part(number, start, start + tile.rows)
        live = tombstones.live(first + start, first + start + tile.rows)
        if live is not None:
            chosen = np.flatnonzero(live)
            tile = tile.chosen(chosen)
            finer = None if finer is None else {name: array[chosen] for name, array in finer.items()}
        self.add(self._maker.stored(tile, finer))

    def write(self) -> None:
        """Write the rows that wait as a shard."""
        if self._waiting:
            rows, finer = (self._directory / name for name in self._names(len(self.segments)))
            self.segments.append(self._maker.write(rows, finer, self._waiting, self._later))
        self._waiting, self.waiting_rows = [], 0
