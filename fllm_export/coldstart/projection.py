"""Vectors of cold items in closed form: one system of equations for all items, users frozen."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from fllm_export.coldstart.vectors import Rows, Vectors
from fllm_export.evaluation.baselines.known import require_scipy


@dataclass(frozen=True)
class ProjectionParams:
    """Choices that are made on validation pairs.

    Attributes:
        k: users per item.
        sharpness: users of an item weigh in proportion to p^sharpness; 0 weighs all alike.
        penalty: of the squared length of an item's vector, relative to the mean square of a user's number.
        shortening: every vector is divided by its length to this power.
        level: mean length of cold vectors over that of the recommender's warm vectors.
    """

    k: int = 100
    sharpness: float = 0.5
    penalty: float = 1.0
    shortening: float = 1.0
    level: float = 1.0

    def to_json(self) -> dict[str, float]:
        """Return the choices by name."""
        return asdict(self)


@dataclass(frozen=True)
class Projection:
    """Weighted least squares on frozen users.

    With p_u the users' vectors, M the mean of p_u p_u' over all users, s the mean of M's diagonal and w_u an item's
    weights of sum 1, the vector is

        v = argmin v' (M + penalty s I) v - 2 sum_u w_u p_u . v = (M + penalty s I)^-1 sum_u w_u p_u

    That is ridge regression of the weights on the users, in which a user that is not among the K has the weight 0. One
    matrix serves all items, so that an item costs K d + d^2 operations.

    Attributes:
        users: p, float32 [U, d].
        moments: M, float64 [d, d].
    """

    users: Rows
    moments: npt.NDArray[np.float64]

    @classmethod
    def of(cls, users: Rows) -> Projection:
        """Measure the users of a recommender, float32 [U, d]."""
        return cls(users, (users.T @ users).astype(np.float64) / len(users))

    def vectors(self, places: npt.NDArray[np.int64], probabilities: Rows, params: ProjectionParams) -> Rows:
        """Return item vectors, float32 [B, d], whose mean length is 1.

        Args:
            places: rows of the users of each item, the most probable first, int64 [B, K].
            probabilities: of these users, float32 [B, K].
            params: at most K users; their ``level`` is not used here.

        Raises:
            HardwareError: SciPy is not installed.
        """
        k = min(params.k, places.shape[1])
        weights = np.maximum(probabilities[:, :k].astype(np.float64), 1e-30) ** params.sharpness
        weights /= weights.sum(1, keepdims=True)
        ends = np.arange(len(places) + 1) * k
        shape = (len(places), len(self.users))
        chosen = (weights.astype(np.float32).ravel(), places[:, :k].ravel(), ends)
        sums = require_scipy("scipy.sparse").csr_matrix(chosen, shape=shape) @ self.users
        level = np.trace(self.moments) / len(self.moments)
        system = self.moments + params.penalty * level * np.eye(len(self.moments))
        found = np.linalg.solve(system, sums.T.astype(np.float64)).T
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-30) ** params.shortening
        scaled: Rows = (found / max(float(np.linalg.norm(found, axis=1).mean()), 1e-30)).astype(np.float32)
        return scaled


def warm_length(recommender: Vectors, warm: npt.NDArray[np.int64]) -> float:
    """Return the mean length of the vectors of some items, by their ids."""
    return float(np.linalg.norm(recommender.items[recommender.item_places(warm)], axis=1).mean())
