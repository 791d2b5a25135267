"""The best items of each user by inner product, in exact order, and lists that are merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fllm_export.evaluation.dataset import Pairs, Positions

Rows = npt.NDArray[np.float32]

_SEED = 0
_SCORES_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class RankedLists:
    """Items of some users, best first.

    Attributes:
        items: int64 [L, k].
        scores: float32 [L, k]; minus infinity where a user has fewer candidates.
    """

    items: Positions
    scores: Rows

    def merged(self, other: RankedLists, factor: float) -> RankedLists:
        """Return the best of both, as many as one list has; the other's scores are multiplied by ``factor``.

        A factor above 0 leaves the order within a list as it is, so the best of all are among the best of each.
        """
        items = np.concatenate([self.items, other.items], axis=1)
        scores = np.concatenate([self.scores, other.scores * np.float32(factor)], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.items.shape[1]]
        return RankedLists(np.take_along_axis(items, order, 1), np.take_along_axis(scores, order, 1))


@dataclass(frozen=True)
class Candidates:
    """The items that are ranked.

    Candidates with equal scores stand in an order that is drawn with a fixed seed, not in that of their ids.

    Attributes:
        items: positions of items, in drawn order, int64 [C].
        users: users of the masked pairs, ascending, int64 [M].
        columns: places in ``items`` of the masked pairs, int64 [M].
    """

    items: Positions
    users: Positions
    columns: Positions

    @classmethod
    def of(cls, items: Positions, masked: Pairs) -> Candidates:
        """Draw the order, and keep the masked pairs that are of ``items``, int64 [C], ascending."""
        turns = np.random.default_rng(_SEED).permutation(len(items))
        places = np.empty(len(items), np.int64)
        places[turns] = np.arange(len(items))
        inside = np.isin(masked.items, items)
        order = np.argsort(masked.users[inside], kind="stable")
        users, own = masked.users[inside][order], masked.items[inside][order]
        return cls(items[turns], users, places[np.searchsorted(items, own)])

    def best(self, users: Rows, items: Rows, k: int) -> RankedLists:
        """Rank for every user.

        Args:
            users: vectors of all users, or of the users that are asked about where nothing is masked, float32 [U, d].
            items: vectors of all items, float32 [I, d].
            k: at most the number of candidates.
        """
        size, columns = max(1, _SCORES_AT_ONCE // len(self.items)), items[self.items].T
        places, values = np.empty((len(users), k), np.int64), np.empty((len(users), k), np.float32)
        for start in range(0, len(users), size):
            window = slice(start, min(start + size, len(users)))
            scores = users[window] @ columns
            first, last = np.searchsorted(self.users, [window.start, window.stop])
            scores[self.users[first:last] - start, self.columns[first:last]] = -np.inf
            places[window], values[window] = best_columns(scores, k)
        return RankedLists(self.items[places], values)


def best_columns(scores: Rows, k: int) -> tuple[Positions, Rows]:
    """Return the columns of the k largest numbers of each row, int64 [n, k], and the numbers, float32 [n, k].

    Larger numbers come first, of equal ones the lower column.
    """
    count = scores.shape[1]
    found = torch.from_numpy(scores).topk(min(k + 1, count), dim=1)
    columns, values = found.indices.numpy(), found.values.numpy()
    if count > k:
        # Of numbers that are equal to the last one kept, topk may have left out a lower column.
        for row in np.flatnonzero(values[:, k - 1] == values[:, k]):
            likely = np.flatnonzero(scores[row] >= values[row, k - 1])
            columns[row, :k] = likely[np.argsort(-scores[row, likely], kind="stable")[:k]]
            values[row, :k] = scores[row, columns[row, :k]]
        columns, values = columns[:, :k], values[:, :k]
    order = np.lexsort((columns, -values), axis=1)
    return np.take_along_axis(columns, order, 1), np.take_along_axis(values, order, 1)


def truth_of(pairs: Pairs, users: Positions) -> Sequence[Positions]:
    """Return for each user the items of ``pairs`` that the user likes."""
    return pairs.swapped().users_of(users)
