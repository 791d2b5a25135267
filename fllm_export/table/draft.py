"""The next generation of a table while it is made: which shards stay, what is added, which rows are deleted."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fllm_export.errors import UsageError
from fllm_export.files import Later, publish_name
from fllm_export.progress import Progress
from fllm_export.table.file_names import OWN_FILE, segment_name, tombstones_name
from fllm_export.table.history_draft import HistoryDraft
from fllm_export.table.layout import (
    FILE_NAME,
    GENERATION_MAX,
    PREVIOUS_NAME,
    ShardEntry,
    TableLayout,
    TombstonesEntry,
)
from fllm_export.table.segments import RowTensors, SegmentMaker
from fllm_export.table.table import Table
from fllm_export.table.tombstones import Tombstones

I64 = npt.NDArray[np.int64]

MERGED_ROWS = 16_384
"""A shard that a change adds takes in the small ones before it as long as it has no more rows than this."""

_LEFT_OVER = re.compile(rf"\.({OWN_FILE.pattern}|{re.escape(FILE_NAME)}|{re.escape(PREVIOUS_NAME)})\..*")


class Draft:
    """Changes to one generation of a table, published in one step or not at all.

    Args:
        table: the table as it is now; the caller holds the writer's lock.
        shard_bytes: size of a shard at most.

    Raises:
        UsageError: the table's generation is the last that there can be.
    """

    def __init__(self, table: Table, shard_bytes: int) -> None:
        if table.layout.generation >= GENERATION_MAX:
            raise UsageError(f"generation is {table.layout.generation}", expected=f"less than {GENERATION_MAX}")
        self._table = table
        self._directory = table.directory
        self.maker = SegmentMaker(table, shard_bytes)
        self._kept = list(table.layout.shards)
        self._tombstones = table.tombstones
        self._added: list[ShardEntry] = []
        self._waiting: list[RowTensors] = []
        self._waiting_rows = 0
        self.histories = HistoryDraft(table.directory, table.layout.histories)
        self._later = Later()
        self._token = secrets.token_hex(4)

    def delete(self, rows: I64) -> None:
        """Mark stored rows, given by their numbers in scan order, as deleted."""
        self._tombstones = self._tombstones.with_rows(rows, self._table.layout.stored_rows)

    def add(self, rows: RowTensors) -> None:
        """Take in rows; full shards are written at once."""
        count, start = len(rows["ids"]), 0
        while start < count:
            stop = min(start + self.maker.shard_rows - self._waiting_rows, count)
            self._waiting.append({name: array[start:stop] for name, array in rows.items()})
            self._waiting_rows += stop - start
            start = stop
            if self._waiting_rows == self.maker.shard_rows:
                self.write()

    @property
    def changes(self) -> bool:
        """Whether the draft differs from the table that it began with."""
        layout = self._table.layout
        rows = bool(self._added or self._waiting) or len(self._kept) < len(layout.shards) or self._marks_more
        return rows or self.histories.changes

    @property
    def _marks_more(self) -> bool:
        return self._tombstones is not self._table.tombstones

    def write(self) -> None:
        """Write the rows that wait as a shard."""
        if self._waiting:
            name = segment_name(self._table.layout.generation + 1, self._token, len(self._added))
            self._added.append(self.maker.write(self._directory / name, self._waiting, self._later))
        self._waiting, self._waiting_rows = [], 0

    def merge(self) -> None:
        """Let the rows that wait take in the shards before them that are no larger, deleted rows left out.

        So the number of small shards grows with the logarithm of the number of changes, and each row is rewritten as
        often at most: the logarithmic method (Bentley and Saxe, 1980).
        """
        if not self._waiting or self._added:
            return
        first = self._table.layout.stored_rows
        while self._kept:
            rows = self._kept[-1].rows
            if rows > self._waiting_rows or rows + self._waiting_rows > MERGED_ROWS:
                return
            first -= rows
            self._take_in(len(self._kept) - 1, first)
            self._kept.pop()

    def compact(self, progress: Progress) -> None:
        """Write all rows anew but for those of shards that are at least half full and have no deleted row."""
        layout, done = self._table.layout, 0
        self.histories.compact()
        chosen = [(number, first) for number, first in self._firsts() if self._worth_rewriting(number, first)]
        if len(chosen) == 1 and self._tombstones.rows == 0:
            return
        total = sum(layout.shards[number].rows for number, _ in chosen)
        for number, first in chosen:
            self._kept.remove(layout.shards[number])
            for start in range(0, layout.shards[number].rows, layout.tile_rows):
                self._take_in(number, first, start, start + layout.tile_rows)
                done += min(layout.tile_rows, layout.shards[number].rows - start)
                progress("compact", done, total)
        self._tombstones = Tombstones.none()

    def _firsts(self) -> Iterator[tuple[int, int]]:
        """Yield the number of each shard and that of its first row in scan order."""
        first = 0
        for number, entry in enumerate(self._table.layout.shards):
            yield number, first
            first += entry.rows

    def _worth_rewriting(self, number: int, first: int) -> bool:
        rows = self._table.layout.shards[number].rows
        return 2 * rows < self.maker.shard_rows or self._tombstones.live(first, first + rows) is not None

    def _take_in(self, number: int, first: int, start: int = 0, stop: int | None = None) -> None:
        shard = self._table.shards[number]
        tile = shard.tile(start, shard.rows if stop is None else min(stop, shard.rows))
        live = self._tombstones.live(first + start, first + start + tile.rows)
        self.add(self.maker.stored(tile if live is None else tile.chosen(np.flatnonzero(live))))

    def _layout(self) -> TableLayout:
        """Write what waits, and return the layout of the next generation."""
        self.write()
        base = self._table.layout
        layout = replace(
            base,
            generation=base.generation + 1,
            shards=(*self._kept, *self._added),
            tombstones=self._saved_tombstones(),
            histories=self.histories.save(base.generation + 1, self._token, self._later),
        )
        return replace(layout, rows=layout.stored_rows - (layout.tombstones.deleted if layout.tombstones else 0))

    def prepare(self) -> None:
        """Write and sync the next generation: everything but the name of its ``table.json``.

        Raises:
            OSError: the system refuses.
            UsageError: another writer has changed the table since.
        """
        text, base = self._layout().text(), self._table.layout
        now = TableLayout.load(self._directory, fall_back=False)
        if now != base:
            raise UsageError(
                f"{self._directory} went from generation {base.generation} to {now.generation} while it was changed",
                expected="one writer at a time",
                fix="Repeat the change",
            )
        publish_name(self._directory / FILE_NAME, self._directory / PREVIOUS_NAME)
        self._later.stage(self._directory / FILE_NAME, text)
        self._later.sync()

    def publish(self) -> None:
        """Put the next layout in the place of the table's, which stays as the layout before.

        When this raises, either layout may be the one in the directory, and the files of both are there.

        Raises:
            OSError: the system refuses.
        """
        self._later.publish()

    def _saved_tombstones(self) -> TombstonesEntry | None:
        base = self._table
        # Shards that stay are the first ones of the table, unless none of their rows is deleted.
        kept = self._tombstones.prefix(sum(entry.rows for entry in self._kept))
        if kept is base.tombstones:
            return base.layout.tombstones
        if not kept.rows:
            return None
        name = tombstones_name(base.layout.generation + 1, self._token)
        return kept.save(self._directory, name, self._later)

    def discard(self) -> None:
        """Remove the files that were written, none of which a layout names."""
        self._later.forget()
        for path in self._directory.glob(f"*-{self._token}-*"):
            path.unlink(missing_ok=True)


def remove_unused(table: Table, before: TableLayout) -> None:
    """Remove files of shards, tombstones and histories that neither the layout of a table nor the one before it lists.

    To be called by the one writer, once both layouts are durable. Readers that have such files open keep them; a
    reader that is about to open one finds it missing, sees the new ``table.json`` and starts over.
    """
    used = {file.name for layout in (table.layout, before) for file in layout.files}
    for path in table.directory.iterdir():
        if (OWN_FILE.fullmatch(path.name) and path.name not in used) or _LEFT_OVER.fullmatch(path.name):
            path.unlink(missing_ok=True)
