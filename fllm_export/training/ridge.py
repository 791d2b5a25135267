"""Ridge regression on the features of the training items: M = (sum_i phi_i phi_i' + lambda I)^-1.

M depends on items alone. One :class:`Ridge` serves any number of lambdas: the sum is computed once, and each lambda
costs one Cholesky factor, which for thousands of features is many times cheaper than an eigendecomposition.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fllm_export.errors import UsageError
from fllm_export.training.kernel import Kernel, unit
from fllm_export.training.triangular import Matrix, cholesky, solve_symmetric

Positions = npt.NDArray[np.int64]

_BLOCK_BYTES = 128 << 20


class Ridge:
    """The features phi_i of the training items under one kernel.

    Where every item is a landmark, this is kernel ridge regression itself: the features are the rows of the kernel's
    Cholesky factor, phi_i . phi_j = k(x_i, x_j) + jitter [i = j], and nothing has to be solved for them.

    Attributes:
        kernel: with the landmarks.
        items: vectors of the training items, any float dtype, [T, h], in memory or mapped into it. They are brought
            to length 1 a block at a time.

    Raises:
        UsageError: the vectors do not have the dimension of the landmarks.
    """

    def __init__(self, kernel: Kernel, items: npt.NDArray[np.floating]) -> None:
        if items.ndim != 2 or items.shape[1] != kernel.landmarks.shape[1]:
            raise UsageError(
                f"the item vectors have the shape {list(items.shape)}",
                expected=f"[T, {kernel.landmarks.shape[1]}], the dimension of the landmarks",
            )
        self.kernel = kernel
        self.items = items
        self._own = _places(kernel.landmarks, items)
        self._solved: tuple[float, Matrix] | None = None

    def blocks(self) -> Iterator[tuple[slice, Matrix]]:
        """Yield the features of all training items in order: which items, and float64 [n, m]."""
        step = max(1, _BLOCK_BYTES // (8 * len(self.kernel.landmarks)))
        for first in range(0, len(self.items), step):
            window = slice(first, min(first + step, len(self.items)))
            yield window, self.features(np.arange(window.start, window.stop))

    def features(self, positions: Positions) -> Matrix:
        """Return the features of some training items, float64 [n, m]."""
        if self._own is not None:
            return self.kernel.cholesky[self._own[positions]]
        return self.kernel.features(unit(self.items[positions]))

    @cached_property
    def gram(self) -> Matrix:
        """The sum over the training items of phi_i phi_i', float64 [m, m]."""
        total = np.zeros((len(self.kernel.landmarks),) * 2)
        for _, features in self.blocks():
            total += features.T @ features
        return total

    def cholesky(self, penalty: float) -> Matrix:
        """Return C, lower-triangular float64 [m, m], with C C' = M^-1; that of the last lambda is kept.

        Args:
            penalty: lambda, more than 0.

        Raises:
            UsageError: lambda is so small that the matrix is not positive definite.
        """
        if self._solved is None or self._solved[0] != penalty:
            matrix = self.gram.copy()
            matrix[np.diag_indices_from(matrix)] += penalty
            factor = cholesky(matrix)
            if factor is None:
                raise UsageError(f"the matrix is singular with lambda {penalty:g}", expected="a larger lambda")
            self._solved = penalty, factor
        return self._solved[1]

    def solve(self, penalty: float, columns: Matrix) -> Matrix:
        """Return M B, float64 [m, k], of B [m, k]."""
        return solve_symmetric(self.cholesky(penalty), np.ascontiguousarray(columns))

    def weights(self, penalty: float, x: Matrix) -> Matrix:
        """Return by how much each training item's users count for other items: phi_i . M phi(x), float64 [T, n].

        A user's score of x is the sum of these over the user's items. For the training items themselves it is the
        hat matrix H.

        Args:
            penalty: lambda.
            x: unit vectors, float64 [n, h].
        """
        return self.against(self.solve(penalty, self.kernel.features(x).T))

    def against(self, columns: Matrix) -> Matrix:
        """Return phi_i . b for every training item i and every column b of B, float64 [T, k]."""
        found = np.empty((len(self.items), columns.shape[1]))
        for window, features in self.blocks():
            found[window] = features @ columns
        return found


def _places(landmarks: Matrix, items: npt.NDArray[np.floating]) -> Positions | None:
    """Return which landmark each item is, int64 [T], or None where some item is not a landmark."""
    places = {row.tobytes(): place for place, row in enumerate(landmarks)}
    if unit(items[:1]).tobytes() not in places:
        return None
    found = np.array([places.get(row.tobytes(), -1) for row in unit(items)], np.int64)
    return found if (found >= 0).all() else None
