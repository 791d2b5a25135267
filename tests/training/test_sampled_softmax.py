from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from fllm_export.errors import UsageError  # noqa: E402
from fllm_export.training.sampled_softmax import Candidates  # noqa: E402

ITEMS, USERS = 3, 40
LIKED = [[0, 7, 9], [7], [21, 39]]
CERTAIN = np.array([0, 7, 9, 7, 21, 39])


def scores_and_targets():
    scores = torch.randn(ITEMS, USERS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(ITEMS, USERS, dtype=torch.float64)
    for item, users in enumerate(LIKED):
        targets[item, users] = 1 / len(users)
    return scores.requires_grad_(), targets


def full(scores, targets):
    """The loss and the gradient of the whole softmax."""
    loss = -(torch.log_softmax(scores, 1) * targets).sum(1).mean()
    return loss.item(), torch.autograd.grad(loss, scores)[0]


def sampled(scores, targets, count, generator):
    drawn = Candidates.draw(CERTAIN, count, USERS, generator)
    at = torch.from_numpy(drawn.users)
    loss = drawn.loss(scores[:, at], targets[:, at])
    return loss.item(), torch.autograd.grad(loss, scores)[0]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), users=st.integers(1, 60), count=st.integers(1, 70))
def test_a_draw_has_the_certain_users_and_others_once_each(seed, users, count):
    generator = np.random.default_rng(seed)
    certain = generator.integers(0, users, generator.integers(0, 20))
    drawn = Candidates.draw(certain, count, users, generator)
    fixed = set(certain.tolist())
    others = [user for user in drawn.users.tolist() if user not in fixed]
    assert np.array_equal(drawn.users, np.unique(drawn.users))
    assert fixed <= set(drawn.users.tolist()) <= set(range(users))
    assert len(others) == min(count, users - len(fixed))
    # The weights stand for all users.
    assert float(drawn.log_weights.exp().sum()) == pytest.approx(users, rel=1e-5)


def test_every_other_user_is_drawn_equally_often():
    generator, counts = np.random.default_rng(0), np.zeros(USERS)
    for _ in range(4000):
        counts[Candidates.draw(CERTAIN, 7, USERS, generator).users] += 1
    fixed = np.unique(CERTAIN)
    assert (counts[fixed] == 4000).all()
    others = np.delete(counts, fixed) / 4000
    # Five standard deviations of a share of 4,000 draws.
    assert np.abs(others - 7 / (USERS - len(fixed))).max() < 5 * np.sqrt(0.2 * 0.8 / 4000)


def test_with_all_users_loss_and_gradient_are_those_of_the_full_softmax():
    scores, targets = scores_and_targets()
    expected, gradient = full(scores, targets)
    found, found_gradient = sampled(scores, targets, USERS, np.random.default_rng(0))
    assert found == pytest.approx(expected, rel=1e-12)
    assert torch.allclose(found_gradient, gradient, rtol=1e-12)


def test_the_expectation_of_z_is_that_of_the_full_softmax():
    scores, _ = scores_and_targets()
    expected, generator, found = scores.exp().sum(1), np.random.default_rng(0), []
    for _ in range(6000):
        drawn = Candidates.draw(CERTAIN, 5, USERS, generator)
        found.append((scores[:, torch.from_numpy(drawn.users)] + drawn.log_weights).exp().sum(1))
    assert torch.allclose(torch.stack(found).mean(0), expected, rtol=0.02)


def test_the_mean_gradient_comes_close_to_the_full_one_as_more_are_drawn():
    scores, targets = scores_and_targets()
    gradient, errors = full(scores, targets)[1], []
    for count in (2, 8, 24):
        generator = np.random.default_rng(1)
        mean = torch.stack([sampled(scores, targets, count, generator)[1] for _ in range(3000)]).mean(0)
        errors.append(float((mean - gradient).norm() / gradient.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


def test_a_distribution_over_all_users_is_softmax():
    scores, _ = scores_and_targets()
    drawn = Candidates.draw(CERTAIN, USERS, USERS, np.random.default_rng(0))
    assert torch.allclose(drawn.distribution(scores), torch.softmax(scores, 1))


def test_a_distribution_over_some_users_gives_drawn_ones_the_mass_of_those_they_stand_for():
    drawn = Candidates.draw(CERTAIN, 7, USERS, np.random.default_rng(0))
    found = drawn.distribution(torch.zeros(1, len(drawn.users)))[0]
    assert float(found[torch.from_numpy(drawn.places(np.unique(CERTAIN)))].sum()) == pytest.approx(5 / USERS)


def test_nothing_to_draw_is_refused():
    with pytest.raises(UsageError, match="sampled is 0"):
        Candidates.draw(CERTAIN, 0, USERS, np.random.default_rng(0))
