"""Triangular factors of float64 matrices: what NumPy does not have, from torch's LAPACK."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Matrix = npt.NDArray[np.float64]

_COLUMNS = 1024


def cholesky(matrix: Matrix) -> Matrix | None:
    """Return the lower-triangular C with C C' = ``matrix``, float64 [n, n], or None where it is not positive definite.

    Args:
        matrix: symmetric, float64 [n, n]; only its lower triangle is read.
    """
    factor, failed = torch.linalg.cholesky_ex(torch.from_numpy(matrix))
    if int(failed) or not bool(torch.isfinite(factor.diagonal()).all()):
        return None
    found: Matrix = factor.numpy()
    return found


def solve_lower(factor: Matrix, columns: Matrix) -> Matrix:
    """Return C^-1 B, float64 [n, k], for a lower-triangular C [n, n] and B [n, k]."""
    solved = torch.linalg.solve_triangular(torch.from_numpy(factor), torch.from_numpy(columns), upper=False)
    found: Matrix = solved.numpy()
    return found


def solve_lower_transposed(factor: Matrix, columns: Matrix) -> Matrix:
    """Return C'^-1 B, float64 [n, k], for a lower-triangular C [n, n] and B [n, k]."""
    solved = torch.linalg.solve_triangular(torch.from_numpy(factor).T, torch.from_numpy(columns), upper=True)
    found: Matrix = np.ascontiguousarray(solved.numpy())
    return found


def solve_symmetric(factor: Matrix, columns: Matrix) -> Matrix:
    """Return (C C')^-1 B, float64 [n, k], for a lower-triangular C [n, n] and B [n, k]."""
    found: Matrix = torch.cholesky_solve(torch.from_numpy(columns), torch.from_numpy(factor)).numpy()
    return found


def inverse_lower(factor: Matrix) -> Matrix:
    """Return C^-1, float64 [n, n], lower-triangular like C."""
    return solve_lower(factor, np.eye(len(factor)))


def inverse_diagonal(factor: Matrix) -> Matrix:
    """Return the diagonal of (C C')^-1, float64 [n], for a lower-triangular C [n, n]: a third of an inverse's work."""
    found = np.empty(len(factor))
    for first in range(0, len(factor), _COLUMNS):
        # C^-1 is lower-triangular too: above the diagonal its columns are zero.
        rest = factor[first:, first:]
        columns = np.eye(len(rest), min(_COLUMNS, len(rest)))
        found[first : first + columns.shape[1]] = np.square(solve_lower(rest, columns)).sum(0)
    return found
