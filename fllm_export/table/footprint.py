"""How many bytes a table takes on disk, exactly, before a row of it is written.

But for tables whose rows lie in clusters that are well apart, which the rows alone can tell: the bounds of their tiles
add at most a 32nd to int8 rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fllm_export.arguments import integer
from fllm_export.errors import UsageError
from fllm_export.table import refinement
from fllm_export.table.bit_planes import BLOCK_ROWS, GROUP_DIMS, whole_groups
from fllm_export.table.codec_names import CodecName, RefineName
from fllm_export.table.codecs import codec
from fllm_export.table.file_names import shard_name
from fllm_export.table.layout import RefinementLayout, ShardEntry, TableLayout, tile_rows
from fllm_export.table.options import TableOptions
from fllm_export.table.refinement import RefinementShape
from fllm_export.table.refinement_maker import RefinementMaker
from fllm_export.table.shard import Shape, ShardShape, shard_layout, tensor_facts
from fllm_export.table.sketch_maker import SketchMaker
from fllm_export.table.tile_maker import TileMaker

HEADER, PADDING, LAYOUT = "headers", "padding to pages", "table.json"
"""The parts of a table that are no tensors."""

REFINEMENT = "refinement"
"""The tensors of all refinement rows."""

_UNREAD = ("ids", HEADER, PADDING, LAYOUT, REFINEMENT)
_DIGEST = "0" * 64
_MOST_SHARDS = 100_000
"""More of them are no plan of a table, and counting them would take minutes."""


def row_counts(options: TableOptions, dim: int, scan_dim: int | None = None) -> tuple[int, int]:
    """Return the rows of a tile where nothing is clustered, and the rows of a full shard.

    Args:
        options: how the table is written.
        dim: dimension of a whole row.
        scan_dim: dimension of the rows that are scanned, where it is another.
    """
    width = dim if scan_dim is None else scan_dim
    sketch_bytes = SketchMaker(options.sketch, options.quant, width).row_bytes
    row_bytes = codec(options.quant).row_bytes(width) + sketch_bytes
    finer = refinement.row_bytes(options.refine, dim)
    step = tile_rows(row_bytes, options.shard_bytes * row_bytes // (row_bytes + finer))
    if sketch_bytes or codec(options.quant).in_blocks:
        step = max(BLOCK_ROWS, step)
    beside = TileMaker(options.cluster, width, step).row_bytes + finer
    return step, max(1, options.shard_bytes // ((row_bytes + beside) * step)) * step


@dataclass(frozen=True)
class Footprint:
    """The files of a table.

    Attributes:
        rows: users.
        dim: dimension of a user row that is scanned.
        item_dim: dimension of an item vector, and of refinement rows.
        quant: the codec.
        refine: codec of refinement rows, or ``no``.
        shard_rows: rows of each shard, in order.
        tile_rows: rows of a tile.
        sketch_dims: dimensions of the sketch, or 0.
        clustered: whether similar rows share a tile, with bounds on its scores.
        parts: bytes on disk of each tensor over all shards, and of headers, padding and ``table.json``.
    """

    rows: int
    dim: int
    item_dim: int
    quant: CodecName
    refine: RefineName
    shard_rows: tuple[int, ...]
    tile_rows: int
    sketch_dims: int
    clustered: bool
    parts: dict[str, int]

    @classmethod
    def of(
        cls,
        options: TableOptions,
        rows: int,
        dim: int,
        *,
        scan_dim: int | None = None,
        bias: bool = False,
        sketch_dims: int | None = None,
    ) -> Footprint:
        """Return the footprint of a table that :class:`fllm_export.UserTable` would write with these options.

        Args:
            options: how the table is written.
            rows: users, at least 1.
            dim: dimension of a user row, at least 1.
            scan_dim: dimension of the rows that are scanned; ``dim``, or less where there are refinement rows.
            bias: whether rows have a bias.
            sketch_dims: dimensions of the sketch, where there is one. The rows decide it (half of ``dim``, three
                quarters or all of it), so it is known only of rows like these; None means all, which is the most.

        Raises:
            UsageError: a number is invalid.
        """
        count = integer(rows, "rows", least=1)
        whole = integer(dim, "dim", least=1)
        width = whole if scan_dim is None else integer(scan_dim, "scan_dim", least=1, most=whole)
        finer = RefinementMaker(options.refine, whole, codec(options.quant), width)
        step, full = row_counts(options, whole, width)
        whole_table = count < full
        tiles = TileMaker(options.cluster, width, step)
        tiles.decide(whole_table=whole_table)
        dims = 0
        if SketchMaker(options.sketch, options.quant, width).makes(whole_table=whole_table):
            dims = _checked_dims(sketch_dims, width)
        shape = ShardShape(codec(options.quant), width, bias, tiles.tile_rows, dims, tiles.clusters)
        if count > full * _MOST_SHARDS:
            raise UsageError(
                f"{count:,} rows on a machine are {count // full:,} shards of {full:,} rows",
                expected=f"at most {_MOST_SHARDS:,} shards",
                fix="Plan for fewer rows, for more machines, or for larger shards (--shard-bytes)",
            )
        shards = (full,) * (count // full) + ((count % full,) if count % full else ())
        parts = _parts(shape, shards, finer.shape, options.shard_bytes)
        quant, refine = options.quant, options.refine
        return cls(count, width, whole, quant, refine, shards, tiles.tile_rows, dims, tiles.clusters, parts)

    @property
    def disk(self) -> int:
        """Bytes of all files."""
        return sum(self.parts.values())

    @property
    def largest_shard(self) -> int:
        """Rows of the largest shard."""
        return max(self.shard_rows)

    @property
    def read(self) -> int:
        """Bytes that a search of every row reads: codes and scales, but no ids, bounds, sketch or refinement rows."""
        return sum(size for name, size in self.parts.items() if name not in _UNREAD and not _beside(name))

    @property
    def resident(self) -> int:
        """Bytes that searches touch again and again: what every row is read from, the sketch and the bounds."""
        return sum(size for name, size in self.parts.items() if name not in _UNREAD)


def _beside(name: str) -> bool:
    return name.startswith(("sketch_", "tile_"))


def _checked_dims(sketch_dims: int | None, dim: int) -> int:
    whole = whole_groups(dim)
    if sketch_dims is None:
        return whole
    found = integer(sketch_dims, "sketch_dims", least=GROUP_DIMS, most=whole)
    if found % GROUP_DIMS:
        raise UsageError(f"sketch_dims is {found}", expected=f"a multiple of {GROUP_DIMS}")
    return found


def _parts(
    shape: ShardShape, shards: tuple[int, ...], finer: RefinementShape | None, shard_bytes: int
) -> dict[str, int]:
    """Add up the bytes of all files by part; files of as many rows have equal layouts."""
    parts: dict[str, int] = {}
    for rows in dict.fromkeys(shards):
        count = shards.count(rows)
        _add(parts, shape, rows, count)
        if finer is not None:
            beside: dict[str, int] = {}
            _add(beside, finer, rows, count)
            for name, size in beside.items():
                part = name if name in (HEADER, PADDING) else REFINEMENT
                parts[part] = parts.get(part, 0) + size
    parts[LAYOUT] = len(_document(shape, shards, finer, shard_bytes))
    return parts


def _add(parts: dict[str, int], shape: Shape, rows: int, count: int) -> None:
    """Add the parts of ``count`` files of so many rows."""
    layout = shard_layout(shape, rows)
    tensors = {name: facts.bytes for name, facts in tensor_facts(shape, rows).items()}
    for name, size in {**tensors, HEADER: len(layout.header), PADDING: sum(layout.gaps.values())}.items():
        parts[name] = parts.get(name, 0) + count * size


def _entries(shape: Shape, shards: tuple[int, ...], name: Callable[[int], str]) -> tuple[ShardEntry, ...]:
    sizes = {rows: shard_layout(shape, rows).size for rows in dict.fromkeys(shards)}
    return tuple(ShardEntry(name(i), rows, sizes[rows], _DIGEST) for i, rows in enumerate(shards))


def _document(shape: ShardShape, shards: tuple[int, ...], finer: RefinementShape | None, shard_bytes: int) -> bytes:
    """Return a ``table.json`` of the right length; its hashes are those of nothing."""
    beside = None
    if finer is not None:
        beside = RefinementLayout(finer.codec.name, finer.dim, _entries(finer, shards, refinement.shard_name))
    layout = TableLayout(
        codec=shape.codec.name,
        dim=shape.dim,
        rows=sum(shards),
        tile_rows=shape.tile_rows,
        bias=shape.bias,
        generation=1,
        sketch_dims=shape.sketch_dims,
        tile_bounds=shape.tile_bounds,
        shards=_entries(shape, shards, shard_name),
        refinement=beside,
        shard_bytes=shard_bytes,
    )
    return layout.born().text().encode()
