"""The user table where a GPU finds it: in its own memory as far as it fits, the rest in pinned memory of the host."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fllm_export.engines.tensorrt.gpu import BOUNDARY, Gpu, Memory, Pinned, Stream, rounded
from fllm_export.errors import BudgetError
from fllm_export.table.codecs import Codec
from fllm_export.table.shard import Tile
from fllm_export.table.table import Table

RESIDENT_BYTES = 1 << 30
"""Of a resident block at most."""

PLACE_BYTES = 64 << 20
"""Of a streamed block: long enough for a copy at full speed."""

PLACES = 2

_LARGEST_CODE = 128
_NORM_ROWS = 1 << 16


@dataclass(frozen=True)
class Layout:
    """How the arrays of a block follow one another.

    Attributes:
        rows: whole chunks; those that the table lacks are zeros.
        dim: numbers in a row.
        bias: whether rows have a bias.
    """

    rows: int
    dim: int
    bias: bool

    @property
    def scales(self) -> int:
        """Where the scales begin; the codes come first."""
        return rounded(self.rows * self.dim)

    @property
    def biases(self) -> int:
        """Where the biases begin."""
        return self.scales + rounded(4 * self.rows)

    @property
    def size(self) -> int:
        """Bytes of all."""
        return self.biases + (rounded(4 * self.rows) if self.bias else 0)

    def addresses(self, start: int, row: int) -> dict[str, int]:
        """Return where each tensor lies from a row on, in a block that lies at ``start``."""
        found = {"codes": start + row * self.dim, "scales": start + self.scales + 4 * row}
        return {**found, "bias": start + self.biases + 4 * row} if self.bias else found


@dataclass(frozen=True)
class Block:
    """Rows that lie together.

    Attributes:
        first: number of the first row in the table.
        rows: how many of the table's rows there are.
        layout: how they lie.
        memory: where they stay: of the GPU, or pinned.
    """

    first: int
    rows: int
    layout: Layout
    memory: Memory | Pinned

    @property
    def resident(self) -> bool:
        """Whether the GPU has them."""
        return isinstance(self.memory, Memory)


class DeviceTable:
    """All rows of a table, copied once.

    Args:
        gpu: whose memory is used.
        table: the open table, int8 or fp8.
        chunk_rows: blocks have a multiple of so many rows.
        least_rows: and at least so many.
        limit: bytes of GPU memory at most.

    Attributes:
        blocks: in scan order, the resident ones first.
        reach: the largest norm of a row, scale included, or a bound of it.
        most_bias: the largest magnitude of a bias.

    Raises:
        BudgetError: the memory does not suffice.
    """

    def __init__(self, gpu: Gpu, table: Table, chunk_rows: int, least_rows: int, limit: int) -> None:
        self._gpu, self._table = gpu, table
        self._dim, self._bias = table.layout.dim, table.layout.bias
        self._chunk_rows, self._least_rows = chunk_rows, least_rows
        self.reach, self.most_bias = 0.0, 0.0
        self.place_size = 0
        self.blocks: list[Block] = []
        self._fill(limit)

    def _fill(self, limit: int) -> None:
        most = self._block_rows(RESIDENT_BYTES)
        cuts = ((shard.rows - start, most) for shard in self._table.shards for start in range(0, shard.rows, most))
        place_rows = 0
        if sum(self._layout(min(cut)).size for cut in cuts) > limit:
            # Streamed blocks are alike, so that a graph serves each place.
            place_rows = self._block_rows(min(PLACE_BYTES, limit // 8))
            self.place_size = self._layout(place_rows).size
        free = limit - PLACES * self.place_size
        if free < 0:
            raise BudgetError(
                f"the GPU has {limit} bytes for the table",
                expected=f"at least {PLACES * self.place_size}, to stream it",
                fix="Free some memory, or set FLLM_GPU_BYTES higher",
            )
        stream = Stream(self._gpu)
        first = 0
        for shard in self._table.shards:
            start = 0
            while start < shard.rows:
                rows, layout, resident = self._next_block(shard.rows - start, free, place_rows)
                free = free - layout.size if resident else 0  # once rows are streamed all that follow are
                self._add(stream, first + start, shard.tile(start, start + rows), layout, resident)
                start += rows
            first += shard.rows

    def _next_block(self, left: int, free: int, place_rows: int) -> tuple[int, Layout, bool]:
        """Return a block's rows, how they lie, and whether they stay on the GPU."""
        if not place_rows:
            rows = min(left, self._block_rows(RESIDENT_BYTES))
            return rows, self._layout(rows), True
        rows = min(left, self._block_rows(min(RESIDENT_BYTES, free)))
        if self._layout(rows).size <= free:
            return rows, self._layout(rows), True
        return min(left, place_rows), self._layout(place_rows), False

    def _block_rows(self, size: int) -> int:
        """Return the rows of a block of at most so many bytes, or the least that a block may have."""
        spare = 3 * BOUNDARY
        rows = max(0, size - spare) // (self._dim + (8 if self._bias else 4))
        return max(self._least_rows, rows // self._chunk_rows * self._chunk_rows)

    def _layout(self, rows: int) -> Layout:
        whole = -(-rows // self._chunk_rows) * self._chunk_rows
        return Layout(max(whole, self._least_rows), self._dim, self._bias)

    def _add(self, stream: Stream, first: int, tile: Tile, layout: Layout, resident: bool) -> None:
        arrays = {"codes": tile.stored["codes"], "scales": tile.stored["scales"]}
        if tile.bias is not None:
            arrays["bias"] = tile.bias
            self.most_bias = max(self.most_bias, float(np.abs(tile.bias).max()))
        self.reach = max(self.reach, _reach(tile, self._table.codec, self._dim))
        if resident:
            memory: Memory | Pinned = Memory(self._gpu, layout.size)
            stream.clear(memory.address, layout.size)
            for name, address in layout.addresses(memory.address, 0).items():
                array = np.ascontiguousarray(arrays[name])
                stream.copy(address, array.ctypes.data, array.nbytes)
                # The array may be a copy that goes when the loop goes on.
                stream.finish()
        else:
            memory = Pinned(self._gpu, layout.size)
            memory.bytes[:] = 0
            for name, offset in layout.addresses(0, 0).items():
                array = np.ascontiguousarray(arrays[name])
                memory.bytes[offset : offset + array.nbytes] = array.reshape(-1).view(np.uint8)
        self.blocks.append(Block(first, tile.rows, layout, memory))


def _reach(tile: Tile, codec: Codec, dim: int) -> float:
    """Return a bound of the rows' norms: for int8 by the largest code there is, for fp8 by the codes themselves."""
    scales: npt.NDArray[np.float32] = tile.stored["scales"].view(np.float32)
    if codec.name == "int8":
        return float(np.abs(scales).max()) * _LARGEST_CODE * math.sqrt(dim)
    squares = _squares(codec)
    most = 0.0
    for start in range(0, tile.rows, _NORM_ROWS):
        part = slice(start, start + _NORM_ROWS)
        norms = np.sqrt(squares[tile.stored["codes"][part].view(np.uint8)].sum(1))
        most = max(most, float((norms * np.abs(scales[part])).max()))
    return most * (1 + 2**-10)  # summed in float32


def _squares(codec: Codec) -> npt.NDArray[np.float32]:
    """Return the square of each e4m3 code, float32 [256]; of what is no number, that of the next larger one."""
    values = codec.values({"codes": np.arange(256, dtype=np.uint8)}, 256)
    squares: npt.NDArray[np.float32] = (np.nan_to_num(values, nan=480.0) ** 2).astype(np.float32)
    return squares
