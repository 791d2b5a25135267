"""The cold items of a split: which are ranked, what is right, and what is masked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fllm_export.errors import UsageError
from fllm_export.evaluation.dataset import COLD_SPLITS, SPLITS, Dataset, Pairs, Positions

EVALUATED = ("cold_test", "cold_val", "cold")
_SCORES_AT_ONCE = 1 << 25


@dataclass(frozen=True)
class ColdSplit:
    """What is asked about cold items, and the answers.

    Attributes:
        name: ``cold_test``, ``cold_val``, or ``cold`` for both together.
        user_count: number of users, U.
        candidates: all cold items, of both splits, positions in :attr:`Dataset.item_ids`, ascending, int64 [C].
        items: the items of the split, ascending, int64 [I].
        users_of_items: for each of ``items`` the users that liked it.
        users: the users with a pair in the split, ascending, int64 [L].
        items_of_users: for each of ``users`` the items of the split that they liked.
        masks: the pairs of candidates and users that an evaluator ranks last, by the evaluator's name.
    """

    name: str
    user_count: int
    candidates: Positions
    items: Positions
    users_of_items: list[Positions]
    users: Positions
    items_of_users: list[Positions]
    masks: dict[str, Pairs]

    @classmethod
    def of(cls, dataset: Dataset, name: str) -> ColdSplit:
        """Return the cold items of a data set.

        Evaluator ``A`` masks the pairs of the split ``train``; ``B`` masks the pairs of every split that are not
        evaluated themselves.

        Raises:
            UsageError: the split has no pairs.
        """
        evaluated = COLD_SPLITS if name == "cold" else (name,)
        pairs = dataset.pairs(*evaluated)
        if not len(pairs):
            raise UsageError(f"the data set has no pairs in {name}", expected="at least one")
        items, swapped = pairs.distinct_items, pairs.swapped()
        users = swapped.distinct_items
        candidates = dataset.pairs(*COLD_SPLITS).distinct_items
        others = [split for split in SPLITS if split not in evaluated]
        masked = {"A": dataset.splits["train"], "B": dataset.pairs(*others)}
        return cls(
            name=name,
            user_count=len(dataset.user_ids),
            candidates=candidates,
            items=items,
            users_of_items=pairs.users_of(items),
            users=users,
            items_of_users=swapped.users_of(users),
            masks={key: _among(found, candidates) for key, found in masked.items()},
        )

    def blocks(self) -> Iterator[slice]:
        """Yield windows of candidates whose scores of all users are few enough to hold."""
        size = max(1, _SCORES_AT_ONCE // self.user_count)
        for start in range(0, len(self.candidates), size):
            yield slice(start, min(start + size, len(self.candidates)))

    def evaluated(self, window: slice) -> tuple[Positions, slice]:
        """Return which of a window's candidates are in ``items``, as places in the window, and their places there."""
        chosen = np.flatnonzero(np.isin(self.candidates[window], self.items))
        first = int(np.searchsorted(self.items, self.candidates[window.start]))
        return chosen, slice(first, first + len(chosen))


def _among(pairs: Pairs, candidates: Positions) -> Pairs:
    inside = np.isin(pairs.items, candidates)
    return Pairs(pairs.users[inside], pairs.items[inside])
