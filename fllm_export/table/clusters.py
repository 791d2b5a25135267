"""The order of rows within a shard: tiles of rows that lie together, so that a bound on a tile says something."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fllm_export.table import centres, native
from fllm_export.table.bit_planes import BLOCK_ROWS
from fllm_export.table.fixed_point import WEIGHT, fix, squares, weights
from fllm_export.table.shard import UNEVEN_TILE

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FEATURES = 32
"""Principal directions that rows are told apart by; more make no better tiles, and cost memory."""

_SAMPLE_ROWS = 1_024
_SAMPLE_LARGEST = 2.0**20
"""Integers of a sample: squares of so many differences of two add up to less than 2^53."""
_SQUARINGS = 6
_NORM_WEIGHT = 2.0
"""How much more a spread of norms counts than one of directions: norms bound every score, directions those of some
items. Measured on trained and synthetic tables (docs/internals/tiles.md)."""
_LARGEST = 2.0**122
"""Of a point's numbers: sums of so many stay within float32's range."""


def principal_directions(rows: F32) -> F32:
    """Return the directions in which rows [n, d] are longest, float32 [d, m], m at most :data:`FEATURES`."""
    wide = rows.astype(np.float64)
    _, vectors = np.linalg.eigh(wide.T @ wide)
    return np.ascontiguousarray(vectors[:, ::-1][:, :FEATURES], np.float32)


def features(rows: F32, directions: F32) -> F32:
    """Return what :func:`clustered` tells rows [n, d] apart by: float32 [n, FEATURES + 1].

    These are coordinates in the directions [d, m], zeros where m is less than :data:`FEATURES`, and the norm.
    """
    across = np.ascontiguousarray(directions.T)
    return native.features(rows, across) if native.takes(rows) else _features(rows, across)


def _features(rows: F32, directions: F32) -> F32:
    fixed, units = fix(rows)
    points = np.zeros((len(rows), FEATURES + 1))
    points[:, : len(directions)] = (fixed @ weights(directions).T) * (units / WEIGHT)[:, None]
    points[:, -1] = np.sqrt(squares(fixed)) * units
    with np.errstate(over="ignore"):
        return points.astype(np.float32).clip(-_LARGEST, _LARGEST)


class Tiling(NamedTuple):
    """An order of rows, int64 [n], and where tiles end, int64 [tiles]: None where all tiles but the last are full."""

    order: I64
    ends: I64 | None


def tiling(points: F32, tile_rows: int) -> Tiling:
    """Return an order of rows whose tiles are those of :func:`clustered`, or end where clusters do.

    The latter where rows lie in clusters that are well apart. Tiles are whole blocks of 16 rows then. Rows that are
    left over of a cluster, those farthest from its centre, share tiles of their own at the end, with rows that are far
    from all centres.

    Args:
        points: one for each row, from :func:`features`.
        tile_rows: rows of a tile; one that is a whole cluster may have :data:`UNEVEN_TILE` times as many.
    """
    if len(points) <= tile_rows or tile_rows % BLOCK_ROWS:
        return Tiling(clustered(points, tile_rows), None)
    if native.takes(points):
        order, ends = native.tiling(points, tile_rows)
        return Tiling(order, ends if len(ends) else None)
    return _tiling(points, tile_rows)


def _tiling(points: F32, tile_rows: int) -> Tiling:
    places = _places(len(points), centres.SAMPLE_ROWS)
    found = centres.find(points, np.arange(len(points)) if places is None else places.astype(np.int64))
    if found is None:
        return Tiling(_clustered(points, tile_rows), None)
    own, squares = found.owners(points)
    near = squares <= found.reach
    tiles, rest = [], [np.flatnonzero(~near)]
    for number in range(len(found.places)):
        rows = np.flatnonzero((own == number) & near)
        whole = len(rows) // BLOCK_ROWS * BLOCK_ROWS
        order = np.argsort(squares[rows], kind="stable")
        rest.append(rows[order[whole:]])
        if whole:
            tiles += _cut(points, np.sort(rows[order[:whole]]), tile_rows)
    left = np.sort(np.concatenate(rest))
    if len(left):
        tiles += _whole_tiles(points, left, tile_rows)
    return Tiling(np.concatenate(tiles), np.cumsum([len(rows) for rows in tiles]))


def _cut(points: F32, rows: I64, tile_rows: int) -> list[I64]:
    """Return the rows of one cluster, whole blocks of them: one tile, or as few as they take, of about one size."""
    if len(rows) <= UNEVEN_TILE * tile_rows:
        return [rows]
    blocks = len(rows) // BLOCK_ROWS
    return _whole_tiles(points, rows, -(-blocks // -(-len(rows) // tile_rows)) * BLOCK_ROWS)


def _whole_tiles(points: F32, rows: I64, tile_rows: int) -> list[I64]:
    """Return rows, which ascend, in tiles of so many, but for the last one."""
    order = rows[_clustered(points[rows], tile_rows)]
    return [order[start : start + tile_rows] for start in range(0, len(order), tile_rows)]


def clustered(points: F32, tile_rows: int) -> I64:
    """Return an order of rows such that each ``tile_rows`` of them lie together; within a tile numbers ascend.

    Halves the rows again and again, at a tile's boundary: across the direction in which they spread the most, or by
    their norms where these spread more.

    Args:
        points: one for each row, from :func:`features`.
        tile_rows: rows of a tile.
    """
    return native.order(points, tile_rows) if native.takes(points) else _clustered(points, tile_rows)


def _clustered(points: F32, tile_rows: int) -> I64:
    tiles = []
    waiting = [np.arange(len(points))]
    while waiting:
        rows = waiting.pop()
        if len(rows) <= tile_rows:
            tiles.append(rows)
            continue
        half = -(-len(rows) // tile_rows) // 2 * tile_rows
        low = _lowest(_keys(points, rows), half)
        waiting += [rows[~low], rows[low]]
    return np.concatenate(tiles)


def _lowest(keys: F32, count: int) -> Bools:
    """Return which are the ``count`` smallest keys; of equal keys the first ones are."""
    limit = np.partition(keys, count - 1)[count - 1]
    low: Bools = keys < limit
    low[np.flatnonzero(keys == limit)[: count - int(low.sum())]] = True
    return low


def _keys(points: F32, rows: I64) -> F32:
    """Return by what the rows are halved, float32: products are added in halves, so that the order of sums is known."""
    places = _places(len(rows), _SAMPLE_ROWS)
    sample = points[rows if places is None else rows[places]].astype(np.float64)
    peak = np.abs(sample).max()
    numbers = np.rint(sample * (_SAMPLE_LARGEST / (peak if peak > 0 else 1.0)))
    centred = numbers - np.rint(numbers.sum(0) / len(numbers))
    moment = centred[:, :-1].T @ centred[:, :-1]
    longest = _principal(moment)
    product = np.zeros(FEATURES)
    for column, weight in zip(moment.T, longest, strict=True):
        product += column * weight
    along, length = _in_turn(longest * product), _in_turn(longest * longest)
    spread = float(centred[:, -1] @ centred[:, -1])
    if _NORM_WEIGHT * _NORM_WEIGHT * spread * length > along:
        return np.ascontiguousarray(points[rows, -1])
    direction = (longest / (np.sqrt(length) if length > 0 else 1.0)).astype(np.float32)
    sums = points[rows, :-1] * direction
    while sums.shape[1] > 1:
        sums = sums[:, : sums.shape[1] // 2] + sums[:, sums.shape[1] // 2 :]
    return sums[:, 0]


def _principal(moment: F64) -> F64:
    """Return nearly the first eigenvector of a moment [m, m], of any length: a column of a high power of the moment."""
    power, peak = moment, moment.diagonal().max()
    if peak <= 0:
        return np.zeros(len(moment))
    power = power / peak
    for _ in range(_SQUARINGS):
        squared = np.zeros_like(power)
        for column, row in zip(power.T, power, strict=True):
            squared += column[:, None] * row
        power = squared / squared.diagonal().max()
    found: F64 = power[int(np.argmax(power.diagonal()))]
    return found


def _in_turn(numbers: F64) -> float:
    """Return the sum of numbers, added one after the other."""
    return float(np.cumsum(numbers)[-1])


def _places(count: int, wanted: int) -> npt.NDArray[np.uint64] | None:
    """Return where a sample of so many rows lies, by SplitMix64 (Steele, Lea, Flood 2014); None for all of them."""
    if count <= wanted:
        return None
    mixed = np.arange(1, wanted + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))) % np.uint64(count)
