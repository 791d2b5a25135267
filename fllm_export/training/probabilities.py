"""Scores of the closed form as probabilities: a scale for all users, a bias for each, and a link.

The closed form's scores order users; as logits they would spread the probability nearly evenly. The scores that are
served are

    s_u = tau pop_u^-c (sum of the C_i of user u).z + beta log pop_u

with the pop_u items of user u. Large c with large beta orders users much as small c with small beta does, but their
probabilities differ. For every c and beta, tau maximises the multi-positive likelihood, the mean over pairs of
log p(u | i), on training items that are scored without their own interactions (:mod:`fllm_export.training.left_out`)
and so are as good as cold. Of those that rank cold_val nearly as well as the best, the most likely is taken.

So far p(u | i) is proportional to exp(s_u). With a power as the link (:mod:`fllm_export.link`), one more factor
multiplies all scores, and so tau and beta; the ranking stays. The factor of the highest likelihood is found for each
power, and for each c and beta that rank well. A power is taken where it gains enough, as engines on GPUs serve
exponentials alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fllm_export.link import EXPONENTIAL, LARGEST_SCORE, LINKS, Link
from fllm_export.training.user_sums import FloatArray, Positions

USER_POWERS = tuple(round(0.1 * step, 1) for step in range(8))
BETAS = tuple(round(0.1 * step, 1) for step in range(11))
NDCG_KEPT = 0.995
"""The share of the best NDCG on cold_val that c and beta must hold."""

LINK_GAIN = 0.01
"""Nats per pair by which a power must be more likely than the exponential."""

_NARROWEST = 0.02
"""How exactly the logarithm of tau is found."""


@dataclass(frozen=True)
class Probabilities:
    """How scores become probabilities.

    Attributes:
        scale: tau.
        user_power: c.
        activity: beta.
        loss: negative log-likelihood per pair in nats, of the training items that the two were fitted on.
        ndcg: user NDCG@20 on cold_val, with them.
        link: from scores to probabilities.
    """

    scale: float
    user_power: float
    activity: float
    loss: float
    ndcg: float
    link: Link = EXPONENTIAL

    def bias(self, sizes: Positions) -> FloatArray:
        """Return the bias of every user, float32 [U], of their numbers of training items; 0 where that is 0."""
        return (self.activity * np.log(np.maximum(sizes, 1))).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers by name, and the link in words."""
        return {**asdict(self), "link": str(self.link)}


def fit(
    sums: FloatArray,
    users: Sequence[Positions],
    sizes: Positions,
    ndcg: Callable[[float, float, float], float],
    links: Sequence[Link] = LINKS,
) -> Probabilities:
    """Fit tau for every c and beta, and choose among them and among links.

    Args:
        sums: scores without pop_u^-c of some training items, each left out of the closed form, float32 [n, U].
        users: for each of them the users that liked it.
        sizes: training items of each user, int64 [U].
        ndcg: user NDCG@20 on cold_val of given tau, c and beta.
        links: to choose from, the exponential among them.
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
    held = [each for each in tried if each.ndcg >= NDCG_KEPT * best]
    found = []
    for each in held:
        scores = torch.from_numpy(sums) * (each.scale * (-each.user_power * logs).exp()) + each.activity * logs
        link, factor, loss = best_link(scores, pairs, links)
        scaled = replace(each, scale=each.scale * factor, activity=each.activity * factor, loss=loss, link=link)
        found.append(each if link == EXPONENTIAL else scaled)
    return _likeliest(found)


def best_link(scores: Tensor, pairs: tuple[Tensor, Tensor], links: Sequence[Link] = LINKS) -> tuple[Link, float, float]:
    """Return the link with the least loss, the factor that scores need for it, and the loss.

    Args:
        scores: float32 [n, U].
        pairs: rows of the scores and users, int64 [P] each.
        links: to choose from, the exponential among them.
    """
    none = torch.zeros(scores.shape[1])
    found = {link: best_scale(scores, none, pairs, link) for link in links}
    best = min(links, key=lambda link: found[link][1])
    if found[best][1] > found[EXPONENTIAL][1] - LINK_GAIN:
        best = EXPONENTIAL
    return best, *found[best]


def _likeliest(found: Sequence[Probabilities]) -> Probabilities:
    """Return the most likely; a power only where it gains enough."""
    plain = [each for each in found if each.link == EXPONENTIAL]
    best = min(found, key=lambda each: each.loss)
    least = min(plain, key=lambda each: each.loss, default=best)
    return best if best.loss <= least.loss - LINK_GAIN else least


def best_scale(
    scores: Tensor, bias: Tensor, pairs: tuple[Tensor, Tensor], link: Link = EXPONENTIAL
) -> tuple[float, float]:
    """Return the scale with the least loss, and that loss.

    By Brent's method on the scale's logarithm; the loss of the exponential is convex in the scale.

    Args:
        scores: float32 [n, U].
        bias: what is added to the scaled scores, float32 [U] or [n, U].
        pairs: rows of the scores and users, int64 [P] each.
        link: from scores to probabilities.

    Scores that are all equal give the same probabilities at every scale, and have the scale 1.
    """
    from scipy.optimize import minimize_scalar

    if scores.max() == scores.min():
        return 1.0, _loss(scores, 1.0, bias, pairs, link)
    unit = -np.log(float(scores.std()))
    found = minimize_scalar(
        lambda log_scale: _loss(scores, float(np.exp(log_scale)), bias, pairs, link),
        bounds=(unit - 4, unit + 5),
        method="bounded",
        options={"xatol": _NARROWEST},
    )
    return float(np.exp(found.x)), float(found.fun)


def _loss(scores: Tensor, scale: float, bias: Tensor, pairs: tuple[Tensor, Tensor], link: Link) -> float:
    """Return the mean over pairs of -log p at the scores scale * scores + bias."""
    scaled = scores * scale + bias
    if link == EXPONENTIAL:
        return float((scaled.logsumexp(1)[pairs[0]] - scaled[pairs]).double().mean())
    weights = 1 + scaled.clamp_(0, LARGEST_SCORE) ** link.exponent
    return float((weights.sum(1).log()[pairs[0]] - weights[pairs].log()).double().mean())
