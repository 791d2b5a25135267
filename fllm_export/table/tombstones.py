"""Which stored rows of a table are deleted: one bit per row, in a file of its own beside the shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.errors import BundleError
from fllm_export.files import Later, publish, sha256_file
from fllm_export.safetensors_layout import TensorFacts, lay_out
from fllm_export.table.layout import TableLayout, TombstonesEntry
from fllm_export.table.shard import PAGE_BYTES, checked_tensor, read_tensors

TENSOR = "deleted"

_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)
"""How many bits of a byte are set."""

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Tombstones:
    """A bit per stored row, in scan order; rows beyond the last bit are not deleted.

    Attributes:
        rows: rows that have a bit.
        bits: uint8 [ceil(rows / 8)]; row r is bit r % 8, the lowest being bit 0, of byte r // 8.
    """

    rows: int
    bits: U8

    @classmethod
    def none(cls) -> Tombstones:
        """Return the tombstones of a table without deleted rows."""
        return cls(0, np.zeros(0, np.uint8))

    @classmethod
    def of(cls, directory: Path, layout: TableLayout) -> Tombstones:
        """Return the tombstones of a table, as :meth:`load` reads them; none where no row is deleted."""
        return cls.none() if layout.tombstones is None else cls.load(directory, layout.tombstones)

    @classmethod
    def load(cls, directory: Path, entry: TombstonesEntry) -> Tombstones:
        """Read the file that ``table.json`` lists.

        Raises:
            BundleError: it is missing, damaged, or not as ``table.json`` describes it.
        """
        path = directory / entry.name
        bits = checked_tensor(path, read_tensors(path), TENSOR, "U8", (-(-entry.rows // 8),))
        found = cls(entry.rows, bits.view(np.uint8))
        if entry.rows % 8 and found.bits[-1] >> (entry.rows % 8):
            raise BundleError(f"{path} marks rows beyond {entry.rows}", expected="zero bits after the last row")
        if found.deleted != entry.deleted:
            raise BundleError(
                f"{path} marks {found.deleted} rows as deleted", expected=f"{entry.deleted}, as table.json says"
            )
        return found

    def save(self, directory: Path, name: str, later: Later | None = None) -> TombstonesEntry:
        """Publish the file, synced now or later, under a name that no file has had, and return its entry."""
        facts = {TENSOR: TensorFacts("U8", self.bits.shape, self.bits.nbytes)}
        layout = lay_out(facts, page_bytes=PAGE_BYTES, metadata={"format": "fllm-tombstones"})
        with publish(directory / name, later) as file:
            file.write(layout.header)
            file.write(self.bits.data)
        return TombstonesEntry(name, self.rows, layout.size, sha256_file(directory / name), self.deleted)

    @property
    def deleted(self) -> int:
        """Rows that are deleted."""
        return int(_ONES[self.bits].sum(dtype=np.int64))

    def marks(self, rows: I64) -> Bools:
        """Return for each row, given by its number in scan order, whether it is deleted."""
        inside = rows < self.rows
        known = np.where(inside, rows, 0)
        if not self.rows:
            return np.zeros(len(rows), np.bool_)
        marked: Bools = inside & ((self.bits[known >> 3] >> (known & 7).astype(np.uint8) & 1) != 0)
        return marked

    def live(self, start: int, stop: int) -> Bools | None:
        """Return which of the rows ``start`` to ``stop`` are not deleted, bool [stop - start]; None where all are."""
        last = min(stop, self.rows)
        if start >= last or not self.bits[start >> 3 : -(-last >> 3)].any():
            return None
        bits = np.unpackbits(self.bits[start >> 3 : -(-last // 8)], bitorder="little")
        marked = bits[start & 7 :][: last - start].astype(np.bool_)
        if not marked.any():
            return None
        live = np.ones(stop - start, np.bool_)
        live[: last - start] = ~marked
        return live

    def with_rows(self, rows: I64, stored: int) -> Tombstones:
        """Return tombstones of ``stored`` rows that mark some more of them."""
        if not len(rows):
            return self
        bits = np.zeros(-(-stored // 8), np.uint8)
        bits[: len(self.bits)] = self.bits
        np.bitwise_or.at(bits, rows >> 3, np.left_shift(np.uint8(1), (rows & 7).astype(np.uint8)))
        return Tombstones(stored, bits)

    def slice(self, start: int, stop: int) -> Tombstones:
        """Return the tombstones of the rows ``start`` to ``stop`` alone, counted from 0."""
        live = self.live(start, stop)
        if live is None:
            return Tombstones.none()
        return Tombstones(stop - start, np.packbits(~live, bitorder="little"))

    def prefix(self, stored: int) -> Tombstones:
        """Return the tombstones of a table that keeps its first ``stored`` rows alone."""
        if stored >= self.rows:
            return self
        bits = self.bits[: -(-stored // 8)].copy()
        if stored % 8:
            bits[-1] &= (1 << stored % 8) - 1
        return Tombstones(stored, bits) if bits.any() else Tombstones.none()
