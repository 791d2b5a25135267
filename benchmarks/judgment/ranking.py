"""How good an order of users is: precision of its first users, AUC, and intervals by the bootstrap over items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_DRAWS = 10_000
_SEED = 0


def precision(right: Sequence[bool], k: int) -> float:
    """Return how many of the first ``k`` are right, divided by ``k``."""
    return sum(right[:k]) / k


def auc(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Return how often a right one has the larger value than a wrong one; equal values count half."""
    more = np.subtract.outer(np.asarray(right, float), np.asarray(wrong, float))
    return float(((more > 0) + (more == 0) / 2).mean())


def interval(values: npt.ArrayLike) -> tuple[float, float, float]:
    """Return mean and 95 % percentile interval of the bootstrap over items, of one value per item."""
    found = np.asarray(values, np.float64)
    rows = np.random.default_rng(_SEED).integers(0, len(found), (_DRAWS, len(found)))
    low, high = np.percentile(found[rows].mean(1), [2.5, 97.5])
    return float(found.mean()), float(low), float(high)
