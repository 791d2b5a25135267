from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from fllm_export.coldstart.bipartite_graph import BipartiteGraph  # noqa: E402
from fllm_export.coldstart.models import LightGcn, Ngcf  # noqa: E402

USERS, ITEMS, DIM = 7, 9, 4


@pytest.fixture
def graph():
    """A random graph whose last three pairs are pseudo-interactions of the last item, and its dense matrices."""
    generator = np.random.default_rng(0)
    users, items = np.nonzero(generator.random((USERS, ITEMS - 1)) < 0.5)
    observed = len(users)
    users, items = np.append(users, [0, 2, 5]), np.append(items, [ITEMS - 1] * 3)
    weights = np.append(np.ones(observed), [0.5, 1.5, 1.0]).astype(np.float32)
    to_items = np.zeros((ITEMS, USERS))
    for user, item, weight in zip(users, items, weights, strict=True):
        of_user = np.count_nonzero(users[:observed] == user)
        to_items[item, user] = weight / np.sqrt(of_user * weights[items == item].sum())
    to_users = to_items.T.copy()
    to_users[:, ITEMS - 1] = 0
    made = BipartiteGraph.of(users, items, weights, observed, (USERS, ITEMS))
    return made, to_users, to_items


def vectors():
    generator = np.random.default_rng(1)
    return (generator.standard_normal((n, DIM)).astype(np.float32) for n in (USERS, ITEMS))


def test_propagation_is_the_dense_product_and_pseudo_edges_lead_to_items_alone(graph):
    made, to_users, to_items = graph
    users, items = vectors()
    found = made.propagate(torch.from_numpy(users), torch.from_numpy(items))
    np.testing.assert_allclose(found[0].numpy(), to_users @ items, atol=1e-6)
    np.testing.assert_allclose(found[1].numpy(), to_items @ users, atol=1e-6)


def test_the_gradient_of_propagation_is_the_transposed_product(graph):
    made, to_users, to_items = graph
    users, items = (torch.from_numpy(rows).requires_grad_() for rows in vectors())
    of_users, of_items = made.propagate(users, items)
    (2 * of_users.sum() + (of_items**2).sum()).backward()
    np.testing.assert_allclose(items.grad.numpy(), 2 * to_users.T @ np.ones((USERS, DIM)), atol=1e-5)
    np.testing.assert_allclose(users.grad.numpy(), 2 * to_items.T @ of_items.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_lightgcn_is_the_mean_of_its_layers(graph, layers):
    made, to_users, to_items = graph
    users, items = vectors()
    found = LightGcn(torch.from_numpy(users), torch.from_numpy(items), made, layers)()
    sums = [users.astype(float), items.astype(float)]
    for _ in range(layers):
        users, items = to_users @ items, to_items @ users
        sums = [sums[0] + users, sums[1] + items]
    for ours, dense in zip(found, sums, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), dense / (layers + 1), atol=1e-5)


def test_ngcf_is_its_formula(graph):
    made, to_users, to_items = graph
    users, items = vectors()
    model = Ngcf(torch.from_numpy(users), torch.from_numpy(items), made, 2, 0.0, 0).eval()
    found = [part.detach().numpy() for part in model()]
    expected = [[users], [items]]
    for sums, products in zip(model.sums, model.products, strict=True):
        one, two = sums.weight.detach().numpy().T, products.weight.detach().numpy().T
        near = to_users @ items, to_items @ users
        mixed = [(own + n) @ one + (own * n) @ two for own, n in zip((users, items), near, strict=True)]
        users, items = (np.where(rows > 0, rows, 0.2 * rows) for rows in mixed)
        for parts, rows in zip(expected, (users, items), strict=True):
            parts.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    for ours, parts in zip(found, expected, strict=True):
        assert ours.shape[1] == 3 * DIM
        np.testing.assert_allclose(ours, np.concatenate(parts, 1), atol=1e-5)


def test_ngcf_drops_in_training_alone_and_repeats_a_seed(graph):
    model = Ngcf(*(torch.from_numpy(rows) for rows in vectors()), graph[0], 1, 0.5, 0)
    model.reseed(5)
    first = model()[0].detach()
    model.reseed(5)
    assert torch.equal(first, model()[0])
    assert not torch.equal(first, model()[0])
    model.eval()
    assert torch.equal(model()[0], model()[0])
