"""A taught head with a sampled softmax, for more users than a softmax over all of them can hold."""

from __future__ import annotations

from pathlib import Path

import torch

from fllm_export.progress import Progress
from fllm_export.training.lesson import BATCH, DROPOUT, OBSERVED, SHARPNESS, Lesson, LessonHead, Pupil
from fllm_export.training.sampled_head import SampledHead, SampledSettings
from fllm_export.training.user_store import UserStore
from fllm_export.training.user_sums import FloatArray, Positions

_CHUNK = 1 << 16
_ROW_RATE, _BIAS_RATE = 0.15, 3e-3
"""Adagrad's learning rates; the numbers of rows are about 1."""


class SampledLesson(Lesson):
    """Every step scores some users, and rows are trained on disk.

    Args:
        pupil: vectors, rows and interactions.
        seed: of all draws.
        directory: of the rows in training, new or empty.
    """

    def __init__(self, pupil: Pupil, seed: int, directory: Path) -> None:
        super().__init__(pupil)
        users = len(self.closed)
        closed = self.closed.numpy()
        parts = (closed[first : first + _CHUNK, : self.rank] for first in range(0, users, _CHUNK))
        self._store = UserStore.create(directory, parts, users, self.rank)
        settings = SampledSettings(
            batch=BATCH,
            mix=OBSERVED,
            sharpness=SHARPNESS * self.scale,
            scale=self.scale,
            dropout=DROPOUT,
            row_rate=_ROW_RATE,
            bias_rate=_BIAS_RATE,
            seed=seed,
        )

        def teacher(some: Positions) -> FloatArray:
            return closed[some]

        self._head = SampledHead(self._store, self.z.numpy(), self.liked, teacher, settings)

    def epoch(self, number: int, progress: Progress) -> None:
        """See :meth:`Lesson.epoch`."""
        self._head.run(number, progress)

    def head(self) -> LessonHead:
        """See :meth:`Lesson.head`."""
        scale = self._head.log_scale.detach().exp()
        turn = scale * self._head.q.detach()
        turned, biases = [], []
        for rows, bias in self._store.chunks():
            turned.append(torch.from_numpy(rows) @ turn)
            biases.append(torch.from_numpy(bias))
        return LessonHead(torch.cat(turned), torch.cat(biases), turn, scale)
