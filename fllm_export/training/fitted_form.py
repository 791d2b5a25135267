"""The closed form of some item vectors with everything chosen on cold_val: its numbers, its dimension, its logits."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fllm_export.checkpoint.user_rule import UserRule
from fllm_export.errors import UsageError
from fllm_export.evaluation.metrics import Ranking
from fllm_export.link import Link
from fllm_export.progress import Progress, silent
from fllm_export.training import probabilities
from fllm_export.training.closed_form import ClosedForm, Setting
from fllm_export.training.landmarks import choose_landmarks
from fllm_export.training.left_out import LeftOut
from fllm_export.training.left_out_vectors import left_out_vectors
from fllm_export.training.lesson import Pupil
from fllm_export.training.probabilities import Probabilities
from fllm_export.training.ranked_users import ranking
from fllm_export.training.recipe import ClosedFormRecipe
from fllm_export.training.setting_search import Grid, Trial, Validation, sampled, search
from fllm_export.training.taught_head import TaughtHead
from fllm_export.training.user_sums import FloatArray, Positions, UserItems

SEARCH_LANDMARKS = 4096
"""Landmarks at most while numbers are compared; what is kept has as many as the recipe allows."""

_GRID = Grid(gammas=(2.0, 4.0, 8.0), penalties=(1.0, 3.0), user_powers=(0.0, 0.1, 0.2, 0.3))
_SEARCH_USERS = 50_000
_DIMS = tuple(1 << bit for bit in range(10, -1, -1))
_LEAST_DIM = 64
_NDCG_KEPT = 0.995
_SCORES_AT_ONCE = 1 << 24
_LEFT_OUT_LEAST, _LEFT_OUT_ITEMS, _LEFT_OUT_SCORES = 16, 512, 1 << 21
_HEAD_GAIN = 1.005
"""The head is taken where it raises NDCG by half a percent: without it, rows can be learned and changed one by one."""


class Vectors:
    """Item vectors of one encoder, and the interactions that go with them.

    Args:
        items: x of the training items, float32 [T, h].
        validation: x of the validation items, float32 [V, h], with the users that liked them.
        users: the training items of each user. Of more than 50,000 users so many, drawn once, choose the numbers.
        seed: of the draws.
    """

    def __init__(self, items: npt.NDArray[np.float32], validation: Validation, users: UserItems, seed: int) -> None:
        self.items, self.users, self.seed, self.cold = items, users, seed, validation
        self.counts = np.bincount(users.items, minlength=len(items))
        self.some, self.validation = sampled(users, validation, _SEARCH_USERS, seed)

    def best(self, grid: Grid | None = None, *, landmarks: int | None = None, progress: Progress = silent) -> Trial:
        """Return the best point of a grid on the validation items; of the whole grid when none is given."""
        chosen = choose_landmarks(self.items, landmarks or SEARCH_LANDMARKS, self.seed)
        return search(self.items, chosen, self.some, self.validation, grid or _GRID, progress)[0]

    def ndcg(self, z: torch.Tensor, rows: torch.Tensor, bias: torch.Tensor | None = None) -> float:
        """Return user NDCG@20 of the validation items.

        Args:
            z: their item vectors, float32 [V, d].
            rows: of the users ``some``, float32 [U, d].
            bias: of the same users, float32 [U]; none when not given.
        """
        return ranking(z, rows, self.validation.truth, bias).ndcg


@dataclass(frozen=True, eq=False)
class FittedForm:
    """A closed form ready to be served, with or without a head that it taught.

    Attributes:
        form: with its basis.
        ndcg_by_dim: user NDCG@20 on cold_val by number of dimensions, for the dimensions that were compared.
        probabilities: how its scores become logits.
        ranking: how the closed form by itself ranks the users of the validation items.
        head: trained on the form's item vectors; None where there was none to train.
    """

    form: ClosedForm
    ndcg_by_dim: dict[int, float]
    probabilities: Probabilities
    ranking: Ranking
    head: TaughtHead | None

    @classmethod
    def of(
        cls,
        vectors: Vectors,
        setting: Setting,
        recipe: ClosedFormRecipe,
        workspace: Path,
        progress: Progress = silent,
    ) -> FittedForm:
        """Choose lambda once more where there are many landmarks, then the dimension, then the logits; train the head.

        Args:
            vectors: of the encoder as it is served.
            setting: the best g, lambda, r and c of the grid (:meth:`Vectors.best`).
            recipe: its landmarks at most; its dim, where None takes the smallest power of two from 64 to 1,024 that
                holds 99.5 % of the best NDCG@20 on cold_val; its epochs of the head.
            workspace: a directory for what the head keeps on disk while it is trained.
            progress: counts the points of the grid, and the head's steps.

        Raises:
            UsageError: the recipe's dim is above the rank of the user rows.
        """
        landmarks = recipe.landmarks_of(len(vectors.items))
        if landmarks > SEARCH_LANDMARKS and len(vectors.items) > SEARCH_LANDMARKS:
            # More landmarks fit the training items better and want a larger penalty; the rest stays as it is.
            wider = Grid((setting.gamma,), (setting.penalty, 3 * setting.penalty), (setting.item_power,))
            setting = vectors.best(wider, landmarks=landmarks, progress=progress).setting
        chosen = choose_landmarks(vectors.items, landmarks, vectors.seed)
        whole = ClosedForm.fit(vectors.items, chosen, vectors.counts, setting)
        form, found = _projected(whole, vectors, recipe.dim)
        z = form.item_vectors(vectors.cold.items).astype(np.float32)
        rows_to_teach = form.rows(vectors.users)
        logits = _logits(whole, form, vectors, z, recipe.links)
        served = form.with_user_power(logits.user_power)
        rows, bias = served.rows(vectors.users), logits.bias(vectors.users.sizes) / logits.scale
        closed = ranking(torch.from_numpy(z), torch.from_numpy(rows), vectors.cold.truth, torch.from_numpy(bias))
        head = _head(form, rows_to_teach, vectors, z, recipe, workspace, progress)
        return cls(served, found, logits, closed, head)

    @property
    def taught(self) -> TaughtHead | None:
        """The head, where it ranks enough better than the closed form to take the place of its rows."""
        head = self.head
        return head if head is not None and head.ranking.ndcg > _HEAD_GAIN * self.ranking.ndcg else None

    @property
    def ndcg(self) -> float:
        """User NDCG@20 on cold_val of what is served."""
        return (self.taught or self).ranking.ndcg

    @property
    def link(self) -> Link:
        """From the scores of what is served to probabilities."""
        return self.probabilities.link if self.taught is None else self.taught.link

    def rows(self, users: UserItems) -> FloatArray:
        """Return the rows of all users, float32 [U, d]."""
        if self.taught is not None:
            return self.taught.rows
        return self.form.rows(users) * np.float32(self.probabilities.scale)

    def bias(self, users: UserItems) -> FloatArray:
        """Return the biases of all users, float32 [U]."""
        return self.probabilities.bias(users.sizes) if self.taught is None else self.taught.bias

    def rule(self, item_ids: Positions, users: UserItems, *, bias: bool) -> UserRule:
        """Return what the rows were made of, or of a head what rows of the same kind are made of.

        Args:
            item_ids: ids of the training items, int64 [T].
            users: the training items of each user, ascending.
            bias: whether the rows have biases.
        """
        items = users.items.astype(np.int32)
        if self.taught is not None:
            folding = self.taught.folding
            closed, activity = self.form.contributions / folding.columns, folding.activity if bias else None
            return UserRule(item_ids, closed, folding.user_power, activity, users.starts, items, folding.rule)
        scaled = self.form.contributions * np.float32(self.probabilities.scale)
        activity = self.probabilities.activity if bias else None
        return UserRule(item_ids, scaled, self.form.setting.user_power, activity, users.starts, items)

    def to_json(self) -> dict[str, Any]:
        """Return what was chosen."""
        return {
            "landmarks": len(self.form.ridge.kernel.landmarks),
            "setting": self.form.setting.to_json(),
            "ndcg_by_dim": {str(dim): round(value, 6) for dim, value in self.ndcg_by_dim.items()},
            "probabilities": self.probabilities.to_json(),
            "link": str(self.link),
            "head": None if self.taught is None else self.taught.to_json(),
        }


def _head(
    form: ClosedForm,
    rows: FloatArray,
    vectors: Vectors,
    z: FloatArray,
    recipe: ClosedFormRecipe,
    workspace: Path,
    progress: Progress,
) -> TaughtHead | None:
    """Train a head on the form's vectors and rows, where the recipe asks for one; ``z`` are of the validation items."""
    if not recipe.head_epochs:
        return None
    by_item = vectors.users.by_item(len(vectors.items))
    pupil = Pupil(
        vectors=left_out_vectors(form, by_item, rows),
        rows=rows,
        liked=np.split(by_item.items, by_item.starts[1:-1]),
        validation=z,
        truth=vectors.cold.truth,
        user_power=form.setting.user_power,
    )
    return TaughtHead.train(pupil, recipe.head_epochs, vectors.seed, workspace, progress, recipe.links)


