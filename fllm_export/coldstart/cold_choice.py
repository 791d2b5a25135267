"""Hyper-parameters of the closed form, chosen on ``cold_val`` and ``warm_val``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fllm_export.coldstart.projection import Projection, ProjectionParams
from fllm_export.coldstart.ranked_lists import Candidates, RankedLists, Rows, truth_of
from fllm_export.coldstart.ranking_tasks import RankingTasks
from fllm_export.evaluation.dataset import Dataset, Pairs, Positions
from fllm_export.evaluation.metrics import Ranking

GRID: dict[str, Sequence[float]] = {
    "k": (20, 50, 100, 200, 400, 800, 1_600),
    "sharpness": (0.0, 0.25, 0.5, 0.75, 1.0),
    "penalty": (0.1, 0.3, 1.0, 3.0),
    "shortening": (0.5, 0.75, 1.0),
}
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0)
MOST_K = int(max(GRID["k"]))

_USERS = 2_000
_ROUNDS = 2
_SEED = 0


@dataclass(frozen=True)
class ColdChoice:
    """Some users of ``cold_val``, by whose NDCG parameters are compared. No test pair is read.

    Attributes:
        users: places of at most 2,000 users, drawn with a fixed seed, ascending, int64 [S].
        truth: their items of ``cold_val``.
        candidates: the items of both cold splits; nothing is masked, as no cold pair is known in training.
        k: length of the lists.
    """

    users: Positions
    truth: Sequence[Positions]
    candidates: Candidates
    k: int

    @classmethod
    def of(cls, dataset: Dataset, items: Positions, k: int) -> ColdChoice:
        """Draw the users; ``items`` are those of both cold splits."""
        pairs = dataset.splits["cold_val"]
        users = np.unique(pairs.users)
        if len(users) > _USERS:
            users = np.sort(np.random.default_rng(_SEED).choice(users, _USERS, replace=False))
        nothing = Pairs(np.empty(0, np.int64), np.empty(0, np.int64))
        return cls(users, truth_of(pairs, users), Candidates.of(items, nothing), k)

    def ndcg(self, users: Rows, items: Rows) -> float:
        """Return the NDCG of vectors of all users, float32 [U, d], and of the cold items, ascending, float32 [C, d]."""
        rows = np.zeros((int(self.candidates.items.max()) + 1, items.shape[1]), np.float32)
        rows[np.sort(self.candidates.items)] = items
        return Ranking.of(self.candidates.best(users[self.users], rows, self.k).items, self.truth).ndcg

    def best(self, projection: Projection, places: Positions, probabilities: Rows) -> ProjectionParams:
        """Search :data:`GRID` one parameter at a time, twice, from the defaults on; its ``k`` are at most K.

        Args:
            projection: of the recommender.
            places: of the users of each cold item, int64 [C, K].
            probabilities: float32 [C, K].
        """
        tried: dict[ProjectionParams, float] = {}

        def value(params: ProjectionParams) -> float:
            if params not in tried:
                tried[params] = self.ndcg(projection.users, projection.vectors(places, probabilities, params))
            return tried[params]

        most = places.shape[1]
        grid = {**GRID, "k": sorted({min(int(k), most) for k in GRID["k"]})}
        best = replace(ProjectionParams(), k=min(ProjectionParams().k, most))
        for _ in range(_ROUNDS):
            for name, choices in grid.items():
                changed: list[dict[str, Any]] = [{name: choice} for choice in choices]
                best = max([best, *(replace(best, **change) for change in changed)], key=value)
        return best


def best_level(validation: RankingTasks, warm: RankedLists, cold: RankedLists, length: float) -> float:
    """Return the level of :data:`LEVELS` with the highest overall NDCG on the validation splits.

    Args:
        validation: its tasks.
        warm: best warm items of all users.
        cold: best cold items, by vectors whose mean length is 1.
        length: mean length of warm vectors.
    """
    truth = validation.truth["overall"]
    return max(LEVELS, key=lambda level: truth.measure(warm.merged(cold, level * length)).ndcg)
