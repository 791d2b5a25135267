"""The first two moments and the range of some vectors, in one pass that holds none of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.calibration.moment_sums import SHAPES, MomentSums
from fllm_export.calibration.tensor_file import read_tensors, write_tensors
from fllm_export.errors import UsageError

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_LEAST_SHARE = 1e-6


@dataclass(frozen=True, eq=False)
class Moments:
    """What is known of a set of vectors x [d].

    Attributes:
        count: number of vectors.
        mean: E[x], float64 [d].
        second: E[xx'], float64 [d, d].
        fourth: E[|x|^4].
        lowest: smallest number of each dimension, float64 [d].
        highest: largest number of each dimension, float64 [d].
    """

    count: int
    mean: F64
    second: F64
    fourth: float
    lowest: F64
    highest: F64

    @classmethod
    def of(cls, chunks: Iterable[F32]) -> Moments:
        """Return the moments of vectors that come in chunks, float32 [n, d] each.

        Raises:
            UsageError: there is no vector.
        """
        sums: MomentSums | None = None
        for chunk in chunks:
            if sums is None:
                sums = MomentSums.none(chunk.shape[1])
            sums.add(chunk)
        return cls.of_sums(sums)

    @classmethod
    def of_sums(cls, sums: MomentSums | None) -> Moments:
        """Return the moments of the vectors that were added up.

        Raises:
            UsageError: there is no vector.
        """
        if sums is None or not sums.count:
            raise UsageError("there are no vectors to measure", expected="at least one")
        return cls(
            sums.count,
            sums.mean / sums.count,
            sums.second / sums.count,
            sums.fourth / sums.count,
            sums.lowest,
            sums.highest,
        )

    @property
    def dim(self) -> int:
        """Dimension d."""
        return len(self.mean)

    @property
    def shrinkage(self) -> float:
        """By how much of the way E[xx'] is to be moved towards the multiple of the identity with its trace, 0 to 1.

        Ledoit and Wolf (Journal of Multivariate Analysis 88, 2004), for a second moment about zero: the expected
        squared error of E[xx'] over its squared distance from that multiple. It falls as 1 / count.
        """
        spread = float((self.second**2).sum())
        error = max(self.fourth - spread, 0.0) / self.count
        distance = spread - float(np.trace(self.second)) ** 2 / self.dim
        return min(1.0, error / distance) if distance > 0 else 1.0

    def metric(self) -> F64:
        """Return E[xx'] as an estimate for vectors to come: shrunk, symmetric and positive definite, float64 [d, d]."""
        share = max(self.shrinkage, _LEAST_SHARE)
        level = float(np.trace(self.second)) / self.dim
        shrunk = (1 - share) * (self.second + self.second.T) / 2
        # Vectors that are all zero have no scale of their own.
        shrunk[np.diag_indices(self.dim)] += share * level if level > 0 else 1.0
        return shrunk

    def save(self, path: Path) -> None:
        """Write a tensor per attribute; E[xx'] is rounded to float32."""
        tensors = {name: np.asarray(getattr(self, name), np.float64) for name in SHAPES}
        tensors["second"] = self.second.astype(np.float32)
        write_tensors(path, tensors, {"format": "fllm-moments"})

    @classmethod
    def load(cls, path: Path) -> Moments:
        """Read what :meth:`save` wrote.

        Raises:
            BundleError: the file is missing or damaged.
        """
        found = read_tensors(path, SHAPES)
        count, fourth = int(found.pop("count")), float(found.pop("fourth"))
        return cls(count=count, fourth=fourth, **found)
