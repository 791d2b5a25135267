"""How numbers become the codes of a codec: by the nearest code, or by a rule that looks at the errors made so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
Codes = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Grid:
    """The numbers that a codec can store for some rows, once their scales are decided.

    Attributes:
        steps: float32 [n, 1] or [n, d]: a stored number is a value of the grid times its step.
        code: from numbers in steps, float32 [n, m], to the codes of the nearest values of the grid, elementwise.
        value: from codes back to values of the grid, float32 [n, m].
    """

    steps: F32
    code: Callable[[F32], Codes]
    value: Callable[[Codes], F32]

    def nearest(self, rows: F32, dims: slice = slice(None)) -> Codes:
        """Return the codes [n, m] of the numbers nearest to rows [n, m], which are the given dimensions."""
        return self.code(rows / self._steps(dims))

    def rows(self, codes: Codes, dims: slice = slice(None)) -> F32:
        """Return the numbers float32 [n, m] that codes of the given dimensions stand for."""
        return self.value(codes) * self._steps(dims)

    def _steps(self, dims: slice) -> F32:
        return self.steps if self.steps.shape[1] == 1 else self.steps[:, dims]


@dataclass(frozen=True)
class Rounded:
    """Rows as codes.

    Attributes:
        codes: [n, d], each of which :meth:`Grid.nearest` gave.
        factors: float32 [n], above 0: the scale of each row is multiplied by it once the codes are known.
    """

    codes: Codes
    factors: F32


Rounding = Callable[[F32, Grid], Rounded]
"""From rows float32 [n, d] and their grid to codes. A rule may pass the error of one dimension on to the next ones:
``grid.rows`` says what a code stands for."""


def nearest(rows: F32, grid: Grid) -> Rounded:
    """Round every number by itself."""
    return Rounded(grid.nearest(rows), np.ones(len(rows), np.float32))
