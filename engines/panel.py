"""A sample of a table's rows, by which softmax denominators are estimated (docs/internals/log_probabilities.md).

The stored rows, in scan order, are cut into equal parts, and one row is drawn from each by a hash of the part's number.
libfllm draws the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fllm_export.table.shard import Tile
from fllm_export.table.table import Table

U64 = npt.NDArray[np.uint64]

_ROWS_OF_ONE, _FEWEST, _MOST = 384, 2048, 65_536

SUMMED_ROWS = 16_384
"""Of a table with at most so many stored rows the sum over every row takes no longer than a panel."""


@dataclass(frozen=True)
class Panel:
    """The rows drawn from a table.

    Attributes:
        part_rows: stored rows that each row drawn stands for.
        slots: number of parts.
        filled: int64 [n], the parts whose row is neither deleted nor beyond the last one, ascending.
        rows: int64 [n], the numbers of these rows in the table, in scan order.
        tile: these rows.
    """

    part_rows: int
    slots: int
    filled: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    tile: Tile

    @classmethod
    def of(cls, table: Table) -> Panel:
        """Draw the rows of a table."""
        stored = sum(shard.rows for shard in table.shards)
        drawn = min(max(stored // _ROWS_OF_ONE, _FEWEST), _MOST)
        part_rows = -(-stored // drawn)
        slots = np.arange(-(-stored // part_rows))
        rows = slots * part_rows + (mixed(slots.astype(np.uint64)) % np.uint64(part_rows)).astype(np.int64)
        filled = np.flatnonzero(rows < stored)
        filled = filled[~table.tombstones.marks(rows[filled])]
        return cls(part_rows, len(slots), filled, rows[filled], table.gather(rows[filled]))


def mixed(numbers: U64) -> U64:
    """Return 64 bits that look random for each number: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        found = numbers + np.uint64(0x9E3779B97F4A7C15)
        found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed_bits: U64 = found ^ (found >> np.uint64(31))
    return mixed_bits
