from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fllm_export.training.head import Head  # noqa: E402
from fllm_export.training.vocabulary import Vocabulary  # noqa: E402

HIDDEN, DIM, USERS, ITEMS = 6, 4, 9, 50


def make(kind):
    torch.manual_seed(0)
    x = torch.randn(ITEMS, HIDDEN) * 7 + 3
    vocabulary = Vocabulary(torch.randn(USERS, DIM), x @ torch.randn(HIDDEN, DIM))
    return Head(kind, HIDDEN, vocabulary), x


@pytest.mark.parametrize("kind", ["linear", "linear_relu", "mlp"])
def test_the_folded_mapper_gives_the_same_vectors(kind):
    head, x = make(kind)
    head.fit(x, torch.arange(ITEMS))
    expected = head(x).detach().numpy()
    found = head.folded_mapper().apply(x.numpy())
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_the_fit_finds_a_linear_relation_and_standardises():
    head, x = make("linear")
    before = float((head(x) - head.targets).square().mean())
    head.fit(x, torch.arange(ITEMS))
    after = float((head(x) - head.targets).square().mean())
    assert after < 0.05 * before
    inputs = (x - head.centre) / head.scale
    assert torch.allclose(inputs.mean(0), torch.zeros(HIDDEN), atol=1e-5)
    assert float(inputs.norm(dim=1).mean()) == pytest.approx(1.0, rel=1e-4)


def test_training_moves_mapper_and_rows_but_never_the_guidance_targets():
    head, x = make("linear")
    targets = head.targets.clone()
    rows = head.user_rows.detach().clone()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    head.loss(x[:3], torch.arange(3), [torch.tensor([0, 1]), torch.tensor([2]), torch.tensor([3])], 10.0).backward()
    optimizer.step()
    assert torch.equal(head.targets, targets)
    assert not torch.equal(head.user_rows, rows)
    assert head.mapper.weight.grad.abs().sum() > 0
    assert "targets" not in head.state_dict()


def test_the_vocabulary_starts_the_rows_without_being_shared():
    vocabulary = Vocabulary(torch.ones(USERS, DIM), torch.zeros(ITEMS, DIM))
    head = Head("linear", HIDDEN, vocabulary)
    with torch.no_grad():
        head.user_rows.zero_()
    assert bool(vocabulary.users.all())
