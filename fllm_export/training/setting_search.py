"""The choice of the closed form's four numbers by the cold items of cold_val."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fllm_export.errors import UsageError
from fllm_export.evaluation.metrics import Ranking
from fllm_export.progress import Progress, silent
from fllm_export.training.closed_form import Setting
from fllm_export.training.kernel import Kernel, unit
from fllm_export.training.ranked_users import SELECTION_K
from fllm_export.training.ridge import Ridge, ridge
from fllm_export.training.user_sums import Positions, UserItems, damping

_ITEMS_AT_ONCE = 512


@dataclass(frozen=True)
class Grid:
    """The values that are tried, every one with every other.

    g and lambda cost a factorisation each, r and c only sums over the interactions.
    """

    gammas: Sequence[float] = (2.0, 3.0)
    penalties: Sequence[float] = (0.3, 1.0, 3.0)
    item_powers: Sequence[float] = (0.0, 0.25, 0.5)
    user_powers: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4)

    def __len__(self) -> int:
        return len(self.gammas) * len(self.penalties) * len(self.item_powers) * len(self.user_powers)


@dataclass(frozen=True)
class Trial:
    """One point of the grid.

    Attributes:
        setting: its numbers.
        precision: user precision@20 on the validation items.
        recall: user recall@20 on the validation items.
        ndcg: user NDCG@20 on the validation items, by which the best is chosen: it counts both the hits among an item's
            many users, as precision does, and the share of an item's few users, as recall does.
    """

    setting: Setting
    precision: float
    recall: float
    ndcg: float


@dataclass(frozen=True, eq=False)
class Validation:
    """Cold items whose users are known.

    Attributes:
        items: their vectors, float [V, h].
        truth: for each the user positions, int64.
    """

    items: npt.NDArray[np.floating]
    truth: Sequence[Positions]


def search(
    items: npt.NDArray[np.floating],
    landmarks: Positions,
    users: UserItems,
    validation: Validation,
    grid: Grid | None = None,
    progress: Progress = silent,
) -> tuple[Trial, list[Trial]]:
    """Try every point of a grid; the best has the highest NDCG@20, the earlier one where two are equal.

    Args:
        items: vectors of the training items, float [T, h].
        landmarks: positions of the landmarks among them, int64 [m].
        users: the training items of each user. Of very many users pass a sample, and ``validation`` with
            positions in it (:func:`sampled`).
        validation: cold items, none of them a training item.
        grid: the values; the default grid when not given.
        progress: counts points.

    Returns:
        the best trial, and all of them in grid order.

    Raises:
        UsageError: no validation item has a user, or a vector is zero or not finite.
    """
    grid = Grid() if grid is None else grid
    if not any(len(right) for right in validation.truth):
        raise UsageError("no validation item has a user", expected="pairs in cold_val of the users of train")
    counts = np.maximum(np.bincount(users.items, minlength=len(items)), 1)
    chosen = unit(items[landmarks])
    trials: list[Trial] = []
    for gamma in grid.gammas:
        features = ridge(Kernel(chosen, gamma), items)
        for penalty in grid.penalties:
            trials += _powers(features, penalty, counts, users, validation, grid)
            progress("closed form: grid", len(trials), len(grid))
    return max(trials, key=lambda trial: trial.ndcg), trials


def _powers(
    features: Ridge, penalty: float, counts: Positions, users: UserItems, validation: Validation, grid: Grid
) -> Iterator[Trial]:
    """Yield the trials of one g and lambda."""
    k = min(SELECTION_K, len(users))
    dampings = {power: torch.from_numpy(damping(users.sizes, power)) for power in grid.user_powers}
    best: dict[tuple[float, float], list[torch.Tensor]] = {
        (r, c): [] for r in grid.item_powers for c in grid.user_powers
    }
    for first in range(0, len(validation.items), _ITEMS_AT_ONCE):
        weights = features.weights(penalty, unit(validation.items[first : first + _ITEMS_AT_ONCE]))
        for r in grid.item_powers:
            weighted = (weights * (counts.astype(np.float64) ** -r)[:, None]).astype(np.float32)
            scores = torch.from_numpy(users.sums(weighted)).T.contiguous()
            for c, factors in dampings.items():
                best[r, c].append((scores * factors).topk(k, dim=1).indices)
    for (r, c), parts in best.items():
        ranking = Ranking.of(torch.cat(parts).numpy(), validation.truth)
        yield Trial(Setting(features.kernel.gamma, penalty, r, c), ranking.precision, ranking.recall, ranking.ndcg)


def sampled(users: UserItems, validation: Validation, most: int, seed: int) -> tuple[UserItems, Validation]:
    """Return at most ``most`` users chosen uniformly at random, and the validation items with their positions."""
    if len(users) <= most:
        return users, validation
    chosen = np.sort(np.random.default_rng(seed).choice(len(users), most, replace=False))
    places = np.full(len(users), -1, np.int64)
    places[chosen] = np.arange(most)
    truth = [places[right][places[right] >= 0] for right in validation.truth]
    return users.chosen(chosen), Validation(validation.items, truth)
