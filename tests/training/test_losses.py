from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from fllm_export.training.losses import bpr_loss, distribution_loss, guidance_loss  # noqa: E402


def naive_distribution_loss(scores, liked):
    losses = []
    for row, users in zip(scores, liked, strict=True):
        probabilities = np.exp(row) / np.exp(row).sum()
        losses.append(-sum(np.log(probabilities[u]) for u in users) / len(users))
    return np.mean(losses)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), items=st.integers(1, 6), users=st.integers(1, 12))
def test_distribution_loss_is_the_naive_formula(seed, items, users):
    generator = np.random.default_rng(seed)
    scores = generator.standard_normal((items, users)) * 3
    liked = [generator.choice(users, generator.integers(1, users + 1), replace=False) for _ in range(items)]
    rows = np.repeat(np.arange(items), [len(u) for u in liked])
    found = distribution_loss(torch.tensor(scores), torch.tensor(rows), torch.tensor(np.concatenate(liked)))
    assert float(found) == pytest.approx(naive_distribution_loss(scores, liked), rel=1e-9)


def test_each_item_weighs_the_same_whatever_its_number_of_users():
    scores = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    popular = distribution_loss(scores, torch.tensor([0, 1, 1, 1, 1]), torch.tensor([0, 0, 1, 2, 3]))
    rare = distribution_loss(scores, torch.tensor([0, 1]), torch.tensor([0, 2]))
    assert float(popular) == pytest.approx(float(rare))


def test_distribution_loss_survives_large_scores():
    loss = distribution_loss(torch.tensor([[1e4, 0.0]]), torch.tensor([0]), torch.tensor([1]))
    assert float(loss) == pytest.approx(1e4)


def test_the_gradient_is_softmax_minus_target():
    scores = torch.randn(1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    distribution_loss(scores, torch.tensor([0, 0]), torch.tensor([1, 3])).backward()
    expected = torch.softmax(scores.detach(), 1) - torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    assert torch.allclose(scores.grad, expected)


def test_guidance_loss_is_the_mean_over_batch_and_dimensions_and_leaves_the_targets_alone():
    z, targets = torch.tensor([[1.0, 2.0]], requires_grad=True), torch.tensor([[0.0, 4.0]], requires_grad=True)
    loss = guidance_loss(z, targets)
    loss.backward()
    assert float(loss) == pytest.approx(2.5)
    assert torch.equal(z.grad, torch.tensor([[1.0, -2.0]]))
    assert targets.grad is None


def test_bpr_loss_is_minus_log_sigmoid_of_the_difference():
    positive, negative = np.array([1.0, -2.0]), np.array([0.5, 3.0])
    expected = np.mean(-np.log(1 / (1 + np.exp(-(positive - negative)))))
    assert float(bpr_loss(torch.tensor(positive), torch.tensor(negative))) == pytest.approx(expected)
