"""The kernel of the unit sphere, k(a, b) = exp(g (a.b - 1)), and its features by landmarks (Nystrom).

On unit vectors it is the Gaussian kernel exp(-g |a - b|^2 / 2). With landmarks L [m, h], the features

    phi(x) = R k(L, x),    R' R = (K_LL + jitter I)^-1

have phi(x).phi(y) = k(x, y) wherever x or y is a landmark (Williams and Seeger, NIPS 2000).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fllm_export.errors import UsageError
from fllm_export.training.triangular import Matrix, cholesky, inverse_lower, solve_lower

JITTERS = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6)
"""What is added to the diagonal of K_LL, which is 1: the first of these with which its Cholesky factor exists."""

_UNIT = 1e-3
_BLOCK_ROWS = 4096


def unit(vectors: npt.ArrayLike) -> Matrix:
    """Return vectors at length 1, float64 [n, h].

    Raises:
        UsageError: they are not numbers [n, h], or a vector is zero or not finite, which is named.
    """
    given = np.asarray(vectors)
    if given.ndim != 2 or given.dtype.kind not in "fiu" or 0 in given.shape:
        raise UsageError(f"the vectors are {given.dtype} {list(given.shape)}", expected="numbers [n, h], not empty")
    wide = given.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    good = np.isfinite(lengths) & (lengths > 0)
    if not good.all():
        row = int(np.argmin(good))
        raise UsageError(
            f"vector {row} (counted from 0) has the length {lengths[row]}",
            expected="finite vectors that are not zero",
            fix="Look at the text of that item",
        )
    wide /= lengths[:, None]
    return wide


@dataclass(frozen=True, eq=False)
class Kernel:
    """k(a, b) = exp(g (a.b - 1)) and its features by landmarks.

    Attributes:
        landmarks: float64 [m, h], each of length 1 and all distinct (see
            :func:`fllm_export.training.landmarks.choose_landmarks`).
        gamma: g, more than 0: how fast similarity falls off.

    Raises:
        UsageError: gamma is not positive, or the landmarks are not distinct unit vectors.
    """

    landmarks: Matrix
    gamma: float

    def __post_init__(self) -> None:
        if not self.gamma > 0 or not np.isfinite(self.gamma):
            raise UsageError(f"gamma is {self.gamma}", expected="a finite number above 0")
        landmarks = self.landmarks
        if landmarks.ndim != 2 or landmarks.dtype != np.float64 or 0 in landmarks.shape:
            found = f"the landmarks are {landmarks.dtype} {list(landmarks.shape)}"
            raise UsageError(found, expected="float64 [m, h] with m and h of at least 1")
        if not (np.abs(np.linalg.norm(landmarks, axis=1) - 1) < _UNIT).all():
            raise UsageError("a landmark does not have length 1", expected="landmarks of length 1", fix="Use unit()")
        if len(np.unique(landmarks, axis=0)) < len(landmarks):
            raise UsageError("a landmark occurs twice", expected="distinct landmarks", fix="Use choose_landmarks()")

    def against(self, x: Matrix) -> Matrix:
        """Return k(x, L), float64 [n, m], of unit vectors x, float64 [n, h]."""
        # The product of a matrix with its own transpose takes a path of its own in OpenBLAS, which ends in a
        # segmentation fault above 16,384 rows. Blocks never take it.
        similar: Matrix = np.empty((len(x), len(self.landmarks)))
        for first in range(0, len(x), _BLOCK_ROWS):
            block = slice(first, first + _BLOCK_ROWS)
            np.matmul(x[block], self.landmarks.T, out=similar[block])
        similar -= 1
        similar *= self.gamma
        return np.exp(similar, out=similar)

    @cached_property
    def cholesky(self) -> Matrix:
        """C, lower-triangular float64 [m, m], with C C' = K_LL + jitter I; the jitter is one of :data:`JITTERS`.

        Raises:
            UsageError: the matrix is not positive definite even with the largest jitter.
        """
        matrix = self.against(self.landmarks)
        added = 0.0
        for jitter in JITTERS:
            matrix[np.diag_indices_from(matrix)] += jitter - added
            added = jitter
            found = cholesky(matrix)
            if found is not None:
                return found
        raise UsageError(
            f"the kernel matrix of {len(matrix)} landmarks at gamma {self.gamma:g} is singular",
            expected="landmarks that differ",
            fix="Use a larger gamma or fewer landmarks",
        )

    def factor(self) -> Matrix:
        """Return R = C^-1, lower-triangular float64 [m, m], with R' R = (K_LL + jitter I)^-1."""
        return inverse_lower(self.cholesky)

    def features(self, x: Matrix) -> Matrix:
        """Return phi(x) = R k(L, x), float64 [n, m], of unit vectors x, float64 [n, h]."""
        return self.features_of(self.against(x))

    def features_of(self, values: Matrix) -> Matrix:
        """Return phi(x), float64 [n, m], from k(x, L), float64 [n, m]."""
        return np.ascontiguousarray(solve_lower(self.cholesky, np.ascontiguousarray(values.T)).T)
