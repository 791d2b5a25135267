"""Whether new items reach the right users: before they have a vector, after, and as real users come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fllm_export.coldstart import Vectors
from fllm_export.evaluation.dataset import Dataset, Pairs
from fllm_export.evaluation.metrics import Ranking

Ids = npt.NDArray[np.int64]

K = 20


@dataclass(frozen=True)
class ColdItems:
    """The cold items of one split, whose users are parted at random: those who come first, and those who are asked for.

    Attributes:
        dataset: of which they are.
        places: the items, as positions in the data set, int64 [n].
        early: users of each item who come first, as positions, in the order in which they come.
        late: the other users of each item.
    """

    dataset: Dataset
    places: Ids
    early: list[Ids]
    late: list[Ids]

    @classmethod
    def of(cls, dataset: Dataset, split: str, seed: int = 0) -> ColdItems:
        """Part each item's users into halves; an item with one user keeps it for the second half."""
        pairs = dataset.splits[split]
        generator = np.random.default_rng(seed)
        users = [generator.permutation(own) for own in pairs.users_of(pairs.distinct_items)]
        halves = [len(own) // 2 for own in users]
        return cls(
            dataset,
            pairs.distinct_items,
            [own[:half] for own, half in zip(users, halves, strict=True)],
            [own[half:] for own, half in zip(users, halves, strict=True)],
        )

    @property
    def ids(self) -> Ids:
        """Ids of the items, int64 [n]."""
        return self.dataset.item_ids[self.places]

    def arrived(self, count: int) -> list[Ids]:
        """Return ids of the first ``count`` users of each item, or of as many as come first."""
        return [self.dataset.user_ids[users[:count]] for users in self.early]

    def ranking(self, recommender: Vectors, *, among: str, warm: str | None = None) -> Ranking:
        """Rank items for each user, and look for the items whose late user the user is.

        What a user is trained on, and items whose early user the user is, are left out of the lists.

        Args:
            recommender: with a vector for each of these items.
            among: ``new`` items alone, or ``all`` items of the recommender.
            warm: a split whose pairs are looked for too, so that known items count as well.
        """
        chosen = self.ids if among == "new" else recommender.item_ids
        scores = recommender.users @ recommender.items[recommender.item_places(chosen)].T
        for pairs in (self.dataset.splits["train"], _pairs(self.places, self.early)):
            items = self.dataset.item_ids[pairs.items]
            inside = np.isin(items, chosen)
            order = np.argsort(chosen)
            scores[pairs.users[inside], order[np.searchsorted(chosen, items[inside], sorter=order)]] = -np.inf
        ranked = chosen[np.argsort(-scores, axis=1, kind="stable")[:, :K]]
        late = _pairs(self.places, self.late)
        if warm is not None:
            known = self.dataset.splits[warm]
            late = Pairs(np.concatenate([late.users, known.users]), np.concatenate([late.items, known.items]))
        truth = [self.dataset.item_ids[own] for own in late.swapped().users_of(np.arange(len(self.dataset.user_ids)))]
        return Ranking.of(ranked, truth)


def _pairs(items: Ids, users: Sequence[Ids]) -> Pairs:
    return Pairs(np.concatenate(users), np.repeat(items, [len(own) for own in users]))
