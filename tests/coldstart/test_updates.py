"""Updates of item vectors against their definitions, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_export.coldstart.item_prior import ItemPrior, KnownItems
from fllm_export.coldstart.onboard_options import METHODS, OnboardOptions
from fllm_export.coldstart.updates import BprUpdate, PropagateUpdate, RidgeUpdate, least_squares, open_update
from fllm_export.coldstart.vectors import Vectors
from fllm_export.errors import UsageError

DIM = 8


def recommender(users: int = 400, items: int = 90, dim: int = DIM, seed: int = 0) -> Vectors:
    generator = np.random.default_rng(seed)
    return Vectors(
        np.arange(users),
        generator.standard_normal((users, dim)).astype(np.float32),
        np.arange(items),
        (generator.standard_normal((items, dim)) + 0.3).astype(np.float32),
    )


def drawn(count: int, n: int, seed: int, users: int = 400) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    places = np.stack([generator.choice(users, n, replace=False) for _ in range(count)])
    return places, generator.exponential(size=(count, n))


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 30), background=st.floats(0, 100), penalty=st.floats(0.01, 10))
def test_ridge_solves_the_normal_equations(seed: int, n: int, background: float, penalty: float) -> None:
    vectors = recommender(seed=seed)
    update = RidgeUpdate(vectors.users, ItemPrior.of(vectors, background, penalty), lift=1.7)
    places, weights = drawn(3, n, seed)
    found = update.vectors(places, weights)

    users = vectors.users.astype(np.float64)
    moments = users.T @ users / len(users)
    cost = background * moments + penalty * np.trace(moments) / DIM * np.eye(DIM)
    mean = vectors.items.astype(np.float64).mean(0)
    for row in range(3):
        own = users[places[row]]
        left = cost + (own.T * weights[row]) @ own
        expected = mean + np.linalg.solve(left, own.T @ (weights[row] * 1.7))
        # The moments are summed in float32.
        np.testing.assert_allclose(found[row], expected, rtol=2e-5, atol=2e-6)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 20), dim=st.integers(1, 12))
def test_both_forms_of_the_equations_agree(seed: int, n: int, dim: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((2, n, dim))
    weights, values = generator.exponential(size=(2, n)), generator.standard_normal((2, n))
    found = least_squares(rows, weights, values)
    for item in range(2):
        left = np.eye(dim) + (rows[item].T * weights[item]) @ rows[item]
        np.testing.assert_allclose(found[item], np.linalg.solve(left, rows[item].T @ (weights[item] * values[item])))


def test_users_of_weight_nought_change_nothing() -> None:
    generator = np.random.default_rng(3)
    rows, values = generator.standard_normal((1, 5, DIM)), generator.standard_normal((1, 5))
    weights = np.array([[1.0, 0.0, 2.0, 0.0, 0.5]])
    kept = [0, 2, 4]
    few = least_squares(rows[:, kept], weights[:, kept], values[:, kept])
    np.testing.assert_allclose(least_squares(rows, weights, values), few, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 5, 40])
def test_a_vector_is_the_same_bits_in_every_batch(method: str, n: int) -> None:
    vectors = recommender(dim=24)
    update = open_update(vectors, OnboardOptions(method=method, k=6), np.arange(1.0, 401.0))
    places, weights = drawn(13, n, 5)
    whole = update.vectors(places, weights)
    for size in (1, 2, 5, 12):
        cut = [update.vectors(places[at : at + size], weights[at : at + size]) for at in range(0, 13, size)]
        np.testing.assert_array_equal(np.concatenate(cut).view(np.uint32), whole.view(np.uint32))


def bpr_loss(update: BprUpdate, item: np.ndarray, places: np.ndarray, weights: np.ndarray) -> float:
    g = np.linalg.solve(update.prior.root, item - update.prior.mean)
    users = update.users[places].astype(np.float64)
    margins = (users @ item)[:, None] - users @ update.negatives.T
    return float(g @ g / 2 + weights @ np.logaddexp(0, -margins).mean(1))


def test_no_step_of_bpr_raises_the_loss_and_many_reach_the_minimum() -> None:
    vectors = recommender()
    places, weights = drawn(4, 6, 1)
    updates = {
        steps: open_update(vectors, OnboardOptions(method="bpr", steps=steps, negatives=50)) for steps in (1, 2, 4, 200)
    }
    for row in range(4):
        losses = []
        for update in updates.values():
            assert isinstance(update, BprUpdate)
            item = update.vectors(places[row : row + 1], weights[row : row + 1])[0].astype(np.float64)
            losses.append(bpr_loss(update, item, places[row], weights[row]))
        update = updates[200]
        assert isinstance(update, BprUpdate)
        start = bpr_loss(update, update.prior.mean, places[row], weights[row])
        assert start > losses[0] > losses[1] > losses[2] >= losses[3] - 1e-6
        best = update.vectors(places[row : row + 1], weights[row : row + 1])[0].astype(np.float64)
        generator = np.random.default_rng(row)
        for _ in range(20):
            near = best + 0.02 * generator.standard_normal(DIM)
            assert bpr_loss(update, near, places[row], weights[row]) > losses[3] - 1e-6


def test_propagation_is_the_normalised_mean_up_to_one_factor() -> None:
    vectors = recommender()
    degrees = np.random.default_rng(2).integers(1, 50, 400).astype(np.float64)
    update = open_update(vectors, OnboardOptions(method="propagate", k=5), degrees)
    assert isinstance(update, PropagateUpdate)
    places, weights = drawn(2, 7, 9)
    for row, found in enumerate(update.vectors(places, weights)):
        factors = weights[row] / np.sqrt(degrees[places[row]]) / np.sqrt(weights[row].sum())
        expected = factors @ vectors.users[places[row]].astype(np.float64)
        np.testing.assert_allclose(found, update.scale * expected, rtol=1e-5)


def test_propagated_known_items_keep_their_scores() -> None:
    vectors = recommender()
    update = open_update(vectors, OnboardOptions(method="propagate", k=5))
    known = KnownItems.drawn(vectors, 5, 0)
    again = update.vectors(known.places, np.ones(known.places.shape))
    users = vectors.users[known.places]
    scores = [np.mean(users @ items[:, :, None]) for items in (again, known.items)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


def test_known_items_by_ridge_stand_at_the_level_of_their_users_best_items() -> None:
    vectors = recommender()
    update = open_update(vectors, OnboardOptions(method="ridge", k=5))
    known = KnownItems.drawn(vectors, 5, 0)
    again = update.vectors(known.places, np.ones(known.places.shape))
    users = vectors.users[known.places].astype(np.float64)
    level = np.quantile(users @ vectors.items.T.astype(np.float64), 0.98, axis=2)
    assert np.mean(users @ again[:, :, None]) == pytest.approx(level.mean(), rel=1e-4)


def test_known_items_find_the_users_who_score_highest() -> None:
    vectors = recommender(users=70_000, items=5)
    known = KnownItems.drawn(vectors, 4, 0)
    scores = vectors.items @ vectors.users.T
    np.testing.assert_array_equal(known.places, np.argsort(-scores, axis=1, kind="stable")[:, :4])
    mean = vectors.items.mean(0, dtype=np.float64)
    top = np.take_along_axis((vectors.items - mean) @ vectors.users.T, known.places, 1)
    assert known.lift(known.items, mean) == pytest.approx(top.mean(), rel=1e-5)


def test_a_recommender_without_users_vectors_is_refused() -> None:
    zero = Vectors(np.arange(3), np.zeros((3, 2), np.float32), np.arange(2), np.ones((2, 2), np.float32))
    with pytest.raises(UsageError, match="all user vectors"):
        open_update(zero, OnboardOptions())


@pytest.mark.parametrize(
    "bad", [{"k": 0}, {"half_at": 0}, {"penalty": 0.0}, {"background": -1.0}, {"method": "als"}, {"weights": "log"}]
)
def test_options_are_checked(bad: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(bad))):
        OnboardOptions(**bad)
