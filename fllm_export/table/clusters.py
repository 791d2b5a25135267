"""The order of rows within a shard: tiles of rows that lie together, so that a bound on a tile says something."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

FEATURES = 32
"""Principal directions that rows are told apart by; more make no better tiles, and cost memory."""

_SAMPLE_ROWS = 1_024
_NORM_WEIGHT = 2.0
"""How much more a spread of norms counts than one of directions: norms bound every score, directions those of some
items. Measured on trained and synthetic tables (docs/internals/tiles.md)."""


def principal_directions(rows: F32) -> F32:
    """Return the directions in which rows [n, d] are longest, float32 [d, m], m at most :data:`FEATURES`."""
    wide = rows.astype(np.float64)
    _, vectors = np.linalg.eigh(wide.T @ wide)
    return np.ascontiguousarray(vectors[:, ::-1][:, :FEATURES], np.float32)


def features(rows: F32, directions: F32) -> F32:
    """Return what :func:`clustered` tells rows [n, d] apart by: coordinates and the norm, float32 [n, m + 1]."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return np.concatenate([rows @ directions, norms[:, None].astype(np.float32)], axis=1)


def clustered(points: F32, tile_rows: int, seed: int = 0) -> I64:
    """Return an order of rows such that each ``tile_rows`` of them lie together; within a tile numbers ascend.

    Halves the rows again and again, at a tile's boundary: across the direction in which they spread the most, or by
    their norms where these spread more.

    Args:
        points: one for each row, from :func:`features`.
        tile_rows: rows of a tile.
        seed: of the samples that directions are found by.
    """
    generator = np.random.default_rng(seed)
    tiles = []
    waiting = [np.arange(len(points))]
    while waiting:
        rows = waiting.pop()
        if len(rows) <= tile_rows:
            tiles.append(np.sort(rows))
            continue
        keys = _keys(points, rows, generator)
        half = -(-len(rows) // tile_rows) // 2 * tile_rows
        parted = np.argpartition(keys, half)
        waiting += [rows[parted[half:]], rows[parted[:half]]]
    return np.concatenate(tiles)


def _keys(points: F32, rows: I64, generator: np.random.Generator) -> F32:
    sample = points[rows if len(rows) <= _SAMPLE_ROWS else generator.choice(rows, _SAMPLE_ROWS)].astype(np.float64)
    centred = sample - sample.mean(0)
    directions, norms = centred[:, :-1], centred[:, -1]
    values, vectors = np.linalg.eigh(directions.T @ directions)
    if _NORM_WEIGHT**2 * float(norms @ norms) > values[-1]:
        return np.ascontiguousarray(points[rows, -1])
    keys: F32 = points[rows, :-1] @ vectors[:, -1].astype(np.float32)
    return keys
