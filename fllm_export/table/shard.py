"""One shard: an immutable safetensors file whose tensors start on page boundaries, so that it is read in place."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fllm_export.errors import BundleError
from fllm_export.files import Later, open_regular, publish
from fllm_export.safetensors_layout import PADDING, Layout, TensorFacts, lay_out
from fllm_export.strict_json import parse
from fllm_export.system_errors import limit_error
from fllm_export.table import bit_planes, sketch, tile_bounds
from fllm_export.table.codecs import Codec
from fllm_export.table.layout import FORMAT_VERSION

PAGE_BYTES = 4096
UNEVEN_TILE = 2
"""A tile of uneven size has at most so many times ``tile_rows`` rows."""
_HEADER_BYTES_MAX = 1 << 20
_DTYPES = {
    "F32": "<f4",
    "F16": "<f2",
    "I8": "i1",
    "U8": "u1",
    "U16": "<u2",
    "F8_E4M3": "u1",
    "I32": "<i4",
    "I64": "<i8",
}

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Tile:
    """Rows scored in one call: views into the mapped shard, but for codes that it stores in blocks.

    Attributes:
        stored: the codec's tensors, ``codes`` and ``scales`` among them, each with a row for every user.
        ids: int64 [rows], ascending; those of gathered rows in the requested order.
        bias: float32 [rows] or None.
    """

    stored: dict[str, Array]
    ids: npt.NDArray[np.int64]
    bias: npt.NDArray[np.float32] | None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.ids)

    def chosen(self, rows: npt.NDArray[np.int64]) -> Tile:
        """Return copies of some of the rows, in the order given."""
        stored = {name: array[rows] for name, array in self.stored.items()}
        return Tile(stored, self.ids[rows], None if self.bias is None else self.bias[rows])


class Shape(Protocol):
    """What decides the tensors of a file of rows."""

    @property
    def codec(self) -> Codec:
        """Of all rows."""
        ...

    def tensors(self, rows: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the safetensors dtype and the shape of each tensor of so many rows, in file order."""
        ...


