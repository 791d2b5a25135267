"""Ridge regression on the features of the training items: M = (sum_i phi_i phi_i' + lambda I)^-1.

M depends on items alone. One object serves any number of lambdas: what does not depend on lambda is computed once, and
each lambda costs one Cholesky factor, which for thousands of features is many times cheaper than an eigendecomposition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.errors import UsageError
from fllm_export.training.kernel import Kernel, unit
from fllm_export.training.low_rank import leading
from fllm_export.training.triangular import (
    Matrix,
    cholesky,
    inverse_diagonal,
    solve_lower,
    solve_lower_transposed,
    solve_symmetric,
)

Positions = npt.NDArray[np.int64]

_BLOCK_BYTES = 128 << 20
_LEAST_SPREAD = 1e-9


@dataclass(frozen=True, eq=False)
class Basis:
    """A low-rank basis in terms of the kernel's values k(x, L) [m].

    Attributes:
        rows: what an item gives to the rows of its users, before n_i^-r, is k(x_i, L) times this, float64 [m, d].
        items: an item vector is this times k(x, L), float64 [d, m].
    """

    rows: Matrix
    items: Matrix


class Ridge:
    """Ridge regression with fewer landmarks than items (Nystrom).

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
        self._solved: tuple[float, Matrix] | None = None

    def blocks(self) -> Iterator[tuple[slice, Matrix]]:
        """Yield k(x_i, L) of all training items in order: which items, and float64 [n, m]."""
        step = max(1, _BLOCK_BYTES // (8 * len(self.kernel.landmarks)))
        for first in range(0, len(self.items), step):
            window = slice(first, min(first + step, len(self.items)))
            yield window, self.kernel.against(unit(self.items[window]))

    def contributed(self, penalty: float) -> Iterator[tuple[slice, Matrix]]:
        """Yield M phi_i of all training items in order: which items, and float64 [n, m]."""
        # One product per item in place of three triangular solutions.
        full = solve_lower_transposed(self.kernel.cholesky, self._solve(penalty, np.eye(len(self.kernel.landmarks))))
        for window, values in self.blocks():
            yield window, values @ full

    def weights(self, penalty: float, x: Matrix) -> Matrix:
        """Return by how much each training item's users count for other items: phi_i . M phi(x), float64 [T, n].

        A user's score of x is the sum of these over the user's items.

        Args:
            penalty: lambda, more than 0.
            x: unit vectors, float64 [n, h].
        """
        return self._against(self._solve(penalty, self.kernel.features(x).T))

    def hats(self, penalty: float, positions: Positions) -> Matrix:
        """Return some columns of the hat matrix, H_ij = phi_i . M phi_j, float64 [T, n]."""
        return self.weights(penalty, unit(self.items[positions]))

    def leverages(self, penalty: float) -> Matrix:
        """Return H_ii of every training item, float64 [T], from 0 to below 1: its weight in its own prediction."""
        factor, found = self._factored(penalty), np.empty(len(self.items))
        for window, values in self.blocks():
            found[window] = np.square(solve_lower(factor, self.kernel.features_of(values).T)).sum(0)
        return found

    def basis(self, penalty: float, targets: Any, dim: int, seed: int) -> Basis:
        """Return the basis of rank ``dim`` that changes the users' scores of the training items least.

        The scores are S = Y H, with Y the targets. Their singular vectors give the best approximation of that rank
        (Eckart and Young). The columns of the users' rows have the mean square 1: a codec with one scale per row then
        rounds all numbers of a row alike, and what it rounds away is least where item vectors are small.

        Args:
            penalty: lambda.
            targets: pop_u^-c n_i^-r for each pair, ``scipy.sparse.csr_matrix`` [U, T].
            dim: at most m.
            seed: of the randomised decomposition.

        Raises:
            UsageError: the scores have a lower rank.
        """
        gathered = np.zeros((len(self.kernel.landmarks), targets.shape[0]))
        by_item = targets.T.tocsr()
        for window, values in self.blocks():
            gathered += (by_item[window].T @ self.kernel.features_of(values)).T
        rows = np.ascontiguousarray(self._solve(penalty, gathered).T)
        gram = self._gram.copy()
        gram[np.diag_indices_from(gram)] += _LEAST_SPREAD * np.trace(gram) / len(gram)
        root = np.linalg.cholesky(gram)
        scores = rows @ root
        left, spread, directions = leading(scores.__matmul__, scores.T.__matmul__, len(root), dim, seed)
        _check_rank(spread, dim)
        scale, factor = np.sqrt(targets.shape[0]), self.kernel.cholesky
        for_rows = self._solve(penalty, root @ directions) * (scale / spread)
        for_items = (rows.T @ left) / (scale * spread)
        return Basis(solve_lower_transposed(factor, for_rows), solve_lower_transposed(factor, for_items).T)

    @cached_property
    def _gram(self) -> Matrix:
        total = np.zeros((len(self.kernel.landmarks),) * 2)
        for _, values in self.blocks():
            features = self.kernel.features_of(values)
            total += features.T @ features
        return total

    def _solve(self, penalty: float, columns: Matrix) -> Matrix:
        """Return M B, float64 [m, k]."""
        return solve_symmetric(self._factored(penalty), np.ascontiguousarray(columns))

    def _factored(self, penalty: float) -> Matrix:
        """Return the Cholesky factor of M^-1; that of the last lambda is kept."""
        if self._solved is None or self._solved[0] != penalty:
            self._solved = None
            self._solved = penalty, _factor(self._penalised(), penalty)
        return self._solved[1]

    def _penalised(self) -> Matrix:
        """Return the matrix to whose diagonal lambda is added."""
        return self._gram

    def _against(self, columns: Matrix) -> Matrix:
        """Return phi_i . b for every training item i and every column b, float64 [T, k]."""
        inner = solve_lower_transposed(self.kernel.cholesky, columns)
        found = np.empty((len(self.items), columns.shape[1]))
        for window, values in self.blocks():
            found[window] = values @ inner
        return found


class KernelRidge(Ridge):
    """Ridge regression where the landmarks are the training items themselves: exact kernel ridge regression.

    Then H = K (K + lambda I)^-1. Everything but the full features goes by the factor of K + lambda I, which is well
    conditioned, and no other matrix of m x m is formed.
    """

    def contributed(self, penalty: float) -> Iterator[tuple[slice, Matrix]]:
        """Yield M phi_i of all training items in order: which items, and float64 [n, m].

        With K = C C', M C' = C' (K + lambda I)^-1.
        """
        for window, _ in self.blocks():
            yield window, self._dual(penalty, self._ones(np.arange(window.start, window.stop))).T @ self.kernel.cholesky

    def weights(self, penalty: float, x: Matrix) -> Matrix:
        """Return (K + lambda I)^-1 k(L, x), float64 [T, n]; see :meth:`Ridge.weights`."""
        return self._dual(penalty, self.kernel.against(x).T)

    def hats(self, penalty: float, positions: Positions) -> Matrix:
        """Return some columns of H = I - lambda (K + lambda I)^-1, float64 [T, n]."""
        return self._hat(penalty, self._ones(positions))

    def leverages(self, penalty: float) -> Matrix:
        """Return H_ii = 1 - lambda (K + lambda I)^-1_ii of every training item, float64 [T]."""
        return 1 - penalty * inverse_diagonal(self._factored(penalty))

    def basis(self, penalty: float, targets: Any, dim: int, seed: int) -> Basis:
        """Return the basis of rank ``dim`` that changes the users' scores of the training items least.

        As :meth:`Ridge.basis`, by products with H.

        Raises:
            UsageError: the scores have a lower rank.
        """
        left, spread, directions = leading(
            lambda v: targets @ self._hat(penalty, v),
            lambda u: self._hat(penalty, targets.T @ u),
            len(self.items),
            dim,
            seed,
        )
        _check_rank(spread, dim)
        scale = np.sqrt(targets.shape[0])
        for_items = self._dual(penalty, targets.T @ left).T / (scale * spread)[:, None]
        return Basis(self._dual(penalty, directions) * (scale / spread), for_items)

    def _hat(self, penalty: float, columns: Matrix) -> Matrix:
        return columns - penalty * self._dual(penalty, columns)

    def _dual(self, penalty: float, columns: Matrix) -> Matrix:
        """Return (K + lambda I)^-1 B, float64 [T, k]."""
        return solve_symmetric(self._factored(penalty), np.ascontiguousarray(columns))

    def _penalised(self) -> Matrix:
        return self.kernel.against(self.kernel.landmarks)

    def _ones(self, positions: Positions) -> Matrix:
        columns = np.zeros((len(self.items), len(positions)))
        columns[positions, np.arange(len(positions))] = 1
        return columns


def ridge(kernel: Kernel, items: npt.NDArray[np.floating]) -> Ridge:
    """Return the ridge regression of some items: exact where they are the landmarks, in the same order."""
    exact = items.shape == kernel.landmarks.shape and np.array_equal(unit(items), kernel.landmarks)
    return KernelRidge(kernel, items) if exact else Ridge(kernel, items)


def _factor(matrix: Matrix, penalty: float) -> Matrix:
    penalised = matrix.copy()
    penalised[np.diag_indices_from(penalised)] += penalty
    factor = cholesky(penalised)
    if factor is None:
        raise UsageError(f"the matrix is singular with lambda {penalty:g}", expected="a larger lambda")
    return factor


def _check_rank(spread: Matrix, dim: int) -> None:
    rank = int((spread > _LEAST_SPREAD * spread[0]).sum())
    if rank < dim:
        raise UsageError(f"dim is {dim} and the user rows have rank {rank}", expected=f"at most {rank}")
