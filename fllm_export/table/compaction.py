"""Rewriting a table without deleted rows, while others change it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.files import Later
from fllm_export.progress import Progress
from fllm_export.table.segment_writer import SegmentWriter
from fllm_export.table.segments import Segment, SegmentMaker, segments_of
from fllm_export.table.table import Table

I64 = npt.NDArray[np.int64]

_PREFIX = ".compacting-"


class Compaction:
    """New shards for the rows of one generation, under hidden names until a draft takes them over.

    The table may change meanwhile. What has changed is found out when the shards are taken over: a row of them is
    outdated if the row that it was copied from has been deleted since, or its shard is not part of the table any more.

    Args:
        table: the generation that is compacted; its files stay open.
        shard_bytes: size of a shard at most.
    """

    def __init__(self, table: Table, shard_bytes: int) -> None:
        self._table = table
        self._before = segments_of(table.layout)
        self._later = Later()
        self._maker = SegmentMaker(table, shard_bytes)
        token = secrets.token_hex(4)
        self._new = SegmentWriter(
            self._maker,
            table.directory,
            self._later,
            lambda number: (
                f"{_PREFIX}{token}-{number:03d}.safetensors",
                f"{_PREFIX}{token}-refine-{number:03d}.safetensors",
            ),
        )
        self._chosen = [(number, first) for number, first in self._firsts() if self._worth_rewriting(number, first)]
        if len(self._chosen) == 1 and table.tombstones.rows == 0:
            self._chosen = []

    @property
    def sources(self) -> set[Segment]:
        """The shards that are rewritten; none where nothing is to be gained."""
        return {self._before[number] for number, _ in self._chosen}

    def write(self, progress: Progress) -> None:
        """Write and sync all rows of the shards but those that are less than half empty and have no deleted row.

        Raises:
            OSError: the system refuses.
        """
        layout, done = self._table.layout, 0
        total = sum(layout.shards[number].rows for number, _ in self._chosen)
        for number, first in self._chosen:
            for start in range(0, layout.shards[number].rows, layout.tile_rows):
                self._new.take_in(self._table, self._table.tombstones, number, first, start, start + layout.tile_rows)
                done += min(layout.tile_rows, layout.shards[number].rows - start)
                progress("compact", done, total)
        self._new.write()
        self._later.sync_files()

    def outdated(self, now: Table) -> I64:
        """Return the ids of the rows that were written and are not those of their users in ``now``, int64 [n]."""
        places, first = {}, 0
        for segment in segments_of(now.layout):
            places[segment] = first
            first += segment.rows.rows
        found = []
        for number, first in self._chosen:
            ids, at = self._table.shards[number].ids, places.get(self._before[number])
            then = self._table.tombstones.live(first, first + len(ids))
            if at is None:
                found.append(ids if then is None else ids[then])
                continue
            live = now.tombstones.live(at, at + len(ids))
            if live is not None:
                found.append(ids[~live] if then is None else ids[then & ~live])
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def moved(self, names: list[tuple[str, str]]) -> list[Segment]:
        """Give the shards their names, and return them.

        Args:
            names: of each shard and of its refinement rows, at least as many as there are shards.
        """
        directory, moved = self._table.directory, []
        for segment, (rows, finer) in zip(self._new.segments, names, strict=False):
            (directory / segment.rows.name).replace(directory / rows)
            if segment.finer is not None:
                (directory / segment.finer.name).replace(directory / finer)
            entry = None if segment.finer is None else replace(segment.finer, name=finer)
            moved.append(Segment(replace(segment.rows, name=rows), entry))
        return moved

    def __len__(self) -> int:
        return len(self._new.segments)

    def discard(self) -> None:
        """Remove what no draft has taken over. The caller holds the lock of compactions: nobody else writes any."""
        self._later.forget()
        remove_unfinished(self._table.directory)

    def _firsts(self) -> Iterator[tuple[int, int]]:
        """Yield the number of each shard and that of its first row in scan order."""
        first = 0
        for number, entry in enumerate(self._table.layout.shards):
            yield number, first
            first += entry.rows

    def _worth_rewriting(self, number: int, first: int) -> bool:
        rows = self._table.layout.shards[number].rows
        return 2 * rows < self._maker.shard_rows or self._table.tombstones.live(first, first + rows) is not None


def remove_unfinished(directory: Path) -> None:
    """Remove the files of compactions that were cut off. To be called under the lock of compactions."""
    for pattern in (f"{_PREFIX}*", f".{_PREFIX}*"):
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)