@dataclass(frozen=True)
class ShardShape:
    """What a table says of each of its shards.

    Attributes:
        codec: of all rows.
        dim: dimension of a row.
        bias: whether rows have a bias.
        tile_rows: rows of a tile.
        sketch_dims: dimensions of the sketch, or 0.
        tile_bounds: whether tiles have bounds.
        tile_ends: whether shards may say where their tiles end.
        tiles: how many tiles of uneven size a shard has; None where all but the last are full.
    """

    codec: Codec
    dim: int
    bias: bool
    tile_rows: int
    sketch_dims: int = 0
    tile_bounds: bool = False
    tile_ends: bool = False
    tiles: int | None = None

    def tensors(self, rows: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the safetensors dtype and the shape of each tensor in a shard of so many rows, in file order."""
        by_row = row_tensors(self.codec, self.dim, bias=self.bias)
        tensors = {name: (dtype, (rows, *shape)) for name, (dtype, shape) in by_row.items()}
        if self.codec.in_blocks:
            dtype, (*inner, lane) = by_row["codes"]
            blocks = -(-rows // bit_planes.BLOCK_ROWS)
            tensors["codes"] = (dtype, (blocks, *inner, bit_planes.BLOCK_ROWS * lane))
        if self.tiles is not None:
            tensors["tile_ends"] = ("I64", (self.tiles,))
        if self.tile_bounds:
            tiles = -(-rows // self.tile_rows) if self.tiles is None else self.tiles
            tensors |= tile_bounds.tensors(tiles, self.dim)
        if self.sketch_dims:
            tensors |= sketch.tensors(rows, self.dim, self.sketch_dims)
        return tensors

    def holding(self, tensors: Mapping[str, Array]) -> ShardShape:
        """Return what there is to say of a shard with these tensors, tiles of uneven size among them or not."""
        return replace(self, tiles=len(tensors["tile_ends"]) if "tile_ends" in tensors else None)


class Shard:
    """A shard mapped into memory, read-only.

    Attributes:
        path: its file.
        rows: how many it holds.
        ids: int64 [rows].
        bias: float32 [rows] or None.
        stored: the codec's tensors as they lie in the file, by name.
        beside: what rules rows and tiles out: the tensors of the sketch and of the bounds, by name.
        tile_ends: int64 [tiles], the end of each tile, ascending, the last of them ``rows``.
        uneven: whether the shard says itself where its tiles end.

    Raises:
        BundleError: the file is missing, shorter than its header says, or not as the table describes it.
    """

    def __init__(self, path: Path, shape: ShardShape, rows: int) -> None:
        self.path = path
        self.rows = rows
        found = read_tensors(path)
        self.uneven = shape.tile_ends and "tile_ends" in found
        if self.uneven:
            shape = replace(shape, tiles=len(checked_tensor(path, found, "tile_ends", "I64", (None,))))
        arrays = _checked_tensors(path, found, shape, rows)
        self.stored = {name: arrays[name] for name in shape.codec.tensors(shape.dim)}
        self._in_blocks = {"codes"} if shape.codec.in_blocks else set()
        self.ids: npt.NDArray[np.int64] = arrays["ids"].view(np.int64)
        self.bias = arrays["bias"].view(np.float32) if shape.bias else None
        self.beside = {name: array for name, array in arrays.items() if name.startswith(("sketch_", "tile_"))}
        if self.uneven:
            self.tile_ends: npt.NDArray[np.int64] = arrays["tile_ends"].view(np.int64)
            _check_ends(path, self.tile_ends, rows, shape.tile_rows)
        else:
            self.tile_ends = np.append(np.arange(shape.tile_rows, rows, shape.tile_rows), rows).astype(np.int64)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield the begin and the end of each tile."""
        return pairwise([0, *self.tile_ends.tolist()])

    def tile(self, start: int, stop: int) -> Tile:
        """Return rows ``start`` to ``stop`` as views; only codes in blocks are copied.

        A tile of rows in blocks begins with a block.
        """
        stored = {name: self._slice(name, start, stop) for name in self.stored}
        return Tile(stored, self.ids[start:stop], None if self.bias is None else self.bias[start:stop])

    def gather(self, rows: npt.NDArray[np.int64]) -> Tile:
        """Return copies of some rows, in the order given."""
        stored = {
            name: bit_planes.gather(array, rows) if name in self._in_blocks else array[rows]
            for name, array in self.stored.items()
        }
        return Tile(stored, self.ids[rows], None if self.bias is None else self.bias[rows])

    def _slice(self, name: str, start: int, stop: int) -> Array:
        if name not in self._in_blocks:
            return self.stored[name][start:stop]
        blocks = slice(start // bit_planes.BLOCK_ROWS, -(-stop // bit_planes.BLOCK_ROWS))
        return bit_planes.from_blocks(self.stored[name][blocks])[: stop - start]


def row_tensors(codec: Codec, dim: int, *, bias: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the safetensors dtype and the shape for one row of each tensor that has a row for every user."""
    tensors = codec.tensors(dim)
    if bias:
        tensors["bias"] = ("F32", ())
    return {**tensors, "ids": ("I64", ())}


def tensor_facts(shape: Shape, rows: int) -> dict[str, TensorFacts]:
    """Return what the header says of each tensor in a shard of so many rows, in file order."""
    facts = {}
    for name, (dtype, extents) in shape.tensors(rows).items():
        facts[name] = TensorFacts(dtype, extents, math.prod(extents) * np.dtype(_DTYPES[dtype]).itemsize)
    return facts


def shard_layout(shape: Shape, rows: int) -> Layout:
    """Return how the tensors of a shard of so many rows lie in its file; every tensor begins on a page."""
    metadata = {"format": "fllm-users", "format_version": str(FORMAT_VERSION), "codec": shape.codec.name}
    return lay_out(tensor_facts(shape, rows), page_bytes=PAGE_BYTES, metadata=metadata)


def write_shard(path: Path, shape: Shape, tensors: dict[str, Array], later: Later | None = None) -> int:
    """Publish a shard of the tensors that ``shape`` names, synced now or later, and return its size in bytes."""
    layout = shard_layout(shape, len(tensors["scales"]))
    with publish(path, later) as file:
        file.write(layout.header)
        for name, gap in layout.gaps.items():
            file.write(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)
            file.write(bytes(gap))
    return layout.size


def map_tensors(path: Path, shape: Shape, rows: int) -> dict[str, Array]:
    """Map a file of rows, read-only, and return the tensors that ``shape`` names.

    Raises:
        BundleError: the file is missing, shorter than its header says, or not as the table describes it.
    """
    return _checked_tensors(path, read_tensors(path), shape, rows)


def _checked_tensors(path: Path, found: Mapping[str, tuple[str, Array]], shape: Shape, rows: int) -> dict[str, Array]:
    return {
        name: checked_tensor(path, found, name, dtype, extents)
        for name, (dtype, extents) in shape.tensors(rows).items()
    }


def _check_ends(path: Path, ends: npt.NDArray[np.int64], rows: int, tile_rows: int) -> None:
    """Check that tiles of uneven size are whole blocks, no longer than the table says, and hold all rows."""
    if not len(ends) or ends[-1] != rows:
        raise BundleError(
            f"{path}: the last of {len(ends)} tiles ends at row {ends[-1] if len(ends) else 0}", expected=f"row {rows}"
        )
    starts = np.append(0, ends[:-1])
    # Compared before they are subtracted: the difference of any two numbers may be beyond int64.
    wrong = (ends <= starts) | (starts % bit_planes.BLOCK_ROWS != 0) | (ends > rows)
    wrong[~wrong] = (ends - starts)[~wrong] > min(UNEVEN_TILE * tile_rows, rows)
    if wrong.any():
        number = int(np.argmax(wrong))
        raise BundleError(
            f"{path}: tile {number} is rows {starts[number]} to {ends[number]}",
            expected=f"ends that ascend in multiples of {bit_planes.BLOCK_ROWS}, by at most {UNEVEN_TILE * tile_rows}",
            fix="Build the table again",
        )


def read_tensors(path: Path) -> dict[str, tuple[str, Array]]:
    """Map a safetensors file and return its tensors as (dtype name, view), trusting nothing it says."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing", expected="a shard of the table", fix="Build the table again") from error
    except OSError as error:
        unreadable = BundleError(f"{path} cannot be read ({error.strerror})", expected="a readable file")
        raise limit_error(error, path) or unreadable from error
    header, start = _read_header(path, data, size)
    tensors = {}
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, begin, end = _check_entry(path, name, entry)
        spans.append((begin, end, name))
        tensors[name] = (dtype, shape, begin)
    _check_spans(path, sorted(spans), size - start)
    return {
        name: (dtype, np.frombuffer(data, _DTYPES[dtype], int(np.prod(shape)), start + begin).reshape(shape))
        for name, (dtype, shape, begin) in tensors.items()
    }


def checked_tensor(
    path: Path, tensors: Mapping[str, tuple[str, Array]], name: str, dtype: str, shape: tuple[int | None, ...]
) -> Array:
    """Return a tensor that :func:`read_tensors` found, in whose shape None is any length.

    Raises:
        BundleError: it is missing, or of another dtype or shape.
    """
    words = f"{dtype} [{', '.join('n' if length is None else str(length) for length in shape)}]"
    if name not in tensors:
        raise BundleError(f"{path} has no tensor `{name}`", expected=words)
    found, array = tensors[name]
    same = len(array.shape) == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, array.shape, strict=True)
    )
    if found != dtype or not same:
        raise BundleError(f"{path}: tensor `{name}` is {found} {list(array.shape)}", expected=words)
    return array


