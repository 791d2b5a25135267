"""The three losses of FilterLLM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bpr_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the mean of -ln sigmoid(y_ui - y_vi): user u liked item i, user v did not, the item is fixed.

    Item-oriented Bayesian personalised ranking, FilterLLM (arXiv 2502.16924), figure 2.

    Args:
        positive: scores y_ui, float32 [P].
        negative: scores y_vi, float32 [P].
    """
    return F.softplus(negative - positive).mean()


def distribution_loss(scores: Tensor, rows: Tensor, users: Tensor) -> Tensor:
    """Return the mean over items of -(1/|U_i|) sum over u in U_i of log softmax(s)_u, all users in the denominator.

    The cross-entropy of FilterLLM's public code (``OneStepRec``): a uniform target over the item's users, no
    sampling, no temperature.

    Args:
        scores: s_u of every user, float32 [B, N].
        rows: for each positive pair the row of its item in ``scores``, int64 [P]; every row occurs.
        users: for each positive pair its user, int64 [P].
    """
    counts = torch.bincount(rows, minlength=len(scores))
    liked = (scores[rows, users] / counts[rows]).sum()
    return (torch.logsumexp(scores, 1).sum() - liked) / len(scores)


def guidance_loss(z: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over batch and dimensions of (z - g_i)^2.

    Args:
        z: item vectors, float32 [B, d].
        targets: the guider's item vectors g_i, float32 [B, d]; no gradient reaches them, otherwise they would
            drift towards z.
    """
    return F.mse_loss(z, targets.detach())
