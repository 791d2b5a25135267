"""The most active users for every item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fllm_export.evaluation.baselines.baseline import ColdItems, Params, Scores
from fllm_export.evaluation.baselines.held import HeldItems
from fllm_export.evaluation.baselines.known import Known


@dataclass(frozen=True)
class Activity:
    """Each user's score is their number of training items.

    Attributes:
        counts: float32 [U].
    """

    counts: npt.NDArray[np.float32]

    def scores(self, items: ColdItems) -> Scores:
        """Return the same scores for every item, float32 [B, U]."""
        return np.broadcast_to(self.counts, (len(items), len(self.counts)))


@dataclass(frozen=True)
class MostActive:
    """Ranks users by their number of training items. It reads nothing of the item."""

    name: str = "most active users"
    reads_text: bool = False

    def choose(self, known: Known, held: HeldItems | None) -> Params:
        """Return nothing: there is nothing to choose."""
        return {}

    def fit(self, known: Known, params: Params) -> Activity:
        """Count the training items of each user."""
        return Activity(known.activity.astype(np.float32))
