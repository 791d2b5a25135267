"""A taught head with a softmax over all users."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fllm_export.progress import Progress
from fllm_export.training.descent import Descent
from fllm_export.training.lesson import BATCH, DROPOUT, OBSERVED, SHARPNESS, Lesson, LessonHead, Pupil, pairs

_USERS_RATE, _TURN_RATE, _BIAS_RATE, _SCALE_RATE = 0.02, 3e-4, 1.5e-3, 1e-2
"""Learning rates. Numbers of a row are about 1, so that w_u and Q move by some percent per step at most."""


class FullLesson(Lesson):
    """Every step scores every user; the optimiser holds 12 bytes for each number of a row.

    Args:
        pupil: vectors, rows and interactions.
        epochs: that will be taken.
        seed: of the order of the items and of dropout.
    """

    def __init__(self, pupil: Pupil, epochs: int, seed: int) -> None:
        super().__init__(pupil)
        self._turn = torch.eye(self.closed.shape[1])[: self.rank].clone().requires_grad_()
        self._users = self.closed[:, : self.rank].clone().requires_grad_()
        self._log_scale = torch.tensor(self.scale).log().requires_grad_()
        self._bias = torch.zeros(len(self.closed), requires_grad=True)
        groups = [
            {"params": [self._turn], "peak": _TURN_RATE},
            {"params": [self._users], "peak": _USERS_RATE},
            {"params": [self._bias], "peak": _BIAS_RATE},
            {"params": [self._log_scale], "peak": _SCALE_RATE},
        ]
        self._seed, self._descent = seed, Descent(groups, epochs * -(-len(self.z) // BATCH))

    def epoch(self, number: int, progress: Progress) -> None:
        """See :meth:`Lesson.epoch`."""
        torch.manual_seed(self._seed + number)
        order = torch.randperm(len(self.z))
        for first in range(0, len(order), BATCH):
            self._descent.step(self.loss(order[first : first + BATCH]))
            progress("head", self._descent.done, self._descent.total)

    def head(self) -> LessonHead:
        """See :meth:`Lesson.head`."""
        with torch.no_grad():
            scale = self._log_scale.exp()
            return LessonHead(scale * (self._users @ self._turn), self._bias.clone(), scale * self._turn, scale)

    def loss(self, items: Tensor) -> Tensor:
        """Return the mean cross-entropy of some training items, int64 [B]."""
        z = self.z[items]
        scores = F.dropout(z @ self._turn.T, DROPOUT) @ self._users.T
        logs = (scores * self._log_scale.exp() + self._bias).log_softmax(1)
        taught = (SHARPNESS * self.scale * (z @ self.closed.T)).softmax(1)
        rows, users = pairs([self.liked[item] for item in items.tolist()])
        shares = 1 / torch.bincount(rows, minlength=len(items))
        observed = (logs[rows, users] * shares[rows]).sum()
        return -(OBSERVED * observed + (1 - OBSERVED) * (taught * logs).sum()) / len(items)
