"""The users of a new item: pseudo-users first, real ones as they come.

The schedule. Pseudo-users have the weight K together, as if each of them had interacted once. With n real interactions
their weight is K n0 / (n0 + n), and each real interaction weighs 1. Without real interactions the pseudo-users decide
alone; after many, the real users do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_NUMBERS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class ItemUsers:
    """The users of one item.

    Attributes:
        places: rows of the recommender's users, each once, int64 [n].
        weights: of 0 or more, float64 [n].
    """

    places: Places
    weights: F64


def blended(pseudo: Places, shares: F64, real: Places, half_at: float) -> ItemUsers:
    """Return the users of an item by the schedule of this module.

    Args:
        pseudo: rows of its pseudo-users, int64 [K].
        shares: of the weight that they have together, float64 [K] of sum 1.
        real: rows of users who interacted, each once, int64 [n].
        half_at: n0, the number of real interactions at which pseudo-users have half of their weight.
    """
    weights = shares * (len(pseudo) * half_at / (half_at + len(real)))
    if not len(real):
        return ItemUsers(pseudo, weights)
    both = np.isin(pseudo, real)
    others = np.sort(real[~np.isin(real, pseudo)])
    return ItemUsers(np.concatenate([pseudo, others]), np.concatenate([weights + both, np.ones(len(others))]))


@dataclass(frozen=True)
class Group:
    """Items that have equally many users.

    Attributes:
        items: their positions among all items, int64 [b].
        places: int64 [b, n].
        weights: float64 [b, n].
    """

    items: Places
    places: Places
    weights: F64


def grouped(users: Sequence[ItemUsers], dim: int) -> Iterator[Group]:
    """Yield groups of items with equally many users, none larger than memory allows.

    Nothing is padded: what is computed for an item has the same shape, and so the same rounding, in every batch.

    Args:
        users: of each item.
        dim: dimension of a user's vector.
    """
    counts = np.array([len(item.places) for item in users])
    for count in np.unique(counts):
        items = np.flatnonzero(counts == count)
        step = max(1, _NUMBERS_AT_ONCE // max(1, int(count) * dim))
        for start in range(0, len(items), step):
            chosen = items[start : start + step]
            yield Group(
                chosen,
                np.stack([users[item].places for item in chosen]),
                np.stack([users[item].weights for item in chosen]),
            )
