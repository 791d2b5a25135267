"""The bytes of a planned table on disk and in memory, each with its arithmetic."""

from __future__ import annotations

from fllm_export.counted import counted
from fllm_export.planning.quantity import Quantity
from fllm_export.table.bit_planes import BLOCK_ROWS
from fllm_export.table.clusters import FEATURES
from fllm_export.table.footprint import HEADER, LAYOUT, PADDING, REFINEMENT, Footprint
from fllm_export.table.tile_maker import SAMPLE_ROWS

PROCESS_BYTES = 64 << 20
"""A Python process that serves a table, with its libraries and without the rows; libfllm alone takes less."""

WRITER_BYTES = 256 << 20
"""A Python process that writes a table, with the chunk of rows in hand and without the shard in hand."""

SHARD_COPIES = 3
"""A shard while it is written: its parts, their concatenation, and the reordered copy where ids do not ascend."""

FLOAT_BYTES = 4

_SAMPLE_BYTES = 4 + 8
"""Of a number of the rows by which tiles are made: in fp32 and in fp64."""

_POINT_BYTES = 4 * (FEATURES + 1) + 8
"""Of a row while rows are put in order: what it is told apart by, and its place."""


def disk(footprint: Footprint) -> dict[str, Quantity]:
    """Return the bytes of each part of a table, and at the end their sum, ``disk``."""
    rows, shards = footprint.rows, len(footprint.shard_rows)
    row_bytes = footprint.read // rows
    over = footprint.read - rows * row_bytes
    found = {
        "codes and scales": _bytes(
            footprint.read,
            f"{counted(rows, 'row')} x {row_bytes:,} bytes ({footprint.quant})"
            + (f" + {over:,} (last blocks)" if over else ""),
        ),
        "ids": _bytes(footprint.parts["ids"], f"{counted(rows, 'row')} x 8 bytes"),
    }
    if footprint.sketch_dims:
        found["sketch"] = _sketch(footprint)
    if footprint.clustered:
        size = footprint.parts["tile_directions"] + footprint.parts["tile_extents"]
        each = FLOAT_BYTES * (footprint.dim + 4)
        found["tile bounds"] = _bytes(size, f"{counted(size // each, 'tile')} x {each:,} bytes")
    files = shards
    if footprint.refine != "no":
        files, size = 2 * shards, footprint.parts[REFINEMENT]
        words = (
            f"{counted(rows, 'row')} x {size // rows:,} bytes ({footprint.refine}, {footprint.item_dim:,} dimensions)"
        )
        found["refinement rows"] = _bytes(size, words)
    beside = footprint.parts[HEADER] + footprint.parts[PADDING]
    found["headers and padding"] = _bytes(beside, f"{counted(files, 'file')}, every tensor on a page of 4,096 bytes")
    found[LAYOUT] = _bytes(footprint.parts[LAYOUT], f"{counted(files, 'file')} with name, rows, bytes and hash")
    found["disk"] = _bytes(footprint.disk, " + ".join(f"{part.value:,}" for part in found.values()))
    return found


def _sketch(footprint: Footprint) -> Quantity:
    parts = {name: size for name, size in footprint.parts.items() if name.startswith("sketch_")}
    basis = parts.pop("sketch_basis")
    blocks = sum(-(-rows // BLOCK_ROWS) for rows in footprint.shard_rows)
    each = sum(parts.values()) // blocks
    return _bytes(
        sum(parts.values()) + basis,
        f"{counted(blocks, 'block')} of {BLOCK_ROWS} rows x {each:,} bytes + "
        f"{counted(len(footprint.shard_rows), 'shard')} x {basis // len(footprint.shard_rows):,} bytes "
        f"(basis, {footprint.sketch_dims} of {footprint.dim} dimensions)",
    )


def serving_memory(footprint: Footprint, encoder_bytes: int) -> Quantity:
    """Return the bytes that a machine needs to search without reading from disk."""
    beside = footprint.resident - footprint.read
    return _bytes(
        footprint.resident + encoder_bytes + PROCESS_BYTES,
        f"{footprint.read:,} codes and scales"
        + (f" + {beside:,} sketch and bounds" if beside else "")
        + (f" + {encoder_bytes:,} encoder" if encoder_bytes else "")
        + f" + {PROCESS_BYTES:,} process",
    )


def writing_memory(footprint: Footprint) -> Quantity:
    """Return the bytes that writing the table takes at its peak."""
    rows = footprint.largest_shard
    shard = rows * (footprint.read // footprint.rows + 8 + footprint.parts.get(REFINEMENT, 0) // footprint.rows)
    size, words = (
        SHARD_COPIES * shard,
        f"{SHARD_COPIES} x {counted(rows, 'row')} x {shard // rows:,} bytes (a shard and its copies)",
    )
    if footprint.clustered:
        sampled = min(rows, SAMPLE_ROWS)
        size += rows * _POINT_BYTES + sampled * footprint.dim * _SAMPLE_BYTES
        words += f" + {counted(rows, 'row')} x {_POINT_BYTES} bytes (their order)"
        words += f" + {counted(sampled, 'row')} x {footprint.dim:,} x {_SAMPLE_BYTES} bytes (a sample)"
    return _bytes(size + WRITER_BYTES, f"{words} + {WRITER_BYTES:,} process")


def _bytes(value: int, arithmetic: str) -> Quantity:
    return Quantity(value, "bytes", arithmetic)