def _read_header(path: Path, data: mmap.mmap | bytes, size: int) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(data[:8], "little")
    if size < 8 or length > size - 8:
        raise BundleError(
            f"{path} has {size} bytes and its header claims {length}",
            expected="a complete file",
            fix="Copy the file again: it was cut short",
        )
    if length > _HEADER_BYTES_MAX:
        raise BundleError(f"{path}: the header has {length} bytes", expected=f"at most {_HEADER_BYTES_MAX}")
    try:
        header = parse(data[8 : 8 + length])
    except ValueError as error:
        raise BundleError(f"{path}: the header is not JSON ({error})", expected="a safetensors file") from error
    if not isinstance(header, dict):
        raise BundleError(f"{path}: the header is a {type(header).__name__}", expected="a JSON object")
    if (8 + length) % PAGE_BYTES:
        raise BundleError(f"{path}: the data starts at byte {8 + length}", expected=f"a multiple of {PAGE_BYTES}")
    return header, 8 + length


def _check_entry(path: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    try:
        dtype, listed, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        item_bytes = np.dtype(_DTYPES[dtype]).itemsize
        shape = tuple(listed)
        whole = isinstance(listed, list) and all(type(n) is int and 0 <= n < 1 << 48 for n in (*shape, begin, end))
    except (TypeError, KeyError, ValueError) as error:
        raise BundleError(f"{path}: the header's entry of `{name}` is unreadable ({error!r})") from error
    if not whole:
        raise BundleError(
            f"{path}: tensor `{name}` is {listed} at {begin}..{end}", expected="integers from 0 to 2^48 - 1"
        )
    wanted = item_bytes
    for extent in shape:
        wanted *= extent
    if end - begin != wanted:
        raise BundleError(
            f"{path}: tensor `{name}` spans {end - begin} bytes", expected=f"{wanted} for {dtype} {list(shape)}"
        )
    if begin % PAGE_BYTES and not name.startswith(PADDING):
        raise BundleError(f"{path}: tensor `{name}` starts at byte {begin}", expected=f"a multiple of {PAGE_BYTES}")
    return dtype, shape, begin, end


def _check_spans(path: Path, spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    """Check that the tensors cover the data without holes or overlaps, and that the file ends where they do."""
    position = 0
    for begin, end, name in spans:
        if begin != position:
            raise BundleError(f"{path}: tensor `{name}` starts at data byte {begin}", expected=f"byte {position}")
        position = end
    if position != data_bytes:
        raise BundleError(
            f"{path} holds {data_bytes} bytes of data",
            expected=f"{position}, as the header says",
            fix="Copy the file again: it was cut short or something was added to it",
        )
