"""A softmax head that starts from the closed form, is taught by it, and learns from items as if they were cold.

With z_-i the vector of training item i without its own interactions (:mod:`fllm_export.training.left_out_vectors`),
e_u the closed form's row of user u, and both scaled so that scores have the standard deviation 1:

    s_u    = tau (Q z_-i) . w_u + b_u      Q [r, d] starts as the first rows of I, w_u as the first r numbers of e_u
    target = 0.7 the users of item i, all alike + 0.3 softmax(2 tau_0 e . z_-i)
    loss   = mean over items of the cross-entropy of softmax(s) and the target

tau_0 is the scale of the highest likelihood. Trained on z_i, rows would learn to find the item's own interactions in
themselves; z_-i has none of them, so that what helps a training item helps a cold one. The head sees r dimensions and
differs from its teacher where the interactions say so; both together rank better than either. The rows are

    Q' w_u + a e_u

and the epoch and a of the highest NDCG@20 on cold_val are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fllm_export.evaluation.metrics import Ranking
from fllm_export.progress import Progress, silent
from fllm_export.training.descent import Descent
from fllm_export.training.probabilities import best_scale
from fllm_export.training.ranked_users import ranking
from fllm_export.training.user_sums import FloatArray, Positions

RANK = 512
SHARES = (0.0, 0.5, 1.0, 2.0)
"""The values of a."""

_BATCH = 256
_OBSERVED = 0.7
_SHARPNESS = 2.0
_DROPOUT = 0.3
_USERS_RATE, _TURN_RATE, _BIAS_RATE, _SCALE_RATE = 0.02, 3e-4, 1.5e-3, 1e-2
"""Learning rates. Numbers of a row are about 1, so that w_u and Q move by some percent per step at most."""
_LEAST_SPREAD = 1e-30
_SCALE_SCORES = 1 << 21


@dataclass(frozen=True, eq=False)
class Pupil:
    """What a head is trained on.

    Attributes:
        vectors: z_-i of the training items, float32 [T, d].
        rows: of the closed form, float32 [U, d].
        liked: for each training item its users.
        validation: z of the validation items, float32 [V, d].
        truth: for each validation item its users.
    """

    vectors: FloatArray
    rows: FloatArray
    liked: Sequence[Positions]
    validation: FloatArray
    truth: Sequence[Positions]


@dataclass(frozen=True, eq=False)
class TaughtHead:
    """User rows and biases as logits, for the item vectors of the closed form.

    Attributes:
        rows: float32 [U, d].
        bias: float32 [U].
        epoch: passes over the training items.
        share: a, how much of the closed form is in the rows.
        ranking: of the users of the validation items.
    """

    rows: FloatArray
    bias: FloatArray
    epoch: int
    share: float
    ranking: Ranking

    @classmethod
    def train(cls, pupil: Pupil, epochs: int, seed: int, progress: Progress = silent) -> TaughtHead:
        """Train for some epochs and return the best of them, at least 1.

        Args:
            pupil: vectors, rows and interactions.
            epochs: passes over the training items.
            seed: of the order of the items and of dropout.
            progress: counts steps.
        """
        lesson = _Lesson(pupil, epochs, seed)
        validation = torch.from_numpy(pupil.validation)
        best: TaughtHead | None = None
        for epoch in range(1, epochs + 1):
            lesson.epoch(epoch, progress)
            rows, bias = lesson.rows(), lesson.bias.detach().clone()
            for share in SHARES:
                mixed = rows + share * lesson.teacher()
                found = ranking(validation, mixed, pupil.truth, bias)
                if best is None or found.ndcg > best.ranking.ndcg:
                    best = cls(mixed.numpy(), bias.numpy(), epoch, share, found)
        assert best is not None
        return best._calibrated(pupil)

    def _calibrated(self, pupil: Pupil) -> TaughtHead:
        """Return the head with rows and biases times what makes the users of the validation items most likely."""
        most = max(1, _SCALE_SCORES // len(self.rows))
        z, truth = torch.from_numpy(pupil.validation[:most]), pupil.truth[:most]
        scores = z @ torch.from_numpy(self.rows).T + torch.from_numpy(self.bias)
        scale = best_scale(scores, torch.zeros(len(self.rows)), _pairs(truth))[0]
        return replace(self, rows=self.rows * np.float32(scale), bias=self.bias * np.float32(scale))

    def to_json(self) -> dict[str, Any]:
        """Return what was chosen."""
        return {"epoch": self.epoch, "share": self.share, "rank": min(RANK, self.rows.shape[1])}


class _Lesson:
    """The head's parameters, in coordinates in which every column of the closed form's rows has the mean square 1."""

    def __init__(self, pupil: Pupil, epochs: int, seed: int) -> None:
        rows, vectors = torch.from_numpy(pupil.rows), torch.from_numpy(pupil.vectors)
        columns = rows.square().mean(0).sqrt().clamp(min=_LEAST_SPREAD)
        self._closed = rows / columns
        inner = self._closed.T @ self._closed / len(rows)
        stretched = vectors * columns
        self._columns = columns / ((stretched @ inner) * stretched).sum(1).mean().sqrt().clamp(min=_LEAST_SPREAD)
        self._z, self._liked = vectors * self._columns, pupil.liked
        self._sharpness = self._likely_scale()
        rank = min(RANK, rows.shape[1])
        self._turn = torch.eye(rows.shape[1])[:rank].clone().requires_grad_()
        self._users = self._closed[:, :rank].clone().requires_grad_()
        self._log_scale = torch.tensor(self._sharpness).log().requires_grad_()
        self.bias = torch.zeros(len(rows), requires_grad=True)
        groups = [
            {"params": [self._turn], "peak": _TURN_RATE},
            {"params": [self._users], "peak": _USERS_RATE},
            {"params": [self.bias], "peak": _BIAS_RATE},
            {"params": [self._log_scale], "peak": _SCALE_RATE},
        ]
        self._seed, self._descent = seed, Descent(groups, epochs * -(-len(vectors) // _BATCH))

    def epoch(self, number: int, progress: Progress) -> None:
        """Take one step for each batch of all training items, in an order of the epoch's own."""
        torch.manual_seed(self._seed + number)
        order = torch.randperm(len(self._z))
        for first in range(0, len(order), _BATCH):
            items = order[first : first + _BATCH]
            self._descent.step(self._loss(items))
            progress("head", self._descent.done, self._descent.total)

    def rows(self) -> Tensor:
        """Return Q' w_u, float32 [U, d], for the item vectors as they come from the mapper."""
        with torch.no_grad():
            return self._log_scale.exp() * (self._users @ self._turn) * self._columns

    def teacher(self) -> Tensor:
        """Return e_u at the same scale as :meth:`rows`, float32 [U, d]."""
        with torch.no_grad():
            return self._log_scale.exp() * self._closed * self._columns

    def _loss(self, items: Tensor) -> Tensor:
        z = self._z[items]
        scores = F.dropout(z @ self._turn.T, _DROPOUT) @ self._users.T
        logs = (scores * self._log_scale.exp() + self.bias).log_softmax(1)
        taught = (_SHARPNESS * self._sharpness * (z @ self._closed.T)).softmax(1)
        rows, users = _pairs([self._liked[item] for item in items.tolist()])
        shares = 1 / torch.bincount(rows, minlength=len(items))
        observed = (logs[rows, users] * shares[rows]).sum()
        return -(_OBSERVED * observed + (1 - _OBSERVED) * (taught * logs).sum()) / len(items)

    def _likely_scale(self) -> float:
        """Return tau_0, from evenly spread training items."""
        most = min(len(self._z), max(1, _SCALE_SCORES // len(self._closed)))
        some = torch.linspace(0, len(self._z) - 1, most).long()
        pairs = _pairs([self._liked[item] for item in some.tolist()])
        return best_scale(self._z[some] @ self._closed.T, torch.zeros(len(self._closed)), pairs)[0]


def _pairs(liked: Sequence[Positions]) -> tuple[Tensor, Tensor]:
    """Return the pairs of some items and their users: places in the list, and users, int64 [P] each."""
    rows = np.repeat(np.arange(len(liked)), [len(users) for users in liked])
    return torch.from_numpy(rows), torch.from_numpy(np.concatenate(liked))
