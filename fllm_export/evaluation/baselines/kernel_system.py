"""The linear system of kernel ridge regression: exact for some thousand training items, by landmarks for more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fllm_export.evaluation.baselines.known import Vectors, require_scipy

EXACT_ITEMS = 16_000
"""Training items up to which every one is a landmark: the matrix of 16,000 x 16,000 float64 takes 2 GB."""

LANDMARKS = 4_096
_SEED = 0
_ROWS_AT_ONCE = 1_024
_ITEMS_AT_ONCE = 65_536
_JITTER = 1e-10

Matrix = npt.NDArray[np.float64]


class KernelSystem(Protocol):
    """Turns an item's vector into a weight for each training item, by which their users are summed."""

    def factorised(self, ridge: float) -> KernelSystem:
        """Return the system for a lambda."""
        ...

    def weights(self, vectors: Vectors) -> Iterator[tuple[slice, Vectors]]:
        """Yield windows of the training items and the items' weights on them, float32 [B, t], of a factorised system.

        Args:
            vectors: unit vectors of some items, float32 [B, h].
        """
        ...


def kernel_system(vectors: Vectors, g: float) -> KernelSystem:
    """Return the system of unit vectors of training items, float32 [T, h], and the kernel exp(g (a.b - 1)).

    Up to 16,000 items the system is exact, w(x) = (K + lambda I)^-1 k(X, x). Above, 4,096 of the items, drawn with a
    fixed seed, are landmarks L of the Nystrom method: w(x) = k(X, L) (k(L, X) k(X, L) + lambda k(L, L))^-1 k(L, x),
    which is the same where all items are landmarks.
    """
    if len(vectors) <= EXACT_ITEMS:
        return ExactSystem(vectors, g)
    chosen = np.sort(np.random.default_rng(_SEED).choice(len(vectors), LANDMARKS, replace=False))
    return NystromSystem.of(vectors, vectors[chosen], g)


@dataclass(frozen=True, eq=False)
class ExactSystem:
    """Every training item is a landmark.

    Attributes:
        vectors: of the training items, float32 [T, h].
        g: the kernel's parameter.
        factor: the Cholesky factor of K + lambda I, float64; None before :meth:`factorised`.
    """

    vectors: Vectors
    g: float
    factor: Any = None

    def factorised(self, ridge: float) -> ExactSystem:
        """Return the system for a lambda. One matrix [T, T] is held at a time, and overwritten by its factor."""
        count = len(self.vectors)
        matrix = np.empty((count, count), np.float64, order="F")
        for start in range(0, count, _ROWS_AT_ONCE):
            window = slice(start, start + _ROWS_AT_ONCE)
            matrix[:, window] = _kernel(self.vectors, self.vectors[window], self.g)
        matrix[np.diag_indices(count)] += ridge
        return replace(self, factor=_cholesky(matrix))

    def weights(self, vectors: Vectors) -> Iterator[tuple[slice, Vectors]]:
        """Yield one window of all training items and the weights, float32 [B, T]."""
        solved = _solve(self.factor, _kernel(vectors, self.vectors, self.g).T)
        yield slice(0, len(self.vectors)), solved.T.astype(np.float32)


@dataclass(frozen=True, eq=False)
class NystromSystem:
    """Some of the training items are landmarks.

    Attributes:
        vectors: of the training items, float32 [T, h].
        landmarks: of the landmarks, float32 [m, h].
        g: the kernel's parameter.
        inner: k(L, L), float64 [m, m].
        outer: k(L, X) k(X, L), float64 [m, m].
        factor: the Cholesky factor of outer + lambda inner; None before :meth:`factorised`.
    """

    vectors: Vectors
    landmarks: Vectors
    g: float
    inner: Matrix
    outer: Matrix
    factor: Any = None

    @classmethod
    def of(cls, vectors: Vectors, landmarks: Vectors, g: float) -> NystromSystem:
        """Compute what all lambdas share."""
        outer = np.zeros((len(landmarks), len(landmarks)))
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            part = _kernel(landmarks, vectors[start : start + _ROWS_AT_ONCE], g)
            outer += part @ part.T
        return cls(vectors, landmarks, g, _kernel(landmarks, landmarks, g), outer)

    def factorised(self, ridge: float) -> NystromSystem:
        """Return the system for a lambda."""
        matrix = np.asfortranarray(self.outer + ridge * self.inner)
        # Landmarks with the same text make the matrix singular.
        matrix[np.diag_indices(len(matrix))] += _JITTER * np.trace(matrix) / len(matrix)
        return replace(self, factor=_cholesky(matrix))

    def weights(self, vectors: Vectors) -> Iterator[tuple[slice, Vectors]]:
        """Yield the training items 65,536 at a time and the weights, float32 [B, t]."""
        solved = _solve(self.factor, _kernel(vectors, self.landmarks, self.g).T).T.astype(np.float32)
        for start in range(0, len(self.vectors), _ITEMS_AT_ONCE):
            window = slice(start, min(start + _ITEMS_AT_ONCE, len(self.vectors)))
            cosines = self.landmarks @ self.vectors[window].T
            yield window, solved @ np.exp(np.float32(self.g) * (cosines - np.float32(1)))


def _kernel(a: Vectors, b: Vectors, g: float) -> Matrix:
    """Return exp(g (a.b - 1)), float64 [n, m]; cosines of unit vectors are float32."""
    cosines: Matrix = (a @ b.T).astype(np.float64)
    cosines -= 1
    cosines *= g
    return np.exp(cosines, out=cosines)


def _cholesky(matrix: Matrix) -> Any:
    return require_scipy("scipy.linalg").cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)


def _solve(factor: Any, right: Matrix) -> Matrix:
    found: Matrix = require_scipy("scipy.linalg").cho_solve(factor, right, overwrite_b=True, check_finite=False)
    return found
