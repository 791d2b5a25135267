"""A linear map of item vectors and user rows: folded into the mapper, and applied to rows when they are written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.calibration.tensor_file import read_tensors, write_tensors
from fllm_export.errors import UsageError

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_BLOCK_ROWS = 1_024

_SHAPES = {"items": ("m", "d"), "users": ("m", "d")}


@dataclass(frozen=True, eq=False)
class Transform:
    """Two matrices: z becomes A z for every item, e becomes B e for every user.

    The score e.z becomes e.(B'A) z. It stays what it was where B'A is the identity, as for a rotation (B = A); a low
    rank keeps of it what B'A keeps.

    Attributes:
        items: A, float64 [m, d].
        users: B, float64 [m, d].

    Raises:
        UsageError: the matrices have not the same shape, are empty, or hold numbers that are not finite.
    """

    items: F64
    users: F64

    def __post_init__(self) -> None:
        for name in ("items", "users"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.float64))
        shapes = [list(self.items.shape), list(self.users.shape)]
        if shapes[0] != shapes[1] or len(shapes[0]) != 2 or 0 in shapes[0]:
            raise UsageError(f"the matrices have the shapes {shapes[0]} and {shapes[1]}", expected="[m, d] both")
        if not (np.isfinite(self.items).all() and np.isfinite(self.users).all()):
            raise UsageError("a matrix holds a number that is not finite", expected="finite numbers")

    @property
    def dim(self) -> int:
        """Dimension m of what it makes."""
        return len(self.items)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of both matrices, in hexadecimal."""
        digest = hashlib.sha256(repr(self.items.shape).encode())
        digest.update(self.items.tobytes() + self.users.tobytes())
        return digest.hexdigest()

    def then(self, other: Transform) -> Transform:
        """Return this map followed by another.

        Raises:
            UsageError: the other takes vectors of another dimension.
        """
        if other.items.shape[1] != self.dim:
            raise UsageError(
                f"a transform to {self.dim} dimensions is followed by one from {other.items.shape[1]}",
                expected="the same dimension",
            )
        return Transform(other.items @ self.items, other.users @ self.users)

    def item_vectors(self, z: F32) -> F32:
        """Return item vectors float32 [n, d] as the folded mapper makes them, float32 [n, m]."""
        return _product(z, self.items)

    def rows(self, rows: F32) -> F32:
        """Return user rows float32 [n, d] as they are stored, float32 [n, m]."""
        return _product(rows, self.users)

    def save(self, path: Path) -> None:
        """Write both matrices, float64: new user rows need them as long as the table lives."""
        write_tensors(path, {"items": self.items, "users": self.users}, {"format": "fllm-transform"})

    @classmethod
    def load(cls, path: Path) -> Transform:
        """Read what :meth:`save` wrote.

        Raises:
            BundleError: the file is missing or damaged.
        """
        return cls(**read_tensors(path, _SHAPES))


def _product(vectors: F32, matrix: F64) -> F32:
    """Return the products of vectors [n, d] with a matrix [m, d], summed in float64 and rounded, float32 [n, m]."""
    products = np.empty((len(vectors), len(matrix)), np.float32)
    # In blocks whose float64 numbers stay in the processor's cache, and lie at one place in it.
    block = min(len(vectors), _BLOCK_ROWS)
    wide, sums = np.empty((block, matrix.shape[1])), np.empty((block, len(matrix)))
    for start in range(0, len(vectors), _BLOCK_ROWS):
        part = vectors[start : start + _BLOCK_ROWS]
        wide[: len(part)] = part
        products[start : start + len(part)] = np.matmul(wide[: len(part)], matrix.T, out=sums[: len(part)])
    return products
