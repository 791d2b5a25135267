from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from fllm_export.link import EXPONENTIAL  # noqa: E402
from fllm_export.training.probabilities import (  # noqa: E402
    BETAS,
    LINK_GAIN,
    USER_POWERS,
    Probabilities,
    best_link,
    fit,
)

ITEMS, USERS = 400, 80


def world(scale, power, beta, seed=0):
    """Sums, and users drawn from softmax(scale size^-power sum + beta log size), 20 for every item."""
    generator = np.random.default_rng(seed)
    sums = generator.standard_normal((ITEMS, USERS)).astype(np.float32) * 0.02
    sizes = np.exp(generator.uniform(4, 9, USERS)).astype(np.int64)
    logits = scale * sums * sizes**-power + beta * np.log(sizes)
    p = np.exp(logits - logits.max(1, keepdims=True))
    users = [generator.choice(USERS, 20, p=row / row.sum()) for row in p]
    return sums, users, sizes


def negative_log(sums, users, sizes, scale, power, beta):
    """The mean of -log p in float64; an item does not count among the items of its own users."""
    counts = np.tile(sizes.astype(float), (len(users), 1))
    for item, liked in enumerate(users):
        counts[item, liked] -= 1
    logits = scale * sums.astype(float) * counts**-power + beta * np.log(counts)
    top = logits.max(1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(1))
    return np.mean(np.concatenate([total[i] - logits[i, liked] for i, liked in enumerate(users)]))


def all_alike(scale, power, beta):
    return 1.0


@pytest.mark.parametrize(("scale", "power", "beta"), [(60.0, 0.0, 0.0), (400.0, 0.3, 0.4), (1500.0, 0.5, 0.9)])
def test_the_numbers_that_made_the_pairs_are_found(scale, power, beta):
    sums, users, sizes = world(scale, power, beta)
    found = fit(sums, users, sizes, all_alike)
    assert found.user_power == pytest.approx(power, abs=0.1001)
    assert found.activity == pytest.approx(beta, abs=0.1001)
    typical = np.exp(6.5)
    assert found.scale * typical**-found.user_power == pytest.approx(scale * typical**-power, rel=0.1)
    numbers = found.scale, found.user_power, found.activity
    assert found.loss == pytest.approx(negative_log(sums, users, sizes, *numbers), abs=1e-4)
    assert found.loss <= negative_log(sums, users, sizes, scale, power, beta) + 1e-4
    assert found.loss < np.log(USERS)


def test_every_scale_is_the_best_of_a_fine_grid():
    sums, users, sizes = world(200.0, 0.2, 0.3)
    asked = []
    fit(sums, users, sizes, lambda *numbers: asked.append(numbers) or 1.0)
    assert [numbers[1:] for numbers in asked] == [(power, beta) for power in USER_POWERS for beta in BETAS]
    for scale, power, beta in asked[::23]:
        grid = scale * np.exp(np.linspace(-1, 1, 81))
        losses = np.array([negative_log(sums, users, sizes, each, power, beta) for each in grid])
        best = int(losses.argmin())
        assert abs(np.log(grid[best] / scale)) <= 0.0251
        # Falls to the best, then rises: one section is enough.
        assert np.all(np.diff(losses[: best + 1]) < 0)
        assert np.all(np.diff(losses[best:]) > 0)


@pytest.mark.parametrize("factor", [1e-6, 1e4])
def test_the_unit_of_the_scores_does_not_matter(factor):
    sums, users, sizes = world(50.0, 0.0, 0.3)
    one, other = (fit(s, users, sizes, all_alike) for s in (sums, sums * np.float32(factor)))
    assert (other.user_power, other.activity) == (one.user_power, one.activity)
    assert other.scale * factor == pytest.approx(one.scale, rel=0.03)
    assert other.loss == pytest.approx(one.loss, abs=1e-4)


def test_scores_that_say_nothing_get_hardly_any_weight():
    sums, _, sizes = world(50.0, 0.0, 0.0)
    generator = np.random.default_rng(1)
    users = [generator.choice(USERS, 20) for _ in range(ITEMS)]
    found = fit(sums, users, sizes, all_alike)
    assert found.loss == pytest.approx(np.log(USERS), abs=0.01)
    assert found.activity == 0


