"""Where user rows come from: a tensor on disk or an array in memory, read a slice at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fllm_export.checkpoint.tensors import FloatArray, StoredTensor
from fllm_export.errors import BundleError


class RowSource(Protocol):
    """Consecutive user rows that can be read by slices."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        ...

    @property
    def dim(self) -> int:
        """Numbers in a row."""
        ...

    def read(self, first: int, count: int) -> FloatArray:
        """Return ``count`` finite rows from row ``first``, float32 [count, dim]."""
        ...


@dataclass(frozen=True)
class StoredRows:
    """Rows ``first`` to ``first + rows - 1`` of a tensor on disk."""

    tensor: StoredTensor
    first: int
    rows: int

    @property
    def dim(self) -> int:
        """Numbers in a row."""
        return self.tensor.shape[1]

    def read(self, first: int, count: int) -> FloatArray:
        """Return ``count`` rows from row ``first``, float32 [count, dim].

        Raises:
            BundleError: a NaN or infinite number, or a file that has become shorter.
        """
        return self.tensor.read(self.first + first, count)


@dataclass(frozen=True)
class ArrayRows:
    """The rows of an array [rows, dim] in memory (or mapped into it); ``source`` names it in messages."""

    array: npt.NDArray[np.generic]
    source: str

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.array.shape[0])

    @property
    def dim(self) -> int:
        """Numbers in a row."""
        return int(self.array.shape[1])

    def read(self, first: int, count: int) -> FloatArray:
        """Return ``count`` rows from row ``first``, float32 [count, dim].

        Raises:
            BundleError: a NaN or infinite number.
        """
        with np.errstate(over="ignore"):
            values = self.array[first : first + count].astype(np.float32)
        bad = ~np.isfinite(values)
        if bad.any():
            row = first + int(np.argwhere(bad)[0][0])
            raise BundleError(
                f"{self.source} has a NaN or infinite number in row {row}", expected="finite numbers only"
            )
        return values
