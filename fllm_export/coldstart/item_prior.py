"""What a recommender expects of an item about which nothing is known, and how far a user moves it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.coldstart.vectors import Vectors
from fllm_export.errors import UsageError

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

_CHUNK_ROWS = 65_536
_SAMPLE = 64
_LEVEL_ITEMS = 1024
_TOP_SHARE = 0.02


@dataclass(frozen=True)
class ItemPrior:
    """The item vector is the mean item plus a difference x, which costs x' A x.

    A = b M + t I, where M is the mean of p p' over all users' vectors p: b users who are like all users find the item
    as good as the mean item. t is ``penalty`` times the mean of M's diagonal.

    Attributes:
        mean: mean of the recommender's item vectors, float64 [d].
        root: R with R R' = A^-1, float64 [d, d]: in the coordinates g = R^-1 x the cost is the square of g's length.
    """

    mean: F64
    root: F64

    @classmethod
    def of(cls, recommender: Vectors, background: float, penalty: float) -> ItemPrior:
        """Measure a recommender.

        Args:
            recommender: its vectors.
            background: b.
            penalty: above 0.

        Raises:
            UsageError: all users have the vector 0.
        """
        dim = recommender.dim
        moments = np.zeros((dim, dim))
        for _, rows in _chunks(recommender.users):
            moments += rows.T @ rows
        moments /= len(recommender.users)
        level = float(np.trace(moments)) / dim
        if not level > 0:
            raise UsageError("all user vectors of the recommender are 0", expected="vectors of a trained recommender")
        lower = np.linalg.cholesky(background * moments + penalty * level * np.eye(dim))
        return cls(recommender.items.mean(0, dtype=np.float64), np.ascontiguousarray(np.linalg.inv(lower).T))


@dataclass(frozen=True)
class KnownItems:
    """Some items of a recommender, and the users with whom it scores them highest.

    Attributes:
        items: vectors, float64 [n, d].
        users: vectors of the k best users of each item, best first, float64 [n, k, d].
        places: rows of these users, int64 [n, k].
        levels: score above which each of these users has 2 % of the recommender's items, float64 [n, k].
    """

    items: F64
    users: F64
    places: Places
    levels: F64

    @classmethod
    def drawn(cls, recommender: Vectors, k: int, seed: int) -> KnownItems:
        """Draw items with a seed, and look at all users; ``k`` is at most the number of users."""
        generator = np.random.default_rng(seed)
        count = min(_SAMPLE, len(recommender.items))
        items = recommender.items[np.sort(generator.choice(len(recommender.items), count, replace=False))]
        places = _best(recommender.users, items, min(k, len(recommender.users)))
        users = recommender.users[places].astype(np.float64)
        others = generator.choice(len(recommender.items), min(_LEVEL_ITEMS, len(recommender.items)), replace=False)
        levels = np.quantile(users @ recommender.items[others].T.astype(np.float64), 1 - _TOP_SHARE, axis=2)
        return cls(items.astype(np.float64), users, places, levels)

    def wanted_lift(self, mean: F64) -> float:
        """Return by how much an item must be above the mean item to stand at the level of these users' best items."""
        return float(np.mean(self.levels - (self.users @ mean[:, None])[:, :, 0]))

    def lift(self, items: npt.NDArray[np.floating[Any]], base: F64) -> float:
        """Return by how much these users score some vectors in the place of the items, [n, d], above ``base``, [d]."""
        return float(np.mean(self.users @ (items - base)[:, :, None]))


def _best(users: F32, items: F32, k: int) -> Places:
    """Return the rows of the k users with the highest inner products for each item, int64 [n, k], best first."""
    scores = np.empty((len(items), 0), np.float32)
    places = np.empty((len(items), 0), np.int64)
    for first, rows in _chunks(users):
        found = items @ rows.T
        near = np.argpartition(-found, min(k, found.shape[1]) - 1, axis=1)[:, :k]
        scores = np.concatenate([scores, np.take_along_axis(found, near, 1)], axis=1)
        places = np.concatenate([places, near + first], axis=1)
        order = np.lexsort((places, -scores), axis=1)[:, :k]
        scores, places = np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)
    return places


def _chunks(rows: F32) -> Iterator[tuple[int, F32]]:
    for first in range(0, len(rows), _CHUNK_ROWS):
        yield first, rows[first : first + _CHUNK_ROWS]
