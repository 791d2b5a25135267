"""What a baseline may learn from: the training pairs, and the text vectors of the items in them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.errors import HardwareError
from fllm_export.evaluation.dataset import Dataset, Pairs, Positions

Vectors = npt.NDArray[np.float32]


def unit(vectors: npt.NDArray[np.floating]) -> Vectors:
    """Return vectors at unit length, float32 [n, h]; a vector of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return found


@dataclass(frozen=True)
class Known:
    """The training pairs as a matrix of training items and users.

    Attributes:
        items: the training items, positions in :attr:`Dataset.item_ids`, ascending, int64 [T].
        rows: for each pair the place of its item in ``items``, int64 [P].
        users: for each pair its user, a position in :attr:`Dataset.user_ids`, int64 [P].
        user_count: number of users, U.
        vectors: unit text vectors of ``items``, float32 [T, h], or None where there are none.
    """

    items: Positions
    rows: Positions
    users: Positions
    user_count: int
    vectors: Vectors | None

    @classmethod
    def of(cls, dataset: Dataset, vectors: Vectors | None) -> Known:
        """Return the pairs of the split ``train``, and of no other.

        Args:
            dataset: the data set.
            vectors: text vectors of its training items in ascending order, float32 [T, h], of any length each; or None.
        """
        train: Pairs = dataset.splits["train"]
        items = train.distinct_items
        rows = np.searchsorted(items, train.items)
        return cls(items, rows, train.users, len(dataset.user_ids), None if vectors is None else unit(vectors))

    @property
    def texts(self) -> Vectors:
        """The text vectors, of a baseline that reads texts."""
        if self.vectors is None:
            raise ValueError("this baseline needs text vectors")
        return self.vectors

    @cached_property
    def activity(self) -> npt.NDArray[np.int64]:
        """Training items of each user, int64 [U]."""
        return np.bincount(self.users, minlength=self.user_count)

    @cached_property
    def popularity(self) -> npt.NDArray[np.int64]:
        """Training users of each item, int64 [T]."""
        return np.bincount(self.rows, minlength=len(self.items))

    @cached_property
    def likes(self) -> Any:
        """The pairs as ones in a ``scipy.sparse.csr_matrix``, float32 [T, U].

        Raises:
            HardwareError: SciPy is not installed.
        """
        shape = (len(self.items), self.user_count)
        ones = np.ones(len(self.rows), np.float32)
        return require_scipy("scipy.sparse").csr_matrix((ones, (self.rows, self.users)), shape=shape)


def require_scipy(module: str) -> Any:
    """Import a module of SciPy.

    Raises:
        HardwareError: SciPy is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise HardwareError(
            "the baselines that read texts need scipy, which is not installed",
            fix="Run pip install 'fllm-export[train]', or leave the baselines out (--no-baselines)",
        ) from error
