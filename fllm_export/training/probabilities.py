"""Scores of the closed form as logits: a scale for all users, and a bias for each.

The closed form's scores order users; as logits they would spread the probability nearly evenly. The logits are

    s_u = tau pop_u^-c (sum of the C_i of user u).z + beta log pop_u

with the pop_u items of user u. Large c with large beta orders users much as small c with small beta does, but their
probabilities differ. For every c and beta, tau maximises the multi-positive likelihood, the mean over pairs of
log p(u | i), on training items that are scored without their own interactions (:mod:`fllm_export.training.left_out`)
and so are as good as cold. Of those that rank cold_val nearly as well as the best, the most likely is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from fllm_export.training.user_sums import FloatArray, Positions

USER_POWERS = tuple(round(0.1 * step, 1) for step in range(8))
BETAS = tuple(round(0.1 * step, 1) for step in range(11))
NDCG_KEPT = 0.995
"""The share of the best NDCG on cold_val that c and beta must hold."""

_NARROWEST = 0.02
"""How exactly the logarithm of tau is found."""


@dataclass(frozen=True)
class Probabilities:
    """How scores become logits.

    Attributes:
        scale: tau.
        user_power: c.
        activity: beta.
        loss: negative log-likelihood per pair in nats, of the training items that the two were fitted on.
        ndcg: user NDCG@20 on cold_val, with them.
    """

    scale: float
    user_power: float
    activity: float
    loss: float
    ndcg: float

    def bias(self, sizes: Positions) -> FloatArray:
        """Return the bias of every user, float32 [U], of their numbers of training items; 0 where that is 0."""
        return (self.activity * np.log(np.maximum(sizes, 1))).astype(np.float32)

    def to_json(self) -> dict[str, float]:
        """Return the numbers by name."""
        return asdict(self)


def fit(
    sums: FloatArray,
    users: Sequence[Positions],
    sizes: Positions,
    ndcg: Callable[[float, float, float], float],
) -> Probabilities:
    """Fit tau for every c and beta, and choose among them.

    Args:
        sums: scores without pop_u^-c of some training items, each left out of the closed form, float32 [n, U].
        users: for each of them the users that liked it.
        sizes: training items of each user, int64 [U].
        ndcg: user NDCG@20 on cold_val of given tau, c and beta.
    """
    rows = torch.from_numpy(np.repeat(np.arange(len(users)), [len(liked) for liked in users]))
    pairs = rows, torch.from_numpy(np.concatenate(users))
    counts = torch.from_numpy(sizes.astype(np.float32)).expand(len(users), -1).clone()
    counts[pairs] -= 1  # the item itself is left out
    logs = counts.clamp(min=1).log()
    tried = []
    for power in USER_POWERS:
        scores = torch.from_numpy(sums) * (-power * logs).exp()
        for beta in BETAS:
            scale, loss = best_scale(scores, beta * logs, pairs)
            tried.append(Probabilities(scale, power, beta, loss, ndcg(scale, power, beta)))
    best = max(each.ndcg for each in tried)
    return min((each for each in tried if each.ndcg >= NDCG_KEPT * best), key=lambda each: each.loss)


def best_scale(scores: Tensor, bias: Tensor, pairs: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Return the scale with the least loss, and that loss.

    By Brent's method on the scale's logarithm; the loss is convex in the scale.

    Args:
        scores: float32 [n, U].
        bias: what is added to the scaled scores, float32 [U] or [n, U].
        pairs: rows of the scores and users, int64 [P] each.

    Scores that are all equal give the same probabilities at every scale, and have the scale 1.
    """
    from scipy.optimize import minimize_scalar

    if scores.max() == scores.min():
        return 1.0, _loss(scores, 1.0, bias, pairs)
    unit = -np.log(float(scores.std()))
    found = minimize_scalar(
        lambda log_scale: _loss(scores, float(np.exp(log_scale)), bias, pairs),
        bounds=(unit - 4, unit + 5),
        method="bounded",
        options={"xatol": _NARROWEST},
    )
    return float(np.exp(found.x)), float(found.fun)


def _loss(scores: Tensor, scale: float, bias: Tensor, pairs: tuple[Tensor, Tensor]) -> float:
    """Return the mean over pairs of -log softmax(scale * scores + bias)."""
    logits = scores * scale + bias
    return float((logits.logsumexp(1)[pairs[0]] - logits[pairs]).double().mean())
