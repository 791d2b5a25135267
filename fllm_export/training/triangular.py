"""Triangular factors of float64 matrices: what NumPy does not have, from torch's LAPACK."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Matrix = npt.NDArray[np.float64]


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
