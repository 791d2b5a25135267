"""The softmax over all users, estimated from some of them.

The candidates C of a step are the same for all its items. Some are certain: the users of the items, and hard
negatives. They are set A, and each counts once. The others are m users that are drawn uniformly without replacement
from those outside A. A user outside A is then in C with the probability m / (U - |A|), and counts its inverse:

    log w_u  = 0 in A,  log((U - |A|) / m) outside
    Z_i      = sum over u in C of w_u exp(s_iu)                      its expectation is the sum over all users
    loss     = mean over items i of log Z_i - sum over u of target_iu s_iu

This is the log-Q correction of sampled softmax (Bengio and Senecal, IEEE Transactions on Neural Networks 19, 2008)
with the inclusion probabilities that belong to this way of drawing. No user is drawn twice, and a certain user is never
drawn, so no accidental hit has to be removed: a drawn user that likes an item is part of that item's Z, as it is of the
full softmax. With m = U - |A| loss and gradients are those of the full softmax.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fllm_export.errors import UsageError
from fllm_export.training.user_sums import Positions


@dataclass(frozen=True, eq=False)
class Candidates:
    """The users that one step looks at.

    Attributes:
        users: positions, ascending, int64 [n].
        log_weights: log w of each, float32 [n].
    """

    users: Positions
    log_weights: Tensor

    @classmethod
    def draw(cls, certain: Positions, sampled: int, users: int, generator: np.random.Generator) -> Candidates:
        """Return the certain users and as many drawn ones as there are, at most ``sampled``.

        Args:
            certain: A, int64 [n], in any order; a user can repeat.
            sampled: m, at least 1.
            users: U.
            generator: of the draw.

        Raises:
            UsageError: ``sampled`` is below 1.
        """
        if sampled < 1:
            raise UsageError(f"sampled is {sampled}", expected="at least 1")
        fixed = np.unique(certain)
        others = users - len(fixed)
        count = min(sampled, others)
        ranks = np.sort(generator.choice(others, count, replace=False, shuffle=False))
        # The r-th user outside A is r plus the number of users of A that stand before it.
        drawn = ranks + np.searchsorted(fixed - np.arange(len(fixed)), ranks, side="right")
        both = np.concatenate([fixed, drawn])
        weights = np.zeros(len(both), np.float32)
        if count:
            weights[len(fixed) :] = math.log(others / count)
        order = np.argsort(both, kind="stable")
        return cls(both[order], torch.from_numpy(weights[order]))

    def places(self, users: Positions) -> Positions:
        """Return where some candidates stand in :attr:`users`, int64 [n]."""
        found: Positions = np.searchsorted(self.users, users)
        return found

    def distribution(self, scores: Tensor) -> Tensor:
        """Return the estimate of softmax(scores) over all users, float32 [B, n]; a row sums to 1.

        Args:
            scores: of the candidates, float32 [B, n].
        """
        return torch.softmax(scores + self.log_weights, 1)

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over items of log Z_i - sum over u of target_iu s_iu.

        Args:
            scores: s of the candidates, float32 [B, n].
            targets: float32 [B, n]; a row sums to 1.
        """
        return (torch.logsumexp(scores + self.log_weights, 1) - (targets * scores).sum(1)).mean()
