"""The next generation of a table while it is made: which shards stay, what is added, which rows are deleted."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fllm_export.errors import UsageError
from fllm_export.files import Later, publish_name
from fllm_export.table.compaction import Compaction
from fllm_export.table.file_names import OWN_FILE, segment_name, segment_refinement_name, tombstones_name
from fllm_export.table.history_draft import HistoryDraft
from fllm_export.table.layout import (
    FILE_NAME,
    GENERATION_MAX,
    PREVIOUS_NAME,
    TableLayout,
    TombstonesEntry,
)
from fllm_export.table.segment_writer import SegmentWriter
from fllm_export.table.segments import RowTensors, SegmentMaker, segments_of
from fllm_export.table.shard import Shard
from fllm_export.table.table import Table, shard_shape
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
        self._kept = segments_of(table.layout)
        self._tombstones = table.tombstones
        self.histories = HistoryDraft(table.directory, table.layout.histories)
        self._later = Later()
        self._token = secrets.token_hex(4)
        self._new = SegmentWriter(self.maker, table.directory, self._later, self._names)

    def delete(self, rows: I64) -> None:
        """Mark stored rows, given by their numbers in scan order, as deleted."""
        self._tombstones = self._tombstones.with_rows(rows, self._table.layout.stored_rows)

    def add(self, rows: RowTensors) -> None:
        """Take in rows; full shards are written at once."""
        self._new.add(rows)

    @property
    def changes(self) -> bool:
        """Whether the draft differs from the table that it began with."""
        layout = self._table.layout
        new = bool(self._new.segments or self._new.waiting_rows or self.histories.changes)
        return new or len(self._kept) < len(layout.shards) or self._marks_more

    @property
    def _marks_more(self) -> bool:
        return self._tombstones is not self._table.tombstones

    def _names(self, number: int) -> tuple[str, str]:
        named = self._table.layout.generation + 1, self._token, number
        return segment_name(*named), segment_refinement_name(*named)

    def merge(self) -> None:
        """Let the rows that wait take in the shards before them that are no larger, deleted rows left out.

        So the number of small shards grows with the logarithm of the number of changes, and each row is rewritten as
        often at most: the logarithmic method (Bentley and Saxe, 1980).
        """
        if not self._new.waiting_rows or self._new.segments:
            return
        first = self._table.layout.stored_rows
        while self._kept:
            rows = self._kept[-1].rows.rows
            if rows > self._new.waiting_rows or rows + self._new.waiting_rows > MERGED_ROWS:
                return
            first -= rows
            self._new.take_in(self._table, self._tombstones, len(self._kept) - 1, first)
            self._kept.pop()

    def take(self, compaction: Compaction) -> None:
        """Put what a compaction wrote in the place of what it was made from, less the rows that have changed since."""
        sources, now, kept = compaction.sources, self._table, []
        marks: list[I64] = []
        first, stored = 0, 0
        for segment in self._kept:
            rows = segment.rows.rows
            if segment not in sources:
                live = now.tombstones.live(first, first + rows)
                if live is not None:
                    marks.append(stored + np.flatnonzero(~live))
                kept.append(segment)
                stored += rows
            first += rows
        outdated = compaction.outdated(now)
        for segment in compaction.moved([self._names(number) for number in range(len(compaction))]):
            if len(outdated):
                shard = Shard(self._directory / segment.rows.name, shard_shape(now.layout), segment.rows.rows)
                marks.append(stored + np.flatnonzero(np.isin(shard.ids, outdated)))
            kept.append(segment)
            stored += segment.rows.rows
        self._kept = kept
        self._tombstones = Tombstones.none().with_rows(np.concatenate([np.zeros(0, np.int64), *marks]), stored)

    def _layout(self) -> TableLayout:
        """Write what waits, and return the layout of the next generation."""
        self._new.write()
        base = self._table.layout
        rows, finer = zip(*self._kept, *self._new.segments, strict=True)
        layout = replace(
            base,
            generation=base.generation + 1,
            shards=rows,
            refinement=None if base.refinement is None else replace(base.refinement, shards=finer),
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
        # Shards that stay are the first ones of the table; those of a compaction have their own bits.
        kept = self._tombstones.prefix(sum(segment.rows.rows for segment in self._kept))
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
    """Remove files of rows, tombstones and histories that neither the layout of a table nor the one before it lists.

    To be called by the one writer, once both layouts are durable. Readers that have such files open keep them; a
    reader that is about to open one finds it missing, sees the new ``table.json`` and starts over.
    """
    used = {file.name for layout in (table.layout, before) for file in layout.files}
    for path in table.directory.iterdir():
        if (OWN_FILE.fullmatch(path.name) and path.name not in used) or _LEFT_OVER.fullmatch(path.name):
            path.unlink(missing_ok=True)
