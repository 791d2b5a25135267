"""Kernel ridge regression of the interaction matrix on the item texts, in closed form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.evaluation.baselines.baseline import ColdItems, Params, Scores
from fllm_export.evaluation.baselines.held import HeldItems, Tally
from fllm_export.evaluation.baselines.kernel_system import KernelSystem, kernel_system
from fllm_export.evaluation.baselines.known import Known, Vectors, require_scipy

WIDTHS = (1.0, 2.0, 4.0, 8.0)
LAMBDAS = (1.0, 3.0, 10.0)
ITEM_POWERS = (0.0, 0.25, 0.5)
USER_POWERS = (0.0, 0.1, 0.2, 0.3, 0.4)
WITHOUT_CHOICE = {"g": 2.0, "lambda": 3.0, "r": 0.25, "c": 0.2}
"""What is taken where no item is held out to choose on, and where the search begins."""


@dataclass(frozen=True)
class Regression:
    """The fitted regression.

    Attributes:
        system: turns item vectors into weights of training items.
        liked: n_i^-r pop_u^-c of each training pair, a sparse matrix [U, T].
    """

    system: KernelSystem
    liked: Any

    def scores(self, items: ColdItems) -> Scores:
        """Return the regression's value for every user, float32 [B, U]."""
        assert items.vectors is not None
        return _spread(self.system.weights(items.vectors), self.liked)


@dataclass(frozen=True)
class KernelRidge:
    """Ranks users by kernel ridge regression: score = k(x, X) (K + lambda I)^-1 D_n Y D_u.

    k(a, b) = exp(g (a.b - 1)) on unit vectors, Y [T, U] the training pairs as ones, D_n = n_i^-r with n_i users of
    item i, D_u = pop_u^-c with pop_u items of user u. Exact where training items are at most 16,000; see
    :func:`kernel_system` for more.
    """

    name: str = "kernel ridge"
    reads_text: bool = True

    def choose(self, known: Known, held: HeldItems | None) -> Params:
        """Return the choice with the highest recall: first g at lambda 3, then lambda at that g; r and c at each.

        The grid is g 1, 2, 4, 8; lambda 1, 3, 10; r 0, .25, .5; c 0, .1, .2, .3, .4. Each pair of g and lambda takes
        one factorisation, which all r and c share.
        """
        if held is None or held.vectors is None:
            return WITHOUT_CHOICE
        tally = Tally()
        likes = known.likes.tocsc()[:, held.users].T.tocsr()
        search = _Search(known, held, held.vectors, likes, tally)
        for g in WIDTHS:
            search.try_all(g, [WITHOUT_CHOICE["lambda"]])
        best_g = tally.best()[0]
        search.try_all(best_g, [value for value in LAMBDAS if value != WITHOUT_CHOICE["lambda"]])
        return dict(zip(("g", "lambda", "r", "c"), tally.best(), strict=True))

    def fit(self, known: Known, params: Params) -> Regression:
        """Factorise the kernel matrix of the training items, and weight the training pairs."""
        diagonal = require_scipy("scipy.sparse").diags
        system = kernel_system(known.texts, params["g"]).factorised(params["lambda"])
        items = _powered(known.popularity, params["r"])
        users = _powered(known.activity, params["c"])
        return Regression(system, (diagonal(users) @ known.likes.T @ diagonal(items)).tocsr())


@dataclass(frozen=True)
class _Search:
    known: Known
    held: HeldItems
    vectors: Vectors
    likes: Any
    tally: Tally

    def try_all(self, g: float, lambdas: list[float]) -> None:
        """Measure every r and c for each lambda; what depends on g alone is computed once."""
        system = kernel_system(self.known.texts, g)
        for value in lambdas:
            solved = system.factorised(value)
            for window in self.held.blocks(len(self.known.items)):
                self._try_weights(g, value, window, solved)

    def _try_weights(self, g: float, value: float, window: slice, solved: KernelSystem) -> None:
        parts = list(solved.weights(self.vectors[window]))
        users = self.known.activity[self.held.users]
        for r in ITEM_POWERS:
            items = _powered(self.known.popularity, r)
            scores = _spread(((part, weights * items[part]) for part, weights in parts), self.likes)
            for c in USER_POWERS:
                found = self.held.recalls(window, scores * _powered(users, c))
                self.tally.add((g, value, r, c), found)


def _spread(parts: Iterable[tuple[slice, Vectors]], liked: Any) -> Scores:
    """Return the sum of the users' liked items by weight, float32 [B, U]; ``liked`` is sparse [U, T]."""
    found: Scores | None = None
    for window, weights in parts:
        columns = liked if window == slice(0, liked.shape[1]) else liked[:, window]
        part: Scores = (columns @ weights.T).T
        found = part if found is None else found + part
    assert found is not None
    return found


def _powered(counts: npt.NDArray[np.int64], power: float) -> npt.NDArray[np.float32]:
    """Return n^-power, float32; 0 counts as 1."""
    found: npt.NDArray[np.float32] = (np.maximum(counts, 1) ** -power).astype(np.float32)
    return found
