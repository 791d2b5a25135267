"""Rounding rows to {-1, 1}, {-3, -1, 1, 3} or the odd integers of {-15, ..., 15}, times a scale by least squares."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from fllm_export.table.rounding import Codes, Grid

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

STEPS = {1: (1.0,), 3: (0.42, 0.5, 0.62, 0.9), 15: (0.1, 0.13, 0.165, 0.21, 0.27, 0.36)}
"""By the largest value of a grid, the scales that are tried, relative to a row's root mean square. A normal row is best
rounded with 0.498 (3) and 0.168 (15); rows with few large numbers with more, rows of similar magnitudes with less. The
signs do not depend on it."""

_TINY = float(np.finfo(np.float32).tiny)
_FIXED_POINT = 2.0**15
_CHUNK_NUMBERS = 1 << 15
"""Few enough for the arrays of a step to stay in a core's own cache."""


def odd_grid(rows: F32, largest: int) -> tuple[Grid, F32]:
    """Return the grid of odd integers of at most ``largest`` for rows [n, d], and the scales float32 [n].

    A row x is rounded with each of :data:`STEPS`. Of the codes c that come out, those that explain most of the row,
    (x.c)^2 / c.c, decide its scale, x.c / c.c. A row of zeros, or of numbers so small that the scale would be less than
    the smallest normal float32, has the scale 0.
    """
    step = max(1, _CHUNK_NUMBERS // rows.shape[1])
    chunks = [_scales(rows[at : at + step], largest) for at in range(0, len(rows), step)]
    scales = np.concatenate(chunks) if chunks else np.empty(0, np.float32)
    return Grid(np.maximum(scales, np.float32(_TINY))[:, None], partial(_codes, largest=largest), _as_float32), scales


def _scales(rows: F32, largest: int) -> F32:
    """Return the scales float32 [n] of rows [n, d].

    Rows are taken in fixed point. So all sums are exact, and a table's bytes do not depend on how its rows were cut
    into chunks, nor on the machine.
    """
    peaks = np.abs(rows).max(1).astype(np.float64)
    units = np.where(peaks > 0, peaks, 1.0) / _FIXED_POINT
    fixed = np.rint(np.abs(rows) / units[:, None])
    root_mean_squares = np.sqrt(np.einsum("ij,ij->i", fixed, fixed) / rows.shape[1])
    best, scales = np.full(len(rows), -1.0), np.zeros(len(rows))
    for step in STEPS[largest]:
        codes = _odd(fixed * (0.5 / (step * np.maximum(root_mean_squares, 1.0)))[:, None], largest)
        along = np.einsum("ij,ij->i", codes, fixed)
        squares = np.einsum("ij,ij->i", codes, codes)
        better = along * along > best * squares
        best = np.where(better, along * along / squares, best)
        scales = np.where(better, along / squares, scales)
    scales *= units
    return np.where(scales >= _TINY, scales, 0.0).astype(np.float32)


def _odd(halves: npt.NDArray[np.floating], largest: int) -> npt.NDArray[np.floating]:
    """Return the odd integers nearest to twice some numbers; of two equally near ones the larger. Changes its input."""
    np.floor(halves, out=halves)
    halves *= 2
    halves += 1
    return halves.clip(-largest, largest, out=halves)


def _codes(numbers: F32, largest: int) -> npt.NDArray[np.int8]:
    return _odd(numbers * np.float32(0.5), largest).astype(np.int8)


def _as_float32(codes: Codes) -> F32:
    return codes.astype(np.float32)
