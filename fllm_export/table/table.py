"""Reading a table: its shards mapped in place, cut into tiles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.errors import BundleError, UsageError
from fllm_export.files import open_whole, sha256_file
from fllm_export.table import tile_bounds
from fllm_export.table.codecs import codec
from fllm_export.table.histories import Histories
from fllm_export.table.ids import check_unique
from fllm_export.table.layout import FILE_NAME, ShardEntry, TableLayout
from fllm_export.table.part import TablePart
from fllm_export.table.refinement import Refinement
from fllm_export.table.shard import Shard, ShardShape, Tile
from fllm_export.table.tombstones import Tombstones

LabelledRows = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32] | None]
"""User ids [n], rows [n, d], and biases [n] or None."""


def shard_shape(layout: TableLayout) -> ShardShape:
    """Return what a layout says of each of its shards."""
    return ShardShape(
        codec(layout.codec),
        layout.dim,
        layout.bias,
        layout.tile_rows,
        layout.sketch_dims,
        layout.tile_bounds,
        layout.tile_ends,
    )


class Table:
    """A table on disk, opened read-only. Opening reads headers only; pages come in as tiles are scored.

    Where the directory is replaced meanwhile, opening starts over: layout and shards are always those of one table.

    Args:
        directory: holds ``table.json``.
        before: an earlier opening of the same directory, whose shards that are still part of the table are kept open.
        fall_back: whether an unreadable ``table.json`` lets the layout before be taken, with a warning.
        part: the part that is opened; the whole table when not given.

    Raises:
        BundleError: a file is missing, damaged or of a newer format.
        UsageError: the part holds no user.
    """

    def __init__(
        self,
        directory: Path,
        *,
        before: Table | None = None,
        fall_back: bool = True,
        part: TablePart | None = None,
    ) -> None:
        self.directory = directory
        known = {} if before is None else dict(zip(before.layout.shards, before.shards, strict=True))
        opened = open_whole("table", directory / FILE_NAME, lambda: _read(directory, known, part, fall_back=fall_back))
        self.layout: TableLayout = opened[0]
        self.shards: list[Shard] = opened[1]
        self.refinement: Refinement | None = opened[2]
        self.tombstones: Tombstones = opened[3]
        self.codec = codec(self.layout.codec)

    def tiles(self) -> Iterator[Tile]:
        """Yield all tiles in scan order, without rows that are deleted; a tile of deleted rows alone is left out."""
        first = 0
        for _, _, tile in self._located_tiles():
            live = self.tombstones.live(first, first + tile.rows)
            first += tile.rows
            if live is None:
                yield tile
            elif live.any():
                yield tile.chosen(np.flatnonzero(live))

    def _located_tiles(self) -> Iterator[tuple[int, int, Tile]]:
        """Yield all tiles as they are stored, each with the number of its shard and of its first row there."""
        for number, shard in enumerate(self.shards):
            for start, stop in shard.spans():
                yield number, start, shard.tile(start, stop)

    def gather(self, rows: npt.NDArray[np.int64]) -> Tile:
        """Return copies of some stored rows, given by their numbers in scan order; ids come in the same order."""
        ends = np.cumsum([shard.rows for shard in self.shards])
        owners = np.searchsorted(ends, rows, side="right")
        parts = []
        places = []
        for number in np.unique(owners):
            at = np.flatnonzero(owners == number)
            places.append(at)
            parts.append(self.shards[number].gather(rows[at] - (ends[number] - self.shards[number].rows)))
        back = np.argsort(np.concatenate(places))
        stored = {name: np.concatenate([part.stored[name] for part in parts])[back] for name in parts[0].stored}
        bias = [part.bias for part in parts if part.bias is not None]
        ids = np.concatenate([part.ids for part in parts])[back]
        return Tile(stored, ids, np.concatenate(bias)[back] if bias else None)

    def decoded(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Yield ids [n] and the float32 rows [n, d] that the codes stand for, as :meth:`labelled_chunks`."""
        for ids, rows, _ in self.labelled_chunks():
            yield ids, rows

    def labelled_chunks(self) -> Iterator[LabelledRows]:
        """Yield ids int64 [n], the float32 rows [n, d] that the codes stand for and biases float32 [n] (or None).

        A tile at a time, without deleted rows; where there are refinement rows, these, as they are nearer to what was
        written.
        """
        if self.refinement is None:
            for tile in self.tiles():
                yield tile.ids, self.codec.decode(tile.stored, self.layout.dim), tile.bias
            return
        finer, first = self.refinement, 0
        for number, start, tile in self._located_tiles():
            stored = finer.part(number, start, start + tile.rows)
            live = self.tombstones.live(first, first + tile.rows)
            first += tile.rows
            if live is not None:
                tile, stored = tile.chosen(np.flatnonzero(live)), {name: array[live] for name, array in stored.items()}
            if tile.rows:
                yield tile.ids, finer.codec.decode(stored, finer.dim), tile.bias

    def check_finite(self, tile: Tile) -> None:
        """Check that the codes, scales and biases of some rows are finite.

        Raises:
            BundleError: naming the first user whose row is not.
        """
        finite = self.codec.finite(tile.stored)
        if tile.bias is not None:
            finite &= np.isfinite(tile.bias)
        self._require(finite, tile.ids)

    def _require(self, finite: npt.NDArray[np.bool_], ids: npt.NDArray[np.int64]) -> None:
        if not finite.all():
            user = ids[int(np.argmin(finite))]
            raise BundleError(
                f"{self.directory}: the row of user {user} holds a number that is not finite",
                expected="finite numbers in every row",
                fix="Copy the table again, or build it again",
            )

    def verify(self) -> int:
        """Read every byte: hashes, finite numbers, true bounds, ids ascending within tiles and unique in the table.

        Returns:
            the bytes of the table's files.

        Raises:
            BundleError: naming the file, and what is wrong with it.
        """
        total = TableLayout.verify(self.directory)
        for entry in self.layout.files:
            size = (self.directory / entry.name).stat().st_size
            if size != entry.bytes:
                raise BundleError(f"{self.directory / entry.name} has {size} bytes", expected=f"{entry.bytes}")
            total += size
            digest = sha256_file(self.directory / entry.name)
            if digest != entry.sha256:
                raise BundleError(
                    f"{self.directory / entry.name} has SHA-256 {digest}",
                    expected=entry.sha256,
                    fix="Copy the file again, or build the table again",
                )
        for number, (shard, start, tile) in enumerate(self._located_tiles()):
            if tile.ids[0] < 0 or not bool(np.all(tile.ids[1:] > tile.ids[:-1])):
                raise BundleError(
                    f"{self.directory}: tile {number}: user ids do not ascend", expected="ascending ids of at least 0"
                )
            self.check_finite(tile)
            if self.refinement is not None:
                stored = self.refinement.part(shard, start, start + tile.rows)
                self._require(self.refinement.codec.finite(stored), tile.ids)
        if self.layout.tile_bounds:
            self._verify_bounds()
        Histories.load(self.directory, self.layout.histories).verify()
        try:
            check_unique([np.sort(ids) for ids in self.live_ids()])
        except UsageError as error:
            raise BundleError(f"{self.directory}: {error.found}", expected=error.expected) from error
        return total

    def live_ids(self) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the ids of each shard, without those of deleted rows, int64 [n]."""
        first = 0
        for shard in self.shards:
            live = self.tombstones.live(first, first + shard.rows)
            yield shard.ids if live is None else shard.ids[live]
            first += shard.rows

    def _verify_bounds(self) -> None:
        for shard in self.shards:
            directions, extents = (shard.beside[name].view(np.float32) for name in ("tile_directions", "tile_extents"))
            for number, span in enumerate(shard.spans()):
                tile = shard.tile(*span)
                rows = self.codec.rows(tile.stored, self.layout.dim)
                if not tile_bounds.holds(rows, tile.bias, directions[number], extents[number]):
                    raise BundleError(
                        f"{shard.path}: the bounds of tile {number} are not those of its rows",
                        expected="bounds that every row keeps",
                        fix="Build the table again",
                    )


def _read(
    directory: Path, known: dict[ShardEntry, Shard], part: TablePart | None, *, fall_back: bool
) -> tuple[TableLayout, list[Shard], Refinement | None, Tombstones]:
    layout = TableLayout.load(directory, fall_back=fall_back)
    marked = Tombstones.of(directory, layout)
    if part is not None:
        layout, marked = part.cut(layout, marked)
        if not layout.rows:
            raise part.empty(str(directory))
    shape = shard_shape(layout)
    shards = [known.get(entry) or Shard(directory / entry.name, shape, entry.rows) for entry in layout.shards]
    finer = None if layout.refinement is None else Refinement(directory, layout.refinement)
    return layout, shards, finer, marked
