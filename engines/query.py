"""The item vector as the engines see it: as it is, or as integers of two 7-bit limbs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

LARGEST = 8127
"""127 * 64 - 1: the largest integer whose two limbs both lie in [-64, 63]."""


@dataclass(frozen=True)
class Query:
    """A batch of item vectors, z = scale * values.

    Attributes:
        values: float64 [B, d]; integers of magnitude at most 8127 when quantised, z itself otherwise.
        scale: float64 [B]; 1 when not quantised.
    """

    values: F64
    scale: F64

    @classmethod
    def quantised(cls, z: F32) -> Query:
        """Round z to integers: scale = max|z| / 8127 per item, ties to even.

        Against an int8 row the rounding adds about 1/64 of the error that the row itself carries.
        """
        peak = np.abs(z).max(1, initial=0.0).astype(np.float64)
        scale = np.where(peak > 0, peak / LARGEST, 1.0)
        return cls(np.rint(z.astype(np.float64) / scale[:, None]), scale)

    @classmethod
    def exact(cls, z: F32) -> Query:
        """Take z as it is."""
        return cls(z.astype(np.float64), np.ones(len(z)))

    def part(self, items: slice) -> Query:
        """Return some of the items."""
        return Query(self.values[items], self.scale[items])

    def digits(self, count: int, base: int) -> F32:
        """Return the integers as ``count`` digits in [-base / 2, base / 2 - 1], the most significant first.

        Returns:
            float32 [count, B, d]; value = sum of base^i times the i-th digit from the end.
        """
        digits, rest = [], self.values
        for _ in range(count):
            above = np.floor((rest + base // 2) / base)
            digits.append(rest - base * above)
            rest = above
        return np.stack(digits[::-1]).astype(np.float32)

    @property
    def limbs(self) -> npt.NDArray[np.int8]:
        """Return the integers as int8 [2, B, d], the high limbs and the low: value = 128 high + low."""
        return self.digits(2, 128).astype(np.int8)
