"""A part of a table: some of its shards, which one machine opens where several share a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fllm_export.errors import UsageError
from fllm_export.table.layout import TableLayout
from fllm_export.table.tombstones import Tombstones


@dataclass(frozen=True)
class TablePart:
    """One of ``count`` contiguous parts of a table, each of whole shards and of about as many stored rows.

    A shard belongs to the part in which its middle row lies. So parts are known from ``table.json`` alone, and every
    machine comes to the same ones. A part can be empty where shards are few.

    Attributes:
        number: from 0 to count - 1.
        count: parts of the table.

    Raises:
        UsageError: the numbers are invalid.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.number < self.count:
            raise UsageError(
                f"part {self.number} of {self.count} was requested",
                expected="a number from 0 to the number of parts - 1",
            )

    @classmethod
    def all(cls, count: int) -> Iterator[TablePart]:
        """Yield the parts of a table in scan order."""
        for number in range(count):
            yield cls(number, count)

    def shards(self, layout: TableLayout) -> range:
        """Return the numbers of the part's shards."""
        chosen, row, total = [], 0, layout.stored_rows
        for number, shard in enumerate(layout.shards):
            # In float64, as in libfllm: every reader comes to the same parts.
            if int((2 * row + shard.rows) / (2 * total) * self.count) == self.number:
                chosen.append(number)
            row += shard.rows
        return range(chosen[0], chosen[-1] + 1) if chosen else range(0)

    def cut(self, layout: TableLayout, tombstones: Tombstones) -> tuple[TableLayout, Tombstones]:
        """Return the layout and the tombstones of the part alone; the layout of an empty part has no shard.

        Args:
            layout: of the whole table.
            tombstones: of the whole table.
        """
        chosen = self.shards(layout)
        inside = slice(chosen.start, chosen.stop)
        shards, finer = layout.shards[inside], layout.refinement
        first = sum(shard.rows for shard in layout.shards[: chosen.start])
        marked = tombstones.slice(first, first + sum(shard.rows for shard in shards))
        part = replace(
            layout,
            shards=shards,
            rows=sum(shard.rows for shard in shards) - marked.deleted,
            refinement=None if finer is None else replace(finer, shards=finer.shards[inside]),
            tombstones=layout.tombstones if marked.deleted else None,
        )
        return part, marked

    def rows(self, layout: TableLayout, tombstones: Tombstones) -> int:
        """Return the users of the part."""
        return self.cut(layout, tombstones)[0].rows

    def empty(self, table: str) -> UsageError:
        """Return the error of opening a part without users."""
        return UsageError(
            f"part {self.number} of {self.count} of {table} holds no user",
            expected="a part with users",
            fix="Divide the table into fewer parts",
        )
