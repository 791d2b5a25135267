"""Numbers as integers of limited size, so that their products and sums are exact.

An exact sum has the same bits in any order: on every machine, in NumPy and in libfllm, and however rows are cut into
chunks. What rounding to an integer loses is counted where it matters.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

WEIGHT = 2.0**24
"""Matrices of numbers of at most about 1 are rounded to multiples of 1 / WEIGHT, which float32 holds."""

ROUNDING = 0.501
"""Of a unit: what rounding to an integer loses at most, and more."""

GRID_BITS = 20
"""Of numbers on a grid: two of them times each other, :data:`TERMS` times, add up without an error in float64."""

TERMS = 1 << 12

_BITS = 52
_BITS_MAX = 20


def limit(length: int) -> float:
    """Return the largest integer of a row of ``length``: the squares of so many add up to less than 2^53.

    Neither does such a row times a vector of weights exceed that, if the vector's length is about 1.
    """
    return float(2 ** min(_BITS_MAX, (_BITS - (length - 1).bit_length()) // 2))


def fix(rows: F32 | F64) -> tuple[F64, F64]:
    """Return rows [n, d] as integers of at most :func:`limit`, float64 [n, d], and each row's unit, float64 [n]."""
    return fix_to(rows, np.abs(rows).max(1).astype(np.float64))


def fix_to(rows: F32 | F64, peaks: F64) -> tuple[F64, F64]:
    """Return the same where the magnitude that becomes :func:`limit` is given, float64 [n] or [1]."""
    largest = limit(rows.shape[1])
    factors = largest / np.where(peaks > 0, peaks, 1.0)
    return np.rint(rows.astype(np.float64) * factors[:, None]), peaks / largest


def weights(matrix: F32 | F64) -> F64:
    """Return a matrix of numbers of at most about 1 as integers, in units of 1 / :data:`WEIGHT`."""
    return np.rint(matrix.astype(np.float64) * WEIGHT)


def squares(fixed: F64) -> F64:
    """Return the sum of squares of each row of integers, float64 [n]."""
    found: F64 = np.einsum("ij,ij->i", fixed, fixed)
    return found


def on_grid(numbers: F32 | F64, *, whole: bool = False) -> F64:
    """Return rows [n, d] rounded to :data:`GRID_BITS` bits below the power of two above the largest number, float64.

    Args:
        numbers: finite.
        whole: one grid for all rows; otherwise each row has its own.
    """
    peaks = np.abs(numbers).max(axis=None if whole else 1, keepdims=True, initial=0)
    steps = np.ldexp(1.0, np.frexp(peaks)[1] - GRID_BITS)
    found: F64 = np.rint(numbers.astype(np.float64) / steps) * steps
    return found


def exact_product(rows: F64, matrix: F32 | F64) -> F64:
    """Return rows [n, k] times a matrix [k, m], both on a grid, float64 [n, m]: a row has the same bits wherever it is.

    The sums of :data:`TERMS` products are exact, in whatever order the library adds them; longer sums are those of the
    blocks, one after the other.
    """
    found = np.zeros((len(rows), matrix.shape[1]))
    for first in range(0, len(matrix), TERMS):
        part = slice(first, first + TERMS)
        found += rows[:, part] @ matrix[part].astype(np.float64)
    return found
