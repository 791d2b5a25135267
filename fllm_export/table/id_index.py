"""Finding the stored rows of user ids in an open table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fllm_export.table.layout import ShardEntry
from fllm_export.table.shard import Shard
from fllm_export.table.table import Table

I64 = npt.NDArray[np.int64]

NO_ROW = -1


class IdIndex:
    """Remembers the order of each shard's ids between searches; shards never change.

    Ids that ascend throughout a shard are searched where they lie in the file. Those of a clustered shard, whose ids
    ascend within tiles only, are sorted once: 16 bytes of memory per row.
    """

    def __init__(self) -> None:
        self._sorted: dict[ShardEntry, tuple[I64, I64 | None]] = {}

    def rows(self, table: Table, ids: I64) -> I64:
        """Return for each id the number of its row in scan order, or :data:`NO_ROW` where no row is there or alive."""
        found = np.full(len(ids), NO_ROW, np.int64)
        known, self._sorted = self._sorted, {}
        first = 0
        for entry, shard in zip(table.layout.shards, table.shards, strict=True):
            ascending, order = self._sorted[entry] = known.get(entry) or _in_order(shard)
            places = np.minimum(np.searchsorted(ascending, ids), len(ascending) - 1)
            at = np.flatnonzero(ascending[places] == ids)
            rows = first + (places[at] if order is None else order[places[at]])
            live = ~table.tombstones.marks(rows)
            found[at[live]] = rows[live]
            first += shard.rows
        return found


def _in_order(shard: Shard) -> tuple[I64, I64 | None]:
    if bool(np.all(shard.ids[1:] > shard.ids[:-1])):
        return shard.ids, None
    order = np.argsort(shard.ids)
    return shard.ids[order], order
