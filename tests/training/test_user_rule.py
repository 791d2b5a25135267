"""The rule that a checkpoint carries makes the rows that training made."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")

from fllm_export.table.learner import Learner
from fllm_export.training.closed_form import ClosedForm, Setting
from fllm_export.training.fitted_form import FittedForm
from fllm_export.training.landmarks import choose_landmarks
from fllm_export.training.probabilities import Probabilities
from fllm_export.training.user_sums import UserItems

ITEMS, USERS = 90, 70
GENERATOR = np.random.default_rng(4)
VECTORS = GENERATOR.standard_normal((ITEMS, 12)).astype(np.float32)


def interactions() -> UserItems:
    """Users with their items, ascending."""
    pairs = np.argwhere(GENERATOR.random((USERS, ITEMS)) < 0.2)
    pairs = np.concatenate([pairs, [[user, user] for user in range(USERS)]])
    return UserItems.of(*np.unique(pairs, axis=0).T, USERS)


@pytest.mark.parametrize("dim", [None, 10])
def test_learned_rows_are_those_of_a_full_retraining_with_the_same_m(dim: int | None) -> None:
    users = interactions()
    counts = np.maximum(np.bincount(users.items, minlength=ITEMS), 1)
    form = ClosedForm.fit(VECTORS, choose_landmarks(VECTORS, 32), counts, Setting(2.0, 0.5, 0.25, 0.3))
    if dim is not None:
        form = form.project(dim, users)
    fitted = FittedForm(form, {}, Probabilities(7.5, 0.3, 0.2, 0.0, 0.0), None, None)  # type: ignore[arg-type]
    rule = fitted.rule(np.arange(ITEMS), users, bias=True)
    assert rule is not None
    learner = Learner.of(rule.item_ids, rule.contributions, rule.user_power, rule.activity)
    wanted = fitted.rows(users)
    found = learner.rows(rule.starts, rule.items)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
    np.testing.assert_array_equal(learner.bias(rule.starts), fitted.bias(users))
    # Bit for bit in float64: a sparse matrix product, which adds in an order of its own.
    weights = users.matrix(np.ones(ITEMS), np.ones(USERS))
    sums = weights @ learner.contributions.astype(np.float64)
    factors = np.array([float(size) ** -rule.user_power for size in users.sizes.tolist()])
    np.testing.assert_array_equal(learner.exact_rows(rule.starts, rule.items), sums * factors[:, None])
