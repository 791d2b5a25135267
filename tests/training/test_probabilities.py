from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fllm_export.training.probabilities import BETAS, Probabilities, fit  # noqa: E402

ITEMS, USERS = 400, 80


def world(scale, beta, seed=0):
    """Scores, and users drawn from softmax(scale * score + beta * log size), 20 for every item."""
    generator = np.random.default_rng(seed)
    scores = generator.standard_normal((ITEMS, USERS)).astype(np.float32) * 0.02
    sizes = np.exp(generator.uniform(0, 5, USERS)).astype(np.int64)
    logits = scale * scores + beta * np.log(sizes)
    p = np.exp(logits - logits.max(1, keepdims=True))
    users = [generator.choice(USERS, 20, p=row / row.sum()) for row in p]
    return scores, users, sizes


def negative_log(scores, users, sizes, scale, beta):
    logits = scale * scores.astype(float) + beta * np.log(sizes)
    top = logits.max(1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(1))
    return np.mean(np.concatenate([total[i] - logits[i, liked] for i, liked in enumerate(users)]))


@pytest.mark.parametrize(("scale", "beta"), [(60.0, 0.0), (100.0, 0.4), (20.0, 0.9)])
def test_the_numbers_that_made_the_pairs_are_found(scale, beta):
    scores, users, sizes = world(scale, beta)
    found = fit(scores, users, sizes, lambda scale, beta: 1.0)
    assert found.activity == beta
    assert found.scale == pytest.approx(scale, rel=0.08)
    assert found.loss == pytest.approx(negative_log(scores, users, sizes, found.scale, beta), abs=1e-4)
    assert found.loss < np.log(USERS)


def test_the_scale_is_the_best_of_a_fine_grid():
    scores, users, sizes = world(50.0, 0.3)
    asked = []
    fit(scores, users, sizes, lambda scale, beta: asked.append((scale, beta)) or 1.0)
    assert [beta for _, beta in asked] == list(BETAS)
    for scale, beta in asked[::5]:
        grid = scale * np.exp(np.linspace(-1, 1, 81))
        losses = np.array([negative_log(scores, users, sizes, each, beta) for each in grid])
        best = int(losses.argmin())
        assert abs(np.log(grid[best] / scale)) <= 0.0251
        # Falls to the best, then rises: one section is enough.
        assert np.all(np.diff(losses[: best + 1]) < 0)
        assert np.all(np.diff(losses[best:]) > 0)


@pytest.mark.parametrize("factor", [1e-6, 1e4])
def test_the_unit_of_the_scores_does_not_matter(factor):
    scores, users, sizes = world(50.0, 0.3)
    one, other = (fit(s, users, sizes, lambda scale, beta: 1.0) for s in (scores, scores * np.float32(factor)))
    assert other.activity == one.activity
    assert other.scale * factor == pytest.approx(one.scale, rel=5e-3)
    assert other.loss == pytest.approx(one.loss, abs=1e-4)


def test_scores_that_say_nothing_get_hardly_any_weight():
    scores, _, sizes = world(50.0, 0.0)
    generator = np.random.default_rng(1)
    users = [generator.choice(USERS, 20) for _ in range(ITEMS)]
    found = fit(scores, users, sizes, lambda scale, beta: 1.0)
    assert found.scale * scores.std() < 0.05
    assert found.loss == pytest.approx(np.log(USERS), abs=0.01)


def test_a_beta_that_costs_recall_is_not_taken():
    scores, users, sizes = world(60.0, 0.8)
    free = fit(scores, users, sizes, lambda scale, beta: 0.5)
    assert free.activity == 0.8
    held = fit(scores, users, sizes, lambda scale, beta: 0.5 - 0.004 * beta)
    assert held.activity == 0.6  # .5 - .0024 is above 99.5 % of .5, .5 - .0028 is not
    assert held.recall == pytest.approx(0.4976)
    assert held.loss > free.loss
    most = fit(scores, users, sizes, lambda scale, beta: beta)
    assert most.activity == 1.0


def test_biases_follow_activity():
    bias = Probabilities(scale=2.0, activity=0.5, loss=1.0, recall=0.3).bias(np.array([0, 1, 16]))
    assert bias.dtype == np.float32
    assert np.allclose(bias, [0, 0, 0.5 * np.log(16)])
    assert not Probabilities(2.0, 0.0, 1.0, 0.3).bias(np.array([3, 9])).any()


def test_equal_scores_keep_their_unit():
    for scores in (np.zeros((1, 1), np.float32), np.full((3, 4), 0.2, np.float32)):
        found = fit(scores, [np.array([0])] * len(scores), np.arange(1, 1 + scores.shape[1]), lambda scale, beta: 1.0)
        assert (found.scale, np.isfinite(found.loss)) == (1.0, True)