def test_what_costs_ndcg_is_not_taken():
    sums, users, sizes = world(60.0, 0.0, 0.8)
    free = fit(sums, users, sizes, lambda scale, power, beta: 0.5)
    assert free.activity == pytest.approx(0.8, abs=0.1001)
    held = fit(sums, users, sizes, lambda scale, power, beta: 0.5 - 0.005 * beta)
    assert held.activity == 0.5  # .5 - .0025 is 99.5 % of .5
    assert held.ndcg == pytest.approx(0.4975)
    assert held.loss > free.loss
    most = fit(sums, users, sizes, lambda scale, power, beta: power + beta)
    assert (most.user_power, most.activity) == (0.7, 1.0)


def test_biases_follow_activity():
    bias = Probabilities(2.0, 0.1, 0.5, loss=1.0, ndcg=0.3).bias(np.array([0, 1, 16]))
    assert bias.dtype == np.float32
    assert np.allclose(bias, [0, 0, 0.5 * np.log(16)])
    assert not Probabilities(2.0, 0.1, 0.0, 1.0, 0.3).bias(np.array([3, 9])).any()


def test_equal_scores_keep_their_unit():
    for sums in (np.zeros((1, 1), np.float32), np.full((3, 4), 0.2, np.float32)):
        sizes = np.full(sums.shape[1], 1)
        found = fit(sums, [np.array([0])] * len(sums), sizes, all_alike)
        assert (found.scale, np.isfinite(found.loss)) == (1.0, True)


def test_a_user_of_one_item_has_none_when_it_is_left_out():
    sums = np.array([[0.0, 0.3, 0.1], [0.2, 0.0, 0.3]], np.float32)
    found = fit(sums, [np.array([0]), np.array([1])], np.array([1, 1, 5]), all_alike)
    assert np.isfinite([found.scale, found.loss]).all()


def power_world(exponent, factor, beta, seed=3):
    """Sums, and users drawn with probabilities in proportion to 1 + max(s, 0)^g of scores s."""
    generator = np.random.default_rng(seed)
    sums = (generator.standard_t(4, (ITEMS, USERS)) * 0.02).astype(np.float32)
    sizes = np.exp(generator.uniform(4, 9, USERS)).astype(np.int64)
    weights = 1 + np.maximum(factor * (60 * sums + beta * np.log(sizes)), 0) ** exponent
    users = [generator.choice(USERS, 20, replace=True, p=row / row.sum()) for row in weights]
    return sums, users, sizes


@pytest.mark.parametrize("exponent", [2, 4])
def test_the_power_that_made_the_pairs_is_found(exponent):
    sums, users, sizes = power_world(exponent, 2.0, 0.0)
    found = fit(sums, users, sizes, all_alike)
    plain = fit(sums, users, sizes, all_alike, (EXPONENTIAL,))
    assert plain.link == EXPONENTIAL
    assert found.link.exponent in (exponent, exponent - 1)
    assert found.loss < plain.loss - LINK_GAIN
    scores = found.scale * sums.astype(float) * sizes**-found.user_power + found.activity * np.log(sizes)
    weights = 1 + np.maximum(scores, 0) ** found.link.exponent
    logs = np.log(weights / weights.sum(1, keepdims=True))
    # An item does not count among its users' items in the fit.
    loss = -np.mean([logs[item, liked] for item, liked in enumerate(users)])
    assert found.loss == pytest.approx(loss, abs=5e-3)


def test_a_power_ranks_as_the_exponential_does():
    """One factor multiplies scores and biases alike."""
    sums, users, sizes = power_world(2, 2.0, 0.1)
    asked = []
    found = fit(sums, users, sizes, lambda *numbers: asked.append(numbers) or 1.0)
    assert found.link.exponent > 0
    assert any(
        power == found.user_power and found.activity * scale == pytest.approx(found.scale * beta)
        for scale, power, beta in asked
    )


def test_a_power_must_gain_enough():
    sums, users, sizes = world(60.0, 0.0, 0.0)
    assert fit(sums, users, sizes, all_alike).link == EXPONENTIAL
    scores = torch.zeros(3, 5)
    pairs = torch.tensor([0, 1, 2]), torch.tensor([4, 4, 0])
    assert best_link(scores, pairs) == (EXPONENTIAL, 1.0, pytest.approx(np.log(5)))
