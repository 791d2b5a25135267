"""The sum of some vectors for every user: the one loop of the closed form that grows with the interactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from fllm_export.errors import HardwareError, UsageError

Positions = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class UserItems:
    """The items of each of some users, in compressed rows.

    Attributes:
        items: item positions, int64 [P]; the items of a user stand together.
        starts: where the items of each user begin in ``items``, and at the end P: int64 [U + 1], ascending from 0.
    """

    items: Positions
    starts: Positions

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def of(cls, users: Positions, items: Positions, count: int) -> UserItems:
        """Group pairs by user.

        Args:
            users: user positions from 0 to count - 1, int64 [P], in any order.
            items: item positions, int64 [P].
            count: number of users; some may have no item.

        Raises:
            UsageError: a user is outside 0 to count - 1.
        """
        if len(users) and not (int(users.min()) >= 0 and int(users.max()) < count):
            found = f"users run from {users.min()} to {users.max()}"
            raise UsageError(found, expected=f"positions from 0 to {count - 1}")
        starts = np.zeros(count + 1, np.int64)
        np.cumsum(np.bincount(users, minlength=count), out=starts[1:])
        return cls(items[np.argsort(users, kind="stable")], starts)

    @property
    def sizes(self) -> Positions:
        """Number of items of each user (pop_u), int64 [U]."""
        return np.diff(self.starts)

    def part(self, first: int, last: int) -> UserItems:
        """Return users ``first`` to ``last - 1``."""
        begin, end = self.starts[first], self.starts[last]
        return UserItems(self.items[begin:end], self.starts[first : last + 1] - begin)

    def chosen(self, users: Positions) -> UserItems:
        """Return some users, int64 [n], in the order given."""
        sizes = self.sizes[users]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        places = np.repeat(self.starts[users] - starts[:-1], sizes) + np.arange(starts[-1])
        return UserItems(self.items[places], starts)

    def by_item(self, count: int) -> UserItems:
        """Return the users of each of ``count`` items, ascending, with items and users in each other's place."""
        return UserItems.of(self.items, np.repeat(np.arange(len(self)), self.sizes), count)

    def matrix(self, weights: npt.NDArray[np.floating], factors: npt.NDArray[np.floating]) -> Any:
        """Return the sparse matrix with factor_u weight_i for every pair, a float64 ``scipy.sparse.csr_matrix`` [U, T].

        Args:
            weights: of the items, [T].
            factors: of the users, [U].

        Raises:
            HardwareError: SciPy is not installed.
        """
        try:
            from scipy import sparse
        except ImportError as error:
            raise HardwareError("projecting rows needs scipy", fix="Run pip install 'fllm-export[train]'") from error
        values = np.repeat(factors.astype(np.float64), self.sizes) * weights[self.items]
        return sparse.csr_matrix((values, self.items, self.starts), shape=(len(self), len(weights)))

    def sums(self, vectors: FloatArray) -> FloatArray:
        """Return for each user the sum of the vectors of the user's items, float32 [U, d]; zeros where there is none.

        Multi-threaded: torch adds the vectors of a user in the order of ``items``, so the result does not depend on
        the number of threads.

        Args:
            vectors: float32 [T, d], in memory or mapped into it.
        """
        table = torch.from_numpy(vectors)
        with torch.no_grad():
            found = F.embedding_bag(
                torch.from_numpy(self.items), table, torch.from_numpy(self.starts), mode="sum", include_last_offset=True
            )
        summed: FloatArray = found.numpy()
        return summed


def damping(sizes: Positions, power: float) -> FloatArray:
    """Return size^-power, float32 [n]; 0 where the size is 0."""
    return np.where(sizes > 0, np.maximum(sizes, 1).astype(np.float64) ** -power, 0).astype(np.float32)
