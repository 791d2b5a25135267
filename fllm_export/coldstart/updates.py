"""A new item's vector from its users, with everything else in the recommender frozen. NumPy alone.

Every method is computed item by item in float64, with shapes that depend on the item alone: an item's vector is the
same, bit for bit, in every batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fllm_export.coldstart.item_prior import ItemPrior, KnownItems
from fllm_export.coldstart.onboard_options import OnboardOptions
from fllm_export.coldstart.vectors import Vectors

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


class Update(Protocol):
    """Turns the users of items into item vectors."""

    def vectors(self, places: Places, weights: F64) -> F32:
        """Return item vectors, float32 [b, d], for rows of users int64 [b, n] and their weights float64 [b, n]."""
        ...


@dataclass(frozen=True)
class RidgeUpdate:
    """Weighted least squares with a prior (:class:`ItemPrior`), in closed form.

    x = argmin x' A x + sum_u w_u (lift - p_u . x)^2: every user of the item shall score it ``lift`` above the mean
    item. As in implicit least squares (Hu, Koren and Volinsky, 2008), all other users are in A.

    Attributes:
        users: of the recommender, float32 [U, d].
        prior: of items.
        lift: what a user's score shall be above that of the mean item.
    """

    users: F32
    prior: ItemPrior
    lift: float

    @classmethod
    def of(cls, users: F32, prior: ItemPrior, known: KnownItems) -> RidgeUpdate:
        """Choose the lift with which items come to stand among the best 2 % of their users' items.

        Measured on known items that are made again of the users who score them highest: the prior holds their scores
        below the lift, so it is larger than what they get.
        """
        again = cls(users, prior, 1.0).vectors(known.places, np.ones(known.places.shape))
        return cls(users, prior, _ratio(known.wanted_lift(prior.mean), known.lift(again, prior.mean)))

    def vectors(self, places: Places, weights: F64) -> F32:
        """Return item vectors, as :class:`Update` says."""
        rows = self.users[places].astype(np.float64) @ self.prior.root
        return _placed(self.prior, least_squares(rows, weights, np.full(weights.shape, self.lift)))


def least_squares(rows: F64, weights: F64, values: F64) -> F64:
    """Return argmin |g|^2 + sum_u w_u (v_u - s_u . g)^2 for each item, float64 [b, d].

    Of the two forms of the normal equations, the smaller is solved: n equations or d.

    Args:
        rows: s, float64 [b, n, d].
        weights: w, of 0 or more, float64 [b, n].
        values: v, float64 [b, n].
    """
    half = np.sqrt(weights)[:, :, None]
    scaled, targets = rows * half, values[:, :, None] * half
    turned = scaled.swapaxes(1, 2)
    if rows.shape[1] <= rows.shape[2]:
        solution = turned @ np.linalg.solve(scaled @ turned + np.eye(rows.shape[1]), targets)
    else:
        solution = np.linalg.solve(turned @ scaled + np.eye(rows.shape[2]), turned @ targets)
    found: F64 = solution[:, :, 0]
    return found


@dataclass(frozen=True)
class BprUpdate:
    """A few steps of Bayesian personalised ranking (Rendle et al., 2009) on the item's vector alone.

    Minimises |g|^2 / 2 + sum_u w_u mean_j -ln sigmoid(p_u . e - p_u . q_j), e = mean + R g, over items j drawn once. A
    step is Newton's with the bound 1/4 in place of the sigmoid's slope (Boehning, 1992), so no step goes too far.

    Attributes:
        users: of the recommender, float32 [U, d].
        prior: of items.
        negatives: vectors q_j of the drawn items, float64 [J, d].
        steps: their number.
    """

    users: F32
    prior: ItemPrior
    negatives: F64
    steps: int

    def vectors(self, places: Places, weights: F64) -> F32:
        """Return item vectors, as :class:`Update` says."""
        users = self.users[places].astype(np.float64)
        rows = users @ self.prior.root
        # What the mean item scores above each of the drawn items, [b, n, J].
        margins = users @ (self.prior.mean - self.negatives).T
        scaled = rows * np.sqrt(weights / 4)[:, :, None]
        turned = scaled.swapaxes(1, 2)
        inverse = np.linalg.inv(turned @ scaled + np.eye(rows.shape[2]))
        g = np.zeros((len(places), rows.shape[2], 1))
        for _ in range(self.steps):
            misses = 1 / (1 + np.exp(np.clip(margins + rows @ g, -500, 500)))
            pull = (weights * misses.mean(2))[:, :, None]
            g = g + inverse @ (rows.swapaxes(1, 2) @ pull - g)
        return _placed(self.prior, g[:, :, 0])


@dataclass(frozen=True)
class PropagateUpdate:
    """LightGCN's propagation (He et al., 2020): scale sum_u w_u p_u / sqrt(d_u) / sqrt(sum_u w_u).

    d_u is the number of interactions of a user. With the scale, known items that are made again of the users who score
    them highest keep those scores on average.

    Attributes:
        users: of the recommender, float32 [U, d].
        norms: 1 / sqrt(d_u), float64 [U]; None where all are 1.
        scale: the factor.
    """

    users: F32
    norms: F64 | None
    scale: float

    @classmethod
    def of(cls, users: F32, norms: F64 | None, known: KnownItems) -> PropagateUpdate:
        """Choose the scale."""
        again = cls(users, norms, 1.0).vectors(known.places, np.ones(known.places.shape))
        origin = np.zeros(users.shape[1])
        return cls(users, norms, _ratio(known.lift(known.items, origin), known.lift(again, origin)))

    def vectors(self, places: Places, weights: F64) -> F32:
        """Return item vectors, as :class:`Update` says."""
        factors = weights if self.norms is None else weights * self.norms[places]
        sums = (factors[:, None, :] @ self.users[places].astype(np.float64))[:, 0, :]
        found: F32 = (self.scale * sums / np.sqrt(weights.sum(1, keepdims=True))).astype(np.float32)
        return found


def open_update(recommender: Vectors, options: OnboardOptions, degrees: F64 | None = None) -> Update:
    """Prepare a method for a recommender: one pass over its users.

    Args:
        recommender: its vectors.
        options: the method and its numbers.
        degrees: interactions of each user, at least 1, float64 [U]; used by ``propagate`` only. None is 1 for all.

    Raises:
        UsageError: all users have the vector 0.
    """
    users = recommender.users
    if options.method == "propagate":
        known = KnownItems.drawn(recommender, options.k, options.seed)
        return PropagateUpdate.of(users, None if degrees is None else degrees**-0.5, known)
    prior = ItemPrior.of(recommender, options.background, options.penalty)
    if options.method == "ridge":
        return RidgeUpdate.of(users, prior, KnownItems.drawn(recommender, options.k, options.seed))
    count = min(options.negatives, len(recommender.items))
    drawn = np.random.default_rng(options.seed).choice(len(recommender.items), count, replace=False)
    return BprUpdate(users, prior, recommender.items[np.sort(drawn)].astype(np.float64), options.steps)


def _ratio(wanted: float, found: float) -> float:
    """Return the factor between two scores; 1 where users do not tell items apart."""
    return wanted / found if wanted > 0 and found > 0 else 1.0


def _placed(prior: ItemPrior, g: F64) -> F32:
    """Return mean + R g, each item by itself."""
    found: F32 = (prior.mean + (g[:, None, :] @ prior.root.T)[:, 0, :]).astype(np.float32)
    return found
