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
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from fllm_export.evaluation.metrics import Ranking
from fllm_export.link import EXPONENTIAL, LINKS, Link
from fllm_export.progress import Progress, silent
from fllm_export.training.full_lesson import FullLesson
from fllm_export.training.head_folding import Folding
from fllm_export.training.lesson import Lesson, LessonHead, Pupil, items_of_scale, pairs
from fllm_export.training.probabilities import best_link
from fllm_export.training.ranked_users import ranking
from fllm_export.training.sampled_lesson import SampledLesson
from fllm_export.training.user_sums import FloatArray

FULL_USERS_MOST = 100_000
"""Up to so many users every step scores all of them."""
SHARES = (0.0, 0.5, 1.0, 2.0)
"""The values of a."""


@dataclass(frozen=True, eq=False)
class TaughtHead:
    """User rows and biases as logits, for the item vectors of the closed form.

    Attributes:
        rows: float32 [U, d].
        bias: float32 [U].
        epoch: passes over the training items.
        share: a, how much of the closed form is in the rows.
        rank: r, the dimensions that the head sees.
        ranking: of the users of the validation items.
        folding: what new users need.
        link: from scores to probabilities.
    """

    rows: FloatArray
    bias: FloatArray
    epoch: int
    share: float
    rank: int
    ranking: Ranking
    folding: Folding
    link: Link = EXPONENTIAL

    @classmethod
    def train(
        cls,
        pupil: Pupil,
        epochs: int,
        seed: int,
        workspace: Path,
        progress: Progress = silent,
        links: Sequence[Link] = LINKS,
    ) -> TaughtHead:
        """Train for some epochs and return the best of them, at least 1.

        Args:
            pupil: vectors, rows and interactions.
            epochs: passes over the training items.
            seed: of the order of the items and of all draws.
            workspace: where the rows of very many users are while they are trained.
            progress: counts steps.
            links: to choose from, the exponential among them.
        """
        with TemporaryDirectory(prefix="head-", dir=workspace) as directory:
            lesson = _lesson(pupil, epochs, seed, Path(directory))
            validation = torch.from_numpy(pupil.validation)
            best: tuple[Ranking, int, float, LessonHead] | None = None
            for epoch in range(1, epochs + 1):
                lesson.epoch(epoch, progress)
                head = lesson.head()
                rows, closed = lesson.rows(head)
                for share in SHARES:
                    found = ranking(validation, rows + share * closed, pupil.truth, head.bias)
                    if best is None or found.ndcg > best[0].ndcg:
                        best = found, epoch, share, head
            assert best is not None
            return cls._calibrated(pupil, lesson, links, *best)

    @classmethod
    def _calibrated(
        cls,
        pupil: Pupil,
        lesson: Lesson,
        links: Sequence[Link],
        found: Ranking,
        epoch: int,
        share: float,
        head: LessonHead,
    ) -> TaughtHead:
        """Return a head with the link, and the factor of rows and biases, that make the validation pairs likely."""
        taught, closed = lesson.rows(head)
        rows, bias = taught + share * closed, head.bias
        most = items_of_scale(len(rows))
        z, truth = torch.from_numpy(pupil.validation[:most]), pupil.truth[:most]
        link, scale, _ = best_link(z @ rows.T + bias, pairs(truth), links)
        folding = Folding.of(pupil, lesson, head, share).scaled(scale)
        factor = np.float32(scale)
        return cls(rows.numpy() * factor, bias.numpy() * factor, epoch, share, lesson.rank, found, folding, link)

    def to_json(self) -> dict[str, Any]:
        """Return what was chosen."""
        return {"epoch": self.epoch, "share": self.share, "rank": self.rank, "link": str(self.link)}


def _lesson(pupil: Pupil, epochs: int, seed: int, directory: Path) -> Lesson:
    if len(pupil.rows) <= FULL_USERS_MOST:
        return FullLesson(pupil, epochs, seed)
    return SampledLesson(pupil, seed, directory / "rows")
