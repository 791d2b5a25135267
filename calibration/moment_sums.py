"""Sums over the vectors so far, from which their moments follow. A killed pass resumes from their file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.calibration.tensor_file import read_tensors, write_tensors

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

SHAPES: dict[str, tuple[str, ...]] = {
    "count": (),
    "fourth": (),
    "mean": ("d",),
    "second": ("d", "d"),
    "lowest": ("d",),
    "highest": ("d",),
}
"""Names and shapes of the numbers of a pass, in its file and in that of the moments."""


@dataclass(eq=False)
class MomentSums:
    """Sums over vectors x [d].

    The products within a chunk are in float32, their sums in float64: the error of a moment is about 1e-7 of it.

    Attributes:
        count: number of vectors.
        mean: sum of x, float64 [d].
        second: sum of xx', float64 [d, d].
        fourth: sum of |x|^4.
        lowest: smallest number of each dimension, float64 [d]; infinite without a vector.
        highest: largest number of each dimension, float64 [d]; infinite without a vector.
    """

    count: int
    mean: F64
    second: F64
    fourth: float
    lowest: F64
    highest: F64

    @classmethod
    def none(cls, dim: int) -> MomentSums:
        """Return the sums over no vector of a dimension."""
        lowest, highest = np.full(dim, np.inf), np.full(dim, -np.inf)
        return cls(0, np.zeros(dim), np.zeros((dim, dim)), 0.0, lowest, highest)

    def add(self, chunk: F32) -> None:
        """Add some vectors, float32 [n, d]."""
        if not len(chunk):
            return
        self.count += len(chunk)
        self.mean += chunk.sum(0, dtype=np.float64)
        self.second += chunk.T @ chunk
        self.fourth += float((np.einsum("nd,nd->n", chunk, chunk).astype(np.float64) ** 2).sum())
        np.minimum(self.lowest, chunk.min(0), out=self.lowest)
        np.maximum(self.highest, chunk.max(0), out=self.highest)

    def save(self, path: Path) -> None:
        """Write the sums of at least one vector, all in float64, so that a resumed pass ends with the same bits."""
        tensors = {name: np.asarray(getattr(self, name), np.float64) for name in SHAPES}
        write_tensors(path, tensors, {"format": "fllm-moment-sums"})

    @classmethod
    def load(cls, path: Path) -> MomentSums:
        """Read what :meth:`save` wrote.

        Raises:
            BundleError: the file is missing or damaged.
        """
        found = read_tensors(path, SHAPES)
        return cls(count=int(found.pop("count")), fourth=float(found.pop("fourth")), **found)
