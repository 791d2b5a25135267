"""Which users of an item are judged: the filter's, others that liked it, and users drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.judgment.towers import Towers
from fllm_export.evaluation.dataset import Dataset, Positions

FILTER, LIKED, DRAWN = "filter", "liked", "drawn"

_SEED = 7


@dataclass(frozen=True)
class Judged:
    """The users of one item.

    Attributes:
        item: its position in :attr:`Dataset.item_ids`.
        users: positions in :attr:`Dataset.user_ids`, first the filter's, best first, int64 [n].
        sources: what brought each user here: ``filter``, ``liked`` or ``drawn``.
        right: whether the user liked the item, bool [n].
    """

    item: int
    users: Positions
    sources: list[str]
    right: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, towers: Towers, split: str, item: int, candidates: int, others: int) -> Judged:
        """Choose the users of an item of a cold split.

        Args:
            towers: the filter.
            split: where the item's users are.
            item: the item.
            candidates: users of the filter.
            others: so many that liked the item and are not among the filter's users, at most, and so many that are
                drawn from all users that did not like it; which ones depends on the item alone.
        """
        dataset = towers.dataset
        liked = dataset.splits[split].users_of(np.array([item]))[0]
        filtered = towers.candidates(item, candidates)
        generator = np.random.default_rng([_SEED, item])
        missed = np.setdiff1d(liked, filtered)
        missed = generator.permutation(missed)[:others]
        rest = np.setdiff1d(np.arange(len(dataset.user_ids)), np.concatenate([liked, filtered]))
        drawn = generator.choice(rest, min(others, len(rest)), replace=False)
        users = np.concatenate([filtered, missed, drawn])
        sources = [FILTER] * len(filtered) + [LIKED] * len(missed) + [DRAWN] * len(drawn)
        return cls(item, users, sources, np.isin(users, liked))


def drawn_items(dataset: Dataset, split: str, count: int) -> list[int]:
    """Return items of a split in an order drawn with a fixed seed, so that more items go on where fewer ended."""
    order = np.random.default_rng(_SEED).permutation(dataset.splits[split].distinct_items)
    found: list[int] = order[:count].tolist()
    return found
