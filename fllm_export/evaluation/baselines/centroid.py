"""The centroid of what a user liked, compared with the item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fllm_export.evaluation.baselines.baseline import ColdItems, Params, Scores
from fllm_export.evaluation.baselines.held import HeldItems
from fllm_export.evaluation.baselines.known import Known, Vectors, unit


@dataclass(frozen=True)
class Centroids:
    """One direction per user.

    Attributes:
        users: unit vectors, float32 [U, h].
    """

    users: Vectors

    def scores(self, items: ColdItems) -> Scores:
        """Return the cosines of each item and all users, float32 [B, U]."""
        assert items.vectors is not None
        found: Scores = items.vectors @ self.users.T
        return found


@dataclass(frozen=True)
class UserCentroid:
    """Ranks users by the cosine of the item's vector and the sum of the unit vectors of their training items."""

    name: str = "user centroid"
    reads_text: bool = True

    def choose(self, known: Known, held: HeldItems | None) -> Params:
        """Return nothing: there is nothing to choose."""
        return {}

    def fit(self, known: Known, params: Params) -> Centroids:
        """Sum the unit vectors of each user's training items."""
        return Centroids(unit(np.asarray(known.likes.T @ known.texts)))
