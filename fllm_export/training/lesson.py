"""What a taught head is trained on, brought to a scale of its own, and what is common to both ways of training it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fllm_export.progress import Progress
from fllm_export.training.probabilities import best_scale
from fllm_export.training.user_sums import FloatArray, Positions

RANK = 512
OBSERVED = 0.7
"""The share of an item's users in its target; the teacher has the rest."""
SHARPNESS = 2.0
DROPOUT = 0.3
BATCH = 256

_SCALE_SCORES, _SCALE_ITEMS_LEAST = 1 << 21, 16
_LEAST_SPREAD = 1e-30


@dataclass(frozen=True, eq=False)
class Pupil:
    """What a head is trained on.

    Attributes:
        vectors: z_-i of the training items, float32 [T, d].
        rows: of the closed form, float32 [U, d].
        liked: for each training item its users.
        validation: z of the validation items, float32 [V, d].
        truth: for each validation item its users.
        user_power: c of the rows.
    """

    vectors: FloatArray
    rows: FloatArray
    liked: Sequence[Positions]
    validation: FloatArray
    truth: Sequence[Positions]
    user_power: float


@dataclass(frozen=True, eq=False)
class LessonHead:
    """A head as it is at some time of its training, in the coordinates of its lesson.

    Attributes:
        rows: tau Q' w_u, float32 [U, d].
        bias: b_u, float32 [U].
        turn: tau Q, float32 [r, d].
        scale: tau, float32 [].
    """

    rows: Tensor
    bias: Tensor
    turn: Tensor
    scale: Tensor


class Lesson(ABC):
    """A head in training.

    Its coordinates are those in which every column of the closed form's rows has the mean square 1 and the closed
    form's scores have the standard deviation 1.

    Attributes:
        z: z_-i of the training items in these coordinates, float32 [T, d].
        closed: e_u, float32 [U, d].
        liked: for each training item its users.
        stretch: what the rows of the closed form are divided by in these coordinates, float32 [d].
        columns: what item vectors as they come from the mapper are multiplied by, float32 [d].
        scale: tau_0, the scale at which the closed form's scores are most likely.
        rank: dimensions r that the head sees.
    """

    def __init__(self, pupil: Pupil) -> None:
        rows, vectors = torch.from_numpy(pupil.rows), torch.from_numpy(pupil.vectors)
        self.stretch = rows.square().mean(0).sqrt().clamp(min=_LEAST_SPREAD)
        self.closed = rows / self.stretch
        inner = self.closed.T @ self.closed / len(rows)
        stretched = vectors * self.stretch
        spread = ((stretched @ inner) * stretched).sum(1).mean().sqrt().clamp(min=_LEAST_SPREAD)
        self.columns = self.stretch / spread
        self.z, self.liked = vectors * self.columns, pupil.liked
        self.scale = self._likely_scale()
        self.rank = min(RANK, rows.shape[1])

    @abstractmethod
    def epoch(self, number: int, progress: Progress) -> None:
        """Take one step for each batch of all training items, in an order of the epoch's own, counted from 1."""

    @abstractmethod
    def head(self) -> LessonHead:
        """Return the head as it is, copied."""

    def rows(self, head: LessonHead) -> tuple[Tensor, Tensor]:
        """Return a head and its teacher for item vectors as they come from the mapper.

        Returns:
            rows of the head, float32 [U, d]; rows of the closed form at the same scale, float32 [U, d].
        """
        return head.rows * self.columns, head.scale * self.closed * self.columns

    def _likely_scale(self) -> float:
        some = torch.linspace(0, len(self.z) - 1, min(len(self.z), items_of_scale(len(self.closed)))).long()
        scores = self.z[some] @ self.closed.T
        return best_scale(scores, torch.zeros(len(self.closed)), pairs([self.liked[i] for i in some.tolist()]))[0]


def items_of_scale(users: int) -> int:
    """Return of how many items the scores of all users are enough to find their scale."""
    return max(_SCALE_ITEMS_LEAST, _SCALE_SCORES // users)


def pairs(liked: Sequence[Positions]) -> tuple[Tensor, Tensor]:
    """Return the pairs of some items and their users: places in the list, and users, int64 [P] each."""
    rows = np.repeat(np.arange(len(liked)), [len(users) for users in liked])
    return torch.from_numpy(rows), torch.from_numpy(np.concatenate(liked))
