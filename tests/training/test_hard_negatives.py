from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fllm_export.training.hard_negatives import hard_negatives  # noqa: E402
from fllm_export.training.user_store import UserStore  # noqa: E402

USERS, DIM, ITEMS = 200, 8, 5


@pytest.fixture
def world(tmp_path):
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((USERS, DIM)).astype(np.float32)
    queries = generator.standard_normal((ITEMS, DIM)).astype(np.float32)
    scores = queries @ rows.T
    # The users of an item are among its best, as they are after training.
    liked = [np.sort(np.argsort(-row)[: 2 * item]) for item, row in enumerate(scores)]
    return UserStore.create(tmp_path / "store", [rows], USERS, DIM), queries, scores, liked


def test_no_hard_negative_likes_the_item(world, tmp_path):
    store, queries, _, liked = world
    found = hard_negatives(store, queries, liked, 10, tmp_path)
    assert [len(users) for users in found] == [10] * ITEMS
    assert not any(np.isin(users, own).any() for users, own in zip(found, liked, strict=True))


def test_they_are_the_best_of_the_others(world, tmp_path):
    store, queries, scores, liked = world
    for users, own, row in zip(hard_negatives(store, queries, liked, 10, tmp_path), liked, scores, strict=True):
        others = [user for user in np.argsort(-row) if user not in own][:10]
        # int8 can exchange neighbours at the end of the list.
        assert len(set(others) & set(users.tolist())) >= 9


def test_biases_count(world, tmp_path):
    store, queries, _, liked = world
    store.begin()
    loser = int(np.setdiff1d(np.arange(USERS), np.concatenate(liked))[0])
    store.step(np.array([loser]), torch.zeros(1, DIM), -torch.ones(1), (0.1, 100.0))
    assert all(users[0] == loser for users in hard_negatives(store, queries, liked, 3, tmp_path))


def test_an_item_that_most_of_the_best_like_gets_fewer(world, tmp_path):
    store, queries, scores, _ = world
    best = np.sort(np.argsort(-scores[0])[:36])
    assert len(hard_negatives(store, queries[:1], [best], 10, tmp_path)[0]) in range(2, 7)


def test_the_table_is_removed(world, tmp_path):
    store, queries, _, liked = world
    hard_negatives(store, queries, liked, 3, tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())
