"""Numbers of few bits of rows, as the sketch and the codecs int1, int2 and int4row store them.

A *plane* holds two bits of each number. Of a row it is [groups, 4] bytes: byte j of group g holds the dimensions
16 g + 4 s + j at bits 2 s. A file stores rows in *blocks* of 16, in which those four bytes of all 16 rows follow each
other, so that each 32-bit lane of a vector of 64 bytes belongs to one row (docs/internals/sketch.md).

Single bits are stored as two-bit numbers too: those of the dimensions 32 g to 32 g + 15, plus twice those of the next
16.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
U8 = npt.NDArray[np.uint8]

BLOCK_ROWS = 16
GROUP_DIMS = 16
"""A block is 16 rows; 64 bytes of it hold two bits of 16 dimensions of each row."""

_LANE_BYTES = 4
_SHIFTS = np.array([0, 2, 4, 6], np.uint32)
_LOW_BITS = np.uint32(0x03030303)


def groups(dim: int) -> int:
    """Return how many groups hold ``dim`` dimensions; the last one is filled up with zeros."""
    return -(-dim // GROUP_DIMS)


def whole_groups(dim: int) -> int:
    """Return the dimensions that those groups have."""
    return groups(dim) * GROUP_DIMS


def pack(bits: npt.NDArray[np.integer]) -> U8:
    """Return the plane [n, groups, 4] of two-bit numbers [n, d]."""
    count, dim = bits.shape
    padded = np.zeros((count, whole_groups(dim)), np.uint8)
    padded[:, :dim] = bits
    lanes = padded.view(np.uint32).reshape(count, groups(dim), len(_SHIFTS))
    packed = lanes[:, :, 0].copy()
    for part, shift in enumerate(_SHIFTS[1:], 1):
        packed |= lanes[:, :, part] << shift
    return packed.view(np.uint8).reshape(count, groups(dim), _LANE_BYTES)


def unpack(plane: Array, dim: int) -> U8:
    """Return the two-bit numbers [n, d] of a plane [n, groups, 4]."""
    count, extent, _ = plane.shape
    packed = np.ascontiguousarray(plane).view(np.uint32).reshape(count, extent)
    lanes = np.empty((count, extent, len(_SHIFTS)), np.uint32)
    for part, shift in enumerate(_SHIFTS):
        np.bitwise_and(packed >> shift, _LOW_BITS, out=lanes[:, :, part])
    return lanes.view(np.uint8).reshape(count, -1)[:, :dim]


def pack_bits(bits: npt.NDArray[np.integer]) -> U8:
    """Return the plane [n, ceil(d / 32), 4] of single bits [n, d]."""
    count, dim = bits.shape
    pairs = -(-groups(dim) // 2)
    padded = np.zeros((count, pairs, 2, GROUP_DIMS), np.uint8)
    padded.reshape(count, -1)[:, :dim] = bits
    return pack((padded[:, :, 0] + 2 * padded[:, :, 1]).reshape(count, -1))


def unpack_bits(plane: Array, dim: int) -> U8:
    """Return the single bits [n, d] of a plane [n, ceil(d / 32), 4]."""
    count, pairs, _ = plane.shape
    numbers = unpack(plane, pairs * GROUP_DIMS).reshape(count, pairs, 1, GROUP_DIMS)
    return np.concatenate([numbers & 1, numbers >> 1], 2).reshape(count, -1)[:, :dim]


def into_blocks(planes: Array) -> U8:
    """Return planes of rows [n, ..., 4] as a file stores them, [blocks, ..., 64]; zeros fill the last block up."""
    count, *inner, lane = planes.shape
    padded = np.zeros((-(-count // BLOCK_ROWS) * BLOCK_ROWS, *inner, lane), np.uint8)
    padded[:count] = planes
    blocks = np.moveaxis(padded.reshape(-1, BLOCK_ROWS, *inner, lane), 1, -2)
    return np.ascontiguousarray(blocks).reshape(len(blocks), *inner, BLOCK_ROWS * lane)


def from_blocks(blocks: Array) -> U8:
    """Return the planes [16 blocks, ..., 4] of the rows of blocks [blocks, ..., 64]."""
    rows = np.ascontiguousarray(np.moveaxis(_lanes(blocks), -2, 1))
    return rows.reshape(-1, *rows.shape[2:])


def gather(blocks: Array, rows: npt.NDArray[np.int64]) -> U8:
    """Return the planes [n, ..., 4] of some rows of blocks [blocks, ..., 64], given by their numbers."""
    chosen: U8 = _lanes(blocks)[rows // BLOCK_ROWS, ..., rows % BLOCK_ROWS, :]
    return chosen


def _lanes(blocks: Array) -> U8:
    return blocks.view(np.uint8).reshape(*blocks.shape[:-1], BLOCK_ROWS, _LANE_BYTES)
