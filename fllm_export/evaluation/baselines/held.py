"""Cold items that are held out to choose hyper-parameters: the split ``cold_val``, or a fixed part of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fllm_export.evaluation.baselines.known import Vectors, unit
from fllm_export.evaluation.dataset import Dataset, Positions

MOST_ITEMS = 4_096
MOST_USERS = 50_000
CHOICE_K = 20
_SEED = 0
_SCORES_AT_ONCE = 1 << 25


@dataclass(frozen=True)
class HeldItems:
    """Items of ``cold_val`` and who liked them.

    Recall is measured over all users where they are at most 50,000, else over 50,000 of them; likewise over at most
    4,096 items. Which ones is drawn with a fixed seed, so that all baselines are chosen on the same.

    Attributes:
        items: positions in :attr:`Dataset.item_ids`, int64 [V].
        vectors: unit text vectors of ``items``, float32 [V, h], or None where there are none.
        users: the users that are ranked, ascending, int64 [S].
        keys: ``item * S + user`` of each pair, both as places in ``items`` and ``users``, ascending, int64 [Q].
        sizes: users of each item among ``users``, int64 [V], at least 1.
    """

    items: Positions
    vectors: Vectors | None
    users: Positions
    keys: Positions
    sizes: Positions

    @classmethod
    def sample(cls, dataset: Dataset) -> tuple[Positions, Positions]:
        """Return the items of ``cold_val`` and the users that :meth:`of` takes, both ascending."""
        generator = np.random.default_rng(_SEED)
        users = np.arange(len(dataset.user_ids))
        if len(users) > MOST_USERS:
            users = np.sort(generator.choice(users, MOST_USERS, replace=False))
        pairs = dataset.splits["cold_val"]
        items = np.unique(pairs.items[np.isin(pairs.users, users)])
        if len(items) > MOST_ITEMS:
            items = np.sort(generator.choice(items, MOST_ITEMS, replace=False))
        return items, users

    @classmethod
    def of(cls, dataset: Dataset, items: Positions, users: Positions, vectors: Vectors | None) -> HeldItems | None:
        """Return the items and users of :meth:`sample` with their pairs; None where there are no items.

        Args:
            dataset: the data set.
            items: items of ``cold_val``.
            users: the users to rank.
            vectors: text vectors of ``items``, float32 [V, h], of any length each; or None.
        """
        if not len(items):
            return None
        pairs = dataset.splits["cold_val"]
        inside = np.isin(pairs.items, items) & np.isin(pairs.users, users)
        rows = np.searchsorted(items, pairs.items[inside])
        keys = np.sort(rows * len(users) + np.searchsorted(users, pairs.users[inside]))
        sizes = np.bincount(rows, minlength=len(items))
        return cls(items, None if vectors is None else unit(vectors), users, keys, sizes)

    def blocks(self, columns: int) -> Iterator[slice]:
        """Yield windows of items for which one number per user, and one for each of ``columns``, can be held."""
        size = max(1, _SCORES_AT_ONCE // max(len(self.users), columns))
        for start in range(0, len(self.items), size):
            yield slice(start, min(start + size, len(self.items)))

    def recalls(self, window: slice, scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Return the recall@20 of each item of a window by the scores of ``users``, [n, S] -> float64 [n]."""
        k = min(CHOICE_K, len(self.users))
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k] if k < len(self.users) else np.argsort(-scores, axis=1)
        wanted = best + np.arange(window.start, window.stop)[:, None] * len(self.users)
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        found: npt.NDArray[np.float64] = (self.keys[at] == wanted).sum(1) / self.sizes[window]
        return found


class Tally:
    """The recall of each choice of hyper-parameters, summed over items."""

    def __init__(self) -> None:
        self._sums: defaultdict[tuple[float, ...], float] = defaultdict(float)

    def add(self, params: tuple[float, ...], recalls: npt.NDArray[np.float64]) -> None:
        """Count some items in."""
        self._sums[params] += float(recalls.sum())

    def best(self) -> tuple[float, ...]:
        """Return the choice with the highest recall; of equal ones the first that was counted."""
        return max(self._sums, key=lambda params: self._sums[params])
