"""The measurement by which content models are stopped: warm and cold validation pairs of some users."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fllm_export.coldstart.ranked_lists import Candidates, Rows, truth_of
from fllm_export.evaluation.dataset import Dataset, Pairs, Positions
from fllm_export.evaluation.metrics import Ranking

_USERS = 1_000
_SEED = 0
_K = 20


@dataclass(frozen=True)
class _Ranked:
    """Some users, and the items of one validation split that are right for them."""

    users: Positions
    candidates: Candidates
    truth: Sequence[Positions]

    @classmethod
    def of(cls, split: Pairs, items: Positions, masked: Pairs) -> _Ranked:
        """Draw at most 1,000 users of a split; all items are numbered within ``items``."""
        users = np.unique(split.users)
        if len(users) > _USERS:
            users = np.sort(np.random.default_rng(_SEED).choice(users, _USERS, replace=False))
        truth = [np.searchsorted(items, found) for found in truth_of(split, users)]
        own = np.isin(masked.users, users)
        hidden = Pairs(np.searchsorted(users, masked.users[own]), masked.items[own])
        return cls(users, Candidates.of(np.arange(len(items)), hidden), truth)

    def ndcg(self, users: Rows, items: Rows) -> float:
        if not len(self.users):
            return 0.0
        lists = self.candidates.best(users[self.users], items, min(_K, len(items)))
        return Ranking.of(lists.items, self.truth).ndcg


@dataclass(frozen=True)
class ContentValidation:
    """At most 1,000 users of ``warm_val`` and of ``cold_val`` each, drawn with a fixed seed.

    The users of ``warm_val`` rank the training items, those that they were trained on left out; the users of
    ``cold_val`` rank the items of both cold splits. No pair of a test split is read.
    """

    warm: _Ranked
    cold: _Ranked

    @classmethod
    def of(cls, dataset: Dataset, known: Positions, cold: Positions) -> ContentValidation:
        """Draw the users.

        Args:
            dataset: the data set.
            known: the training items, ascending, int64 [T].
            cold: the items of both cold splits, ascending, int64 [C].
        """
        train, warm = dataset.splits["train"], dataset.splits["warm_val"]
        hidden = Pairs(train.users, np.searchsorted(known, train.items))
        nothing = Pairs(np.empty(0, np.int64), np.empty(0, np.int64))
        return cls(
            _Ranked.of(warm, known, hidden),
            _Ranked.of(dataset.splits["cold_val"], cold, nothing),
        )

    def measure(self, users: Rows, warm: Rows, cold: Rows) -> float:
        """Return the mean of NDCG@20 on ``warm_val`` and NDCG@20 on ``cold_val``.

        Args:
            users: of all users, float32 [U, d].
            warm: of the training items, float32 [T, d].
            cold: of the cold items, float32 [C, d].
        """
        return (self.warm.ndcg(users, warm) + self.cold.ndcg(users, cold)) / 2

    def digest(self) -> bytes:
        """Return what changes with the users and with what is right for them."""
        found = hashlib.sha256()
        for part in (self.warm, self.cold):
            for rows in (part.users, *part.truth):
                found.update(np.ascontiguousarray(rows).tobytes() + b";")
        return found.digest()
