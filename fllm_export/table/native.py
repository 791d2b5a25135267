"""libfllm's loops for writing tables: the bytes that this package's NumPy code makes, in less time.

Without the compiled module the NumPy code, which defines those bytes, does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.library_errors import translated

try:
    from fllm_export.compiled import _core
except ModuleNotFoundError:  # a checkout that was not compiled
    _core = None  # type: ignore[assignment]

Array = npt.NDArray[np.generic]
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

DIM_MAX = 65_536
_POINT_NUMBERS = 33
_EXTENTS = 4


def takes(rows: npt.NDArray[Any]) -> bool:
    """Return whether libfllm is there and takes such rows: float32 [n, d]."""
    return _core is not None and rows.dtype == np.float32 and rows.ndim == 2 and 1 <= rows.shape[1] <= DIM_MAX


def first_not_finite(rows: F32) -> int:
    """Return the number of the first of rows [n, d] that is not finite, or n."""
    return int(_call(_core.writing.check, np.ascontiguousarray(rows)))


def encode(name: str, rows: F32, tensors: Mapping[str, Array]) -> None:
    """Fill the stored tensors of a codec with the codes nearest to rows [n, d]."""
    codes, groups = _bytes(tensors["codes"]), tensors.get("groups")
    _call(
        _core.writing.encode,
        name,
        np.ascontiguousarray(rows),
        codes,
        None if groups is None else _bytes(groups),
        tensors["scales"],
    )


def decode(name: str, tensors: Mapping[str, Array], dim: int) -> F32:
    """Return what the stored tensors of a codec stand for, float32 [n, dim]."""
    stored = {key: np.ascontiguousarray(array) for key, array in tensors.items()}
    rows = np.empty((len(stored["scales"]), dim), np.float32)
    groups = _bytes(stored["groups"]) if "groups" in stored else None
    _call(_core.writing.decode, name, _bytes(stored["codes"]), groups, stored["scales"].view(np.float32), rows)
    return rows


def features(rows: F32, directions: F32) -> F32:
    """Return the points [n, 33] of rows [n, d], from directions [m, d]."""
    points = np.empty((len(rows), _POINT_NUMBERS), np.float32)
    _call(_core.writing.features, np.ascontiguousarray(rows), np.ascontiguousarray(directions), points)
    return points


def order(points: F32, tile_rows: int) -> I64:
    """Return the order of rows by their points [n, 33]."""
    rows = np.empty(len(points), np.int64)
    _call(_core.writing.order, np.ascontiguousarray(points), tile_rows, rows)
    return rows


def tiling(points: F32, tile_rows: int) -> tuple[I64, I64]:
    """Return the order of rows by their points [n, 33], and the ends of uneven tiles, of which there may be none."""
    rows, ends = np.empty(len(points), np.int64), np.empty(len(points), np.int64)
    tiles = _call(_core.writing.tiling, np.ascontiguousarray(points), tile_rows, rows, ends)
    return rows, ends[:tiles].copy()


def bounds(rows: F32, bias: F32 | None, tile_rows: int) -> tuple[F32, F32]:
    """Return directions [tiles, d] and extents [tiles, 4] of the tiles of rows [n, d]."""
    tiles = -(-len(rows) // tile_rows)
    directions, extents = np.empty((tiles, rows.shape[1]), np.float32), np.empty((tiles, _EXTENTS), np.float32)
    known = None if bias is None else np.ascontiguousarray(bias)
    _call(_core.writing.bounds, np.ascontiguousarray(rows), known, tile_rows, directions, extents)
    return directions, extents


def sketch(rows: F32, basis: F32, defect: float, snapped: float, tensors: Mapping[str, Array]) -> None:
    """Fill the tensors of the sketch of rows [n, d]."""
    parts = (tensors[f"sketch_{name}"].reshape(-1) for name in ("coarse", "coarse_factors", "fine", "fine_factors"))
    _call(_core.writing.sketch, np.ascontiguousarray(rows), np.ascontiguousarray(basis), defect, snapped, *parts)


def user_rows(vectors: F32, items: npt.NDArray[np.int32], starts: I64, factors: npt.NDArray[np.float64]) -> F32:
    """Return factors [n] times the sums of the vectors [t, d] of each user's items, float32 [n, d]."""
    rows = np.empty((len(factors), vectors.shape[1]), np.float32)
    whole = (np.ascontiguousarray(array) for array in (vectors, items, starts, factors))
    _call(_core.writing.user_rows, *whole, rows)
    return rows


def _bytes(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except _core.Error as error:
        raise translated(error) from None
