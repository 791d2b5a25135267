"""Bounds on the scores of whole tiles, by which a search leaves tiles out and takes the others in a good order.

A tile has a *direction* u, of length 1, and for each of its rows x, as real numbers, the part *along* it a = x.u and
the rest r = |x - a u|. For an item vector q whose part across u is q', with a bias b of rows or 0,

    q.x + b <= max(a_low * q.u, a_high * q.u) + |q'| * r_high + b_high

docs/internals/tiles.md has the proof, rounding included.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fllm_export.table import native
from fllm_export.table.fixed_point import ROUNDING, WEIGHT, fix_to, squares, weights

Array = npt.NDArray[np.generic]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

EXTENTS = 4
"""Values per tile besides its direction: smallest and largest part along it, largest rest, largest bias."""

_FLOAT64_SLACK = 1e-9
_ROW_SLACK = 2.0**-23
"""A row given as float32 differs from its codes times its scale, which it stands for, by less than this of its norm."""
_REST_SLACK = 2.0**-48
"""Relative to a squared norm: what float64 loses of the square of a rest."""
_UNIT_SLACK = 2.0**-20
"""By how much the squared length of a float32 direction may exceed 1, and more."""
_SLACK = 2.0**-20
"""Relative to a row's norm: far above what a direction that is no unit vector quite, and float64, make of a score."""


def tensors(tiles: int, dim: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the safetensors dtype and shape of each tensor of bounds in a shard of so many tiles."""
    return {"tile_directions": ("F32", (tiles, dim)), "tile_extents": ("F32", (tiles, EXTENTS))}


def describe_tiles(rows: F32, bias: F32 | None, tile_rows: int) -> tuple[F32, F32]:
    """Return the directions [tiles, d] and the extents [tiles, 4] of rows float32 [n, d], tile by tile."""
    if native.takes(rows):
        return native.bounds(rows, bias, tile_rows)
    found = []
    for start in range(0, len(rows), tile_rows):
        stop = start + tile_rows
        found.append(describe(rows[start:stop], None if bias is None else bias[start:stop]))
    directions, extents = zip(*found, strict=True)
    return np.stack(directions), np.stack(extents)


def describe(rows: F32, bias: F32 | None) -> tuple[F32, F32]:
    """Return the direction [d] and the extents [4] of one tile.

    Rows and direction are taken in fixed point; what that loses widens the extents.

    Args:
        rows: what the codes stand for, float32 [n, d].
        bias: float32 [n] or None.
    """
    root = float(np.sqrt(rows.shape[1]))
    fixed, units = fix_to(rows, np.abs(rows).max(keepdims=True).reshape(1).astype(np.float64))
    unit = float(units[0])
    sums = fixed.sum(0)[None]
    along, _ = fix_to(sums, np.abs(sums).max(1))
    length = float(np.sqrt(squares(along)[0]))
    direction = (along[0] / (length if length > 0 else 1.0)).astype(np.float32)
    turned = weights(direction)
    products, lengths = fixed @ turned, squares(fixed)
    shrink = (2 - float(squares(turned[None])[0]) / (WEIGHT * WEIGHT)) / (WEIGHT * WEIGHT)
    most = float(lengths.max())
    rest = max(float((lengths - products * products * shrink).max()), 0.0)
    longest = float(np.sqrt(most)) * unit
    lost = (_FLOAT64_SLACK + _ROW_SLACK) * longest + 2 * ROUNDING * (root * unit) + 1.01 * (root / WEIGHT) * longest
    step = unit / WEIGHT
    across = float(np.sqrt(rest + _REST_SLACK * most)) * unit
    highest = 0.0 if bias is None else float(bias.max()) + 0.0  # zero, where the largest is -0.0
    low, high = float(products.min()) * step, float(products.max()) * step
    extents = [-_above(lost - low), _above(high + lost), _above(across + lost), highest]
    return direction, np.array(extents, np.float32)


def holds(rows: F64, bias: F32 | None, direction: F32, extents: F32) -> bool:
    """Return whether a tile's bounds are true of its rows, but for what rounding may make of them."""
    unit = direction.astype(np.float64)
    low, high, rest, highest = extents.astype(np.float64)
    along = rows @ unit
    across = np.sqrt(((rows - along[:, None] * unit) ** 2).sum(1))
    lost = _FLOAT64_SLACK * float(np.sqrt((rows**2).sum(1)).max())
    length = float(unit @ unit)
    is_unit = abs(length - 1) <= _UNIT_SLACK or length == 0
    inside = bool(low <= along.min() + lost and along.max() - lost <= high and across.max() - lost <= rest)
    return is_unit and inside and (bias is None or float(bias.max()) <= highest)


def bounds(directions: F32, extents: F32, q: F64) -> F64:
    """Return what no score in each tile exceeds for an item vector float64 [d], the engine's reference; float64."""
    low, high, rest, bias = extents.astype(np.float64).T
    along = directions.astype(np.float64) @ q
    norm = float(np.linalg.norm(q))
    across = np.sqrt(np.maximum(norm**2 - along**2 / (1 + _UNIT_SLACK), 0.0))
    longest = np.maximum(np.abs(low), np.abs(high)) + rest
    found: F64 = np.maximum(low * along, high * along) + across * rest + bias + _SLACK * norm * longest
    return found


def _above(number: float) -> np.float32:
    with np.errstate(over="ignore"):
        nearest = np.float32(number)
    return nearest if float(nearest) >= number else np.nextafter(nearest, np.float32(np.inf))
