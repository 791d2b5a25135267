"""Users in random order: what a ranking without any knowledge reaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fllm_export.evaluation.baselines.baseline import ColdItems, Params, Scores
from fllm_export.evaluation.baselines.held import HeldItems
from fllm_export.evaluation.baselines.known import Known


@dataclass(frozen=True)
class Chance:
    """A random score for each pair of item and user, a function of the seed and the item alone.

    Attributes:
        seed: of the random numbers.
        user_count: number of users, U.
    """

    seed: int
    user_count: int

    def scores(self, items: ColdItems) -> Scores:
        """Return uniform numbers from 0 to 1, float32 [B, U]; how items are grouped changes nothing in them."""
        generators = [np.random.default_rng((self.seed, int(item))) for item in items.numbers]
        return np.stack([generator.random(self.user_count, dtype=np.float32) for generator in generators])


@dataclass(frozen=True)
class RandomUsers:
    """Ranks users at random.

    Attributes:
        seed: of the random numbers.
    """

    name: str = "random users"
    reads_text: bool = False
    seed: int = 0

    def choose(self, known: Known, held: HeldItems | None) -> Params:
        """Return nothing: there is nothing to choose."""
        return {}

    def fit(self, known: Known, params: Params) -> Chance:
        """Learn nothing but how many users there are."""
        return Chance(self.seed, known.user_count)
