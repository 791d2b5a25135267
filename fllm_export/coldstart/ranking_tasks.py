"""What a recommender is asked: rankings of all items, of the cold ones and of the warm ones, and what is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fllm_export.coldstart.names import Protocol
from fllm_export.coldstart.pseudo_sources import cold_items
from fllm_export.coldstart.ranked_lists import Candidates, RankedLists, truth_of
from fllm_export.evaluation.dataset import SPLITS, WARM_SPLITS, Dataset, Pairs, Positions
from fllm_export.evaluation.metrics import Ranking

TASKS = ("overall", "cold", "warm")


@dataclass(frozen=True)
class Truth:
    """Users of a task and the items that are right for them.

    Attributes:
        users: ascending, int64 [L].
        items: for each user, positions of items.
    """

    users: Positions
    items: Sequence[Positions]

    def measure(self, lists: RankedLists) -> Ranking:
        """Score the lists of all users."""
        return Ranking.of(lists.items[self.users], self.items)


@dataclass(frozen=True)
class RankingTasks:
    """Three rankings of items per user, and their truth.

    - ``cold``: all cold items; users with a pair in the cold split.
    - ``warm``: all warm items; users with a pair in the warm split.
    - ``overall``: all items; users with a pair in both splits, whose truth is the union.

    Attributes:
        warm: candidates of the task ``warm``.
        cold: candidates of the task ``cold``.
        truth: by task.
    """

    warm: Candidates
    cold: Candidates
    truth: dict[str, Truth]

    @classmethod
    def of(cls, dataset: Dataset, protocol: Protocol) -> RankingTasks:
        """Return the tasks of the test splits.

        Evaluator ``a`` masks the pairs of ``train``; ``b`` masks all known pairs that are not tested.
        """
        tested = ("warm_test", "cold_test")
        masked = ("train",) if protocol == "a" else tuple(split for split in SPLITS if split not in tested)
        return cls._of(dataset, *tested, masked)

    @classmethod
    def validation(cls, dataset: Dataset) -> RankingTasks:
        """Return the tasks of the validation splits; ``train`` is masked, and no test pair is read."""
        return cls._of(dataset, "warm_val", "cold_val", ("train",))

    @classmethod
    def _of(cls, dataset: Dataset, warm: str, cold: str, masked: Sequence[str]) -> RankingTasks:
        hidden = dataset.pairs(*masked)
        truth = {"cold": _truth(dataset.splits[cold]), "warm": _truth(dataset.splits[warm])}
        users = np.intersect1d(truth["cold"].users, truth["warm"].users)
        truth["overall"] = Truth(users, truth_of(dataset.pairs(warm, cold), users))
        return cls(Candidates.of(warm_items(dataset), hidden), Candidates.of(cold_items(dataset), hidden), truth)

    def measure(self, warm: RankedLists, cold: RankedLists, factor: float) -> dict[str, Ranking]:
        """Score the lists of all users.

        Args:
            warm: best warm items.
            cold: best cold items.
            factor: by which scores of cold items are multiplied before both are merged.
        """
        lists = {"overall": warm.merged(cold, factor), "cold": cold, "warm": warm}
        return {task: self.truth[task].measure(lists[task]) for task in TASKS}


def warm_items(dataset: Dataset) -> Positions:
    """Return the items of the warm splits, ascending, int64 [W]."""
    return dataset.pairs(*WARM_SPLITS).distinct_items


def _truth(pairs: Pairs) -> Truth:
    users = np.unique(pairs.users)
    return Truth(users, truth_of(pairs, users))