def _projected(whole: ClosedForm, vectors: Vectors, dim: int | None) -> tuple[ClosedForm, dict[int, float]]:
    if dim is not None:
        return whole.project(dim, vectors.users, seed=vectors.seed), {}
    form = _widest(whole, vectors)
    rows = torch.from_numpy(form.rows(vectors.some))
    z = torch.from_numpy(form.item_vectors(vectors.validation.items).astype(np.float32))
    sizes = [size for size in _DIMS if size <= form.dim and (size >= _LEAST_DIM or size == form.dim)]
    found = {size: vectors.ndcg(z[:, :size], rows[:, :size]) for size in sizes}
    best = max(found.values())
    size = min(size for size, value in found.items() if value >= _NDCG_KEPT * best)
    return form.cut(size), found


def _widest(whole: ClosedForm, vectors: Vectors) -> ClosedForm:
    """Return the projection to the largest of the dimensions that the rows have."""
    fitting = [size for size in _DIMS if size <= min(whole.dim, len(vectors.users))]
    for size in fitting[:-1]:
        with contextlib.suppress(UsageError):  # rows of a lower rank
            return whole.project(size, vectors.users, seed=vectors.seed)
    return whole.project(fitting[-1], vectors.users, seed=vectors.seed)


def _logits(
    whole: ClosedForm, form: ClosedForm, vectors: Vectors, z: FloatArray, links: Sequence[Link]
) -> Probabilities:
    """Fit the logits on training items that are left out; NDCG is the projected form's, with ``z`` of cold_val."""
    users, items = vectors.users, len(vectors.items)
    left_out = LeftOut(whole.with_user_power(0), users)
    most = min(_LEFT_OUT_ITEMS, max(_LEFT_OUT_LEAST, _LEFT_OUT_SCORES // len(users)), items)
    some: Positions = np.sort(np.random.default_rng(vectors.seed).choice(items, most, replace=False))
    # A block has a column of the hat matrix, one number per training item, for each of its items.
    blocks = -(-most * items // _SCORES_AT_ONCE)
    scores = np.concatenate([left_out.scores(block) for block in np.array_split(some, min(blocks, most))])
    rows = torch.from_numpy(form.with_user_power(0).rows(vectors.some))
    cold = torch.from_numpy(z)
    logs = torch.from_numpy(np.log(np.maximum(vectors.some.sizes, 1)).astype(np.float32))

    def ndcg(scale: float, power: float, beta: float) -> float:
        return vectors.ndcg(cold, rows * (scale * (-power * logs).exp())[:, None], beta * logs)

    liked = [left_out.users_of(int(item)) for item in some]
    return probabilities.fit(scores, liked, users.sizes, ndcg, links)
