from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fllm_export.coldstart.bpr import Triples, TripleSource, bpr_loss, penalty  # noqa: E402


def triples():
    users, liked, others = torch.tensor([0, 1, 0, 2]), torch.tensor([1, 1, 3, 0]), torch.tensor([0, 2, 2, 3])
    return Triples(users, liked, others, torch.tensor([1.0, 0.5, 2.0, 1.0]))


def numbers():
    generator = np.random.default_rng(0)
    return [generator.standard_normal((n, 3)) for n in (3, 4)]


def value(users, items, decay):
    """The loss by its formula, in float64 and without torch."""
    total = 0.0
    for u, i, j, weight in zip(*(part.tolist() for part in vars(triples()).values()), strict=True):
        total += weight * np.log1p(np.exp(-(users[u] @ (items[i] - items[j]))))
        total += decay / 2 * sum(float(rows @ rows) for rows in (users[u], items[i], items[j]))
    return total / 4


def test_the_loss_and_its_gradient_are_those_of_finite_differences():
    users, items = numbers()
    parameters = [torch.from_numpy(rows.copy()).requires_grad_() for rows in (users, items)]
    loss = bpr_loss(*parameters, triples()) + 0.3 * penalty(*parameters, triples())
    assert loss.item() == pytest.approx(value(users, items, 0.3), rel=1e-6)
    loss.backward()
    for side, rows in enumerate((users, items)):
        for place in np.ndindex(rows.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [users.copy(), items.copy()]
                moved[side][place] += step
                ends.append(value(*moved, 0.3))
            slope = (ends[0] - ends[1]) / 2e-5
            assert parameters[side].grad[place].item() == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_an_epoch_has_each_pair_once_and_no_negative_is_known():
    users = torch.arange(60) % 6
    items = torch.arange(60) // 6 + users
    known = set(zip(users.tolist(), items.tolist(), strict=True))
    source = TripleSource(users, items, torch.ones(60), 40)
    generator = torch.Generator().manual_seed(0)
    batches = source.batches(16, generator)
    assert torch.cat(batches).sort().values.tolist() == list(range(60))
    for pairs in batches:
        found = source.triples(pairs, generator)
        assert set(zip(found.users.tolist(), found.liked.tolist(), strict=True)) <= known
        assert not set(zip(found.users.tolist(), found.others.tolist(), strict=True)) & known
        assert int(found.others.max()) < 40
