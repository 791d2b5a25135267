"""What new users of a trained head need: item vectors, normalisers and the prior, in the coordinates of the head.

The head's logits are s_iu = tau (Q z_-i) . w_u + b_u. With everything but one user fixed, the part of the user in the
loss on the observed users (:mod:`fllm_export.training.taught_head`) is

    sum over its items i of s_iu / n_i  -  sum over all items of log(Z_i + exp(s_iu))

because the softmax of item i over the trained users and this one has the denominator Z_i + exp(s_iu). The teacher's
part of the target is left out: the prior around the closed form takes its place, and users who were not trained rank
better so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fllm_export.head_rule import HeadRule
from fllm_export.training.lesson import Lesson, LessonHead, Pupil
from fllm_export.training.user_sums import FloatArray

PRIOR = 0.0175
"""Strength of the prior, as a share of T / U, which is what a user of average probability has for all items together.
Coordinates are those of the head, in which the columns of the closed form's rows have the mean square 1."""

_USERS_MOST, _SCORES_AT_ONCE, _LEAST = 100_000, 1 << 24, 1e-30


@dataclass(frozen=True, eq=False)
class Folding:
    """The fixed part of a head beside the closed form that taught it.

    Attributes:
        rule: the tensors, and the strength of the prior.
        columns: C_i divided by these are contributions in the head's coordinates, float32 [d].
        user_power: c of the closed form that taught.
        activity: beta, by which beta log pop_u is nearest to the head's biases.
    """

    rule: HeadRule
    columns: FloatArray
    user_power: float
    activity: float

    @classmethod
    def of(cls, pupil: Pupil, lesson: Lesson, head: LessonHead, share: float) -> Folding:
        """Return the fixed part of a head in training.

        Args:
            pupil: what it is trained on.
            lesson: its coordinates.
            head: as it was when it ranked best.
            share: a, how much of the closed form is in the rows.
        """
        users, columns = len(pupil.rows), lesson.columns
        rule = HeadRule(
            counts=np.array([len(liked) for liked in pupil.liked]),
            vectors=(lesson.z @ head.turn.T).numpy(),
            log_normalisers=_log_normalisers(torch.from_numpy(pupil.vectors), head.rows * columns, head.bias),
            closed_map=torch.diag(share * head.scale * columns).numpy(),
            head_map=(head.turn * columns).numpy(),
            strength=PRIOR * len(pupil.liked) / users,
            scale=1.0,
        )
        sizes = np.bincount(np.concatenate(pupil.liked), minlength=users)
        logs, bias = np.log(np.maximum(sizes, 1)), head.bias.double().numpy()
        activity = float(logs @ bias / max(float(logs @ logs), _LEAST))
        return cls(rule, lesson.stretch.numpy(), pupil.user_power, activity)

    def scaled(self, scale: float) -> Folding:
        """Return it for rows and biases that are multiplied by a number."""
        factor, rule = np.float32(scale), self.rule
        larger = replace(rule.mapped(lambda rows: rows * factor), scale=float(scale))
        return replace(self, rule=larger, activity=self.activity * float(scale))


def _log_normalisers(z: Tensor, rows: Tensor, bias: Tensor) -> FloatArray:
    """Return log Z of items, float32 [T]; of very many users, as an evenly spread sample of them has it."""
    some = torch.linspace(0, len(rows) - 1, min(len(rows), _USERS_MOST), dtype=torch.float64).long()
    missing, parts = float(np.log(len(rows) / len(some))), []
    if missing:
        rows, bias = rows[some], bias[some]
    step = max(1, _SCORES_AT_ONCE // len(some))
    for first in range(0, len(z), step):
        parts.append(torch.addmm(bias, z[first : first + step], rows.T).logsumexp(1))
    found: FloatArray = (torch.cat(parts) + missing).numpy()
    return found
