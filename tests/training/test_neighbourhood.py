from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
hypothesis = pytest.importorskip("hypothesis")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from fllm_export.errors import UsageError  # noqa: E402
from fllm_export.training import neighbourhood as module  # noqa: E402
from fllm_export.training.neighbourhood import Neighbourhood  # noqa: E402
from fllm_export.training.user_sums import UserItems  # noqa: E402

SEEDS = st.integers(0, 2**32 - 1)
SPREAD = 0.05


def world(seed=0, items=14, users=9, dims=5):
    """Vectors of any length, and who likes which item: every item has a user, and one user has a single item."""
    generator = np.random.default_rng(seed)
    liked = generator.random((items, users)) < 0.3
    liked[np.arange(items), generator.integers(0, users - 1, items)] = True
    liked[:, -1] = np.arange(items) == 3
    return torch.from_numpy(generator.standard_normal((items, dims)).astype(np.float32) * 3), liked


def neighbourhood(states, liked, seed=0):
    items, users = np.nonzero(liked)
    return Neighbourhood(states, UserItems.of(users, items, liked.shape[1]), [np.flatnonzero(r) for r in liked], seed)


def expected(states, liked, asked, kappa=20.0, bank=None):
    """The docstring's formulas, a user and an item at a time, in float64; ``bank`` is who can be a neighbour."""
    x = states.double().numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    bank = np.arange(len(x)) if bank is None else bank
    losses = []
    for i in asked:
        others = bank[bank != i]
        w = np.exp(kappa * (x[others] @ x[i]))
        w /= w.sum()
        mine = np.flatnonzero(liked[i])
        logs = []
        for u in mine:
            share = sum(w[place] / liked[j].sum() for place, j in enumerate(others) if liked[j, u])
            logs.append(np.log((1 - SPREAD) * share + SPREAD / liked.shape[1]))
        losses.append(-np.mean(logs))
    return np.mean(losses)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 14))
def test_the_loss_is_that_of_the_formulas(seed, count):
    states, liked = world(seed)
    asked = np.random.default_rng(seed).permutation(14)[:count]
    found = neighbourhood(states, liked).loss(states[asked], asked)
    assert found.item() == pytest.approx(expected(states, liked, asked), rel=1e-4)


def test_p_is_a_distribution_over_users():
    # With every user as the item's only one in turn, the losses are all of -log p(u | item 0).
    states, liked = world()
    total = 0.0
    for user in range(liked.shape[1]):
        mine = liked.copy()
        mine[0] = np.arange(liked.shape[1]) == user
        total += np.exp(-neighbourhood(states, mine).loss(states[:1], np.array([0])).item())
    assert total == pytest.approx(1, abs=1e-5)


def test_an_item_has_no_part_in_its_own_loss():
    # User 8 likes item 3 alone, so nobody else can speak for that user: only the evenly spread share is left.
    states, liked = world()
    liked[3] = np.arange(9) == 8
    whole = neighbourhood(states, liked)
    assert whole.loss(states[[3]], np.array([3])).item() == pytest.approx(-np.log(SPREAD / 9), abs=1e-5)
    # Its own old vector in the bank does not matter either.
    moved = states.clone()
    moved[5] = -moved[5]
    one, other = neighbourhood(states, liked), neighbourhood(moved, liked)
    assert one.loss(states[[5]], np.array([5])).item() == other.loss(states[[5]], np.array([5])).item()


def test_gradients_are_those_of_finite_differences():
    states, liked = world()
    asked = np.array([2, 7, 3, 11])
    x = states[asked].double().requires_grad_()
    loss = neighbourhood(states.double(), liked).double()
    loss.loss(x, asked).backward()
    step = 1e-5
    for row, column in ((0, 0), (1, 3), (2, 4), (3, 1)):
        around = []
        for sign in (-1, 1):
            moved = states.double()
            moved[asked[row], column] += sign * step
            around.append(expected(moved, liked, asked))
        assert float(x.grad[row, column]) == pytest.approx((around[1] - around[0]) / (2 * step), rel=1e-3, abs=1e-6)
    kappas = [expected(states, liked, asked, kappa=20 * np.exp(sign * step)) for sign in (-1, 1)]
    assert float(loss.log_sharpness.grad) == pytest.approx((kappas[1] - kappas[0]) / (2 * step), rel=1e-3)


def test_a_batch_is_remembered_and_all_items_are_renewed():
    states, liked = world()
    changed = torch.flip(states, [1])
    kept = neighbourhood(states, liked)
    kept.loss(changed[[1, 4]].requires_grad_(), np.array([1, 4]))
    mixed = states.clone()
    mixed[[1, 4]] = changed[[1, 4]]
    assert not kept.bank.requires_grad
    assert kept.loss(mixed[[6]], np.array([6])).item() == pytest.approx(expected(mixed, liked, [6]), rel=1e-4)
    kept.renew(changed)
    assert kept.loss(changed[[6]], np.array([6])).item() == pytest.approx(expected(changed, liked, [6]), rel=1e-4)


def test_of_very_many_items_some_are_neighbours(monkeypatch):
    monkeypatch.setattr(module, "_NEIGHBOURS_MOST", 6)
    states, liked = world()
    found = neighbourhood(states, liked, seed=3)
    bank = np.sort(np.random.default_rng(3).choice(14, 6, replace=False))
    assert found.bank.shape == (6, 5)
    for asked in (np.arange(14), bank[:2], np.setdiff1d(np.arange(14), bank)):
        loss = found.loss(states[asked], asked)
        assert loss.item() == pytest.approx(expected(states, liked, asked, bank=bank), rel=1e-4)
    found.renew(-states)
    assert torch.equal(found.bank, -neighbourhood(states, liked, seed=3).bank)


def test_of_very_many_users_some_count_in_a_step(monkeypatch):
    states, liked = world()
    liked[0, :6] = True
    every = {}
    for user in range(9):
        mine = liked[0] * 0
        mine[user] = 1
        one = liked.copy()
        one[0] = mine
        every[user] = neighbourhood(states, one).loss(states[:1], np.array([0])).item()
    monkeypatch.setattr(module, "_USERS_MOST", 2)
    found, seen = neighbourhood(states, liked), []
    for seed in range(6):
        torch.manual_seed(seed)
        drawn = np.flatnonzero(liked[0])[torch.randperm(liked[0].sum())[:2].numpy()]
        torch.manual_seed(seed)
        loss = found.loss(states[:1], np.array([0])).item()
        assert loss == pytest.approx(np.mean([every[user] for user in drawn]), rel=1e-4)
        seen.append(loss)
    assert len(set(seen)) > 1


def test_items_of_the_same_users_become_neighbours():
    generator = np.random.default_rng(0)
    groups = np.arange(40) % 4
    liked = (groups[:, None] == np.arange(20) % 4) & (generator.random((40, 20)) < 0.7)
    liked[np.arange(40), groups] = True
    states = torch.from_numpy(generator.standard_normal((40, 16)).astype(np.float32)).requires_grad_()
    learned, asked = neighbourhood(states.detach(), liked), np.arange(40)
    optimizer = torch.optim.Adam([states, *learned.parameters()], lr=0.05)
    losses = []
    for _ in range(40):
        loss = learned.loss(states, asked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    near = torch.nn.functional.normalize(states.detach(), dim=1)
    nearest = (near @ near.T - 2 * torch.eye(40)).argmax(1).numpy()
    assert (groups[nearest] == groups).mean() > 0.9


def test_one_item_has_no_neighbours():
    states, liked = world()
    with pytest.raises(UsageError, match="1 training items; expected at least 2"):
        neighbourhood(states[:1], liked[:1])
