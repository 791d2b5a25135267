"""Rounding rows so that the scores of real items change least: error feedback, then descent over the codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fllm_export.table.rounding import Codes, Grid, Rounded

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

DAMPING = 1e-3
"""Share of the metric's mean variance that is added to every variance, for the sake of float32."""

_ROWS_AT_ONCE = 4096
_DIMS_AT_ONCE = 32
_LEAST_ALONG = 0.25


class Feedback:
    """A rule of rounding (:data:`fllm_export.table.rounding.Rounding`) for item vectors of a second moment H = E[zz'].

    The mean squared error of a row's scores is (e - c)' H (e - c). Numbers are rounded in their order, and what one of
    them loses is taken up by those that are still to come, in the proportions that are best for H: GPTQ (Frantar et
    al., ICLR 2023), which is Babai's nearest plane. A pass of coordinate descent follows, which may change each code
    once more and never raises the error. Last, the row is scaled so that its error has no part along the row itself:
    e'Hc = e'He, as RaBitQ's estimator (Gao and Long, SIGMOD 2024). Least squares would shrink some rows more than
    others, and rankings by inner product lose by that.

    It costs d^2 multiplications per row and pass, in matrix products. The order of float32 sums depends on how many
    rows come at once, so codes may differ between two such ways to cut a table.

    Args:
        metric: H, symmetric and positive definite, float64 [d, d].
    """

    def __init__(self, metric: F64) -> None:
        damped = metric / np.diag(metric).mean()
        damped[np.diag_indices(len(damped))] += DAMPING
        upper = np.linalg.cholesky(np.linalg.inv(damped)).T
        self._carry = (upper / np.diag(upper)[:, None]).astype(np.float32)
        self._metric = damped.astype(np.float32)

    def __call__(self, rows: F32, grid: Grid) -> Rounded:
        """Return the codes of rows float32 [n, d], and for each row what its scale is to be multiplied by."""
        windows = [slice(at, at + _ROWS_AT_ONCE) for at in range(0, max(len(rows), 1), _ROWS_AT_ONCE)]
        parts = [self._round(rows[window], replace(grid, steps=grid.steps[window])) for window in windows]
        return Rounded(np.concatenate([part.codes for part in parts]), np.concatenate([part.factors for part in parts]))

    def _round(self, rows: F32, grid: Grid) -> Rounded:
        # Products of numbers near the ends of float32's range would leave it.
        peaks = np.abs(rows).max(1, initial=0.0, keepdims=True)
        peaks = np.where(peaks > 0, peaks, np.float32(1)).astype(np.float32)
        steps = (grid.steps / peaks).astype(np.float32)
        state = _State((rows / peaks).T.astype(np.float32), replace(grid, steps=steps))
        self._feed(state)
        self._descend(state)
        return Rounded(np.ascontiguousarray(state.codes.T), self._factors(state))

    def _feed(self, state: _State) -> None:
        left = state.rows.copy()
        for block in _blocks(len(left)):
            errors = np.empty_like(left[block])
            for at, dim in enumerate(range(block.start, block.stop)):
                errors[at] = left[dim] - state.round(dim, left[dim])
                after = slice(dim + 1, block.stop)
                left[after] -= self._carry[dim, after, None] * errors[at]
            left[block.stop :] -= self._carry[block, block.stop :].T @ errors

    def _descend(self, state: _State) -> None:
        slopes = self._metric @ (state.rows - state.values)
        for block in _blocks(len(slopes)):
            near, changes = slopes[block].copy(), np.empty_like(slopes[block])
            for at, dim in enumerate(range(block.start, block.stop)):
                before = state.values[dim].copy()
                best = before + near[at] / self._metric[dim, dim]
                changes[at] = before - state.round(dim, best)
                near += self._metric[block, dim, None] * changes[at]
            slopes += self._metric[:, block] @ changes

    def _factors(self, state: _State) -> F32:
        weighted = self._metric @ state.rows
        wanted = np.einsum("dn,dn->n", weighted, state.rows)
        along = np.einsum("dn,dn->n", weighted, state.values)
        usable = along > _LEAST_ALONG * wanted
        return np.where(usable, wanted / np.where(usable, along, 1), 1).astype(np.float32)


class _State:
    """Rows [d, n], a dimension after the other, with the codes so far and the numbers that they stand for."""

    def __init__(self, rows: F32, grid: Grid) -> None:
        self.rows = np.ascontiguousarray(rows)
        self.values = np.zeros_like(self.rows)
        self.codes: Codes = np.empty(rows.shape, grid.nearest(rows[:1].T, slice(0, 1)).dtype)
        self._grid = grid

    def round(self, dim: int, numbers: F32) -> F32:
        """Give one dimension of all rows the codes nearest to some numbers [n]; return what they stand for."""
        window = slice(dim, dim + 1)
        codes = self._grid.nearest(numbers[:, None], window)
        self.codes[dim] = codes[:, 0]
        values: F32 = self._grid.rows(codes, window)[:, 0]
        self.values[dim] = values
        return values


def _blocks(dims: int) -> list[slice]:
    return [slice(at, min(at + _DIMS_AT_ONCE, dims)) for at in range(0, dims, _DIMS_AT_ONCE)]
