"""The vectors that training begins with: singular vectors of the interactions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.floating[Any]]
Rows = npt.NDArray[np.float32]

_EXTRA = 16
_ROUNDS = 4
_NOISE = 0.02
_SMALLEST = 1e-6


def starting_vectors(edges: Any, dim: int, scale: float, seed: int) -> tuple[Rows, Rows]:
    """Return vectors of users, float32 [U, d], and of items, float32 [T, d].

    With U S V' the largest singular values and vectors of the edges, they are scale U S^1/2 and scale V S^1/2, and
    independent Gaussian noise. A few epochs of BPR from here rank warm items as well as hundreds from noise alone. The
    singular vectors come from a randomised subspace iteration (Halko, Martinsson and Tropp, 2011).

    Args:
        edges: a sparse matrix [U, T].
        dim: d. Beyond the rank of the edges there is only noise.
        scale: of the vectors.
        seed: of the subspace and the noise.
    """
    generator = np.random.default_rng(seed)
    rank = min(dim, *edges.shape)
    width = min(rank + _EXTRA, *edges.shape)
    basis = _orthonormal(edges @ generator.standard_normal((edges.shape[1], width), np.float32))
    for _ in range(_ROUNDS):
        basis = _orthonormal(edges @ _orthonormal(edges.T @ basis))
    spread_out = edges.T @ basis
    squares, turns = np.linalg.eigh((spread_out.T @ spread_out).astype(np.float64))
    rank = min(rank, len(squares))
    largest = np.argsort(-squares)[:rank]
    turned, roots = turns[:, largest].astype(np.float32), np.maximum(squares[largest], 1e-12) ** 0.25
    made = []
    for known in (basis @ turned * roots, spread_out @ turned / roots):
        spread = _NOISE * scale / np.sqrt(dim)
        rows = spread * generator.standard_normal((len(known), dim), np.float32)
        rows[:, :rank] += scale * known
        made.append(rows.astype(np.float32))
    return made[0], made[1]


def _orthonormal(columns: Matrix) -> Matrix:
    """Return an orthonormal basis of tall columns, by their Gram matrix: matrix products in place of reflections."""
    values, turns = np.linalg.eigh((columns.T @ columns).astype(np.float64))
    kept = values > values[-1] * _SMALLEST
    found: Matrix = columns @ (turns[:, kept] / np.sqrt(values[kept])).astype(np.float32)
    return found
