from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fllm_export.evaluation.dataset import Pairs  # noqa: E402
from fllm_export.evaluation.metrics import Ranking  # noqa: E402
from fllm_export.training.recipe import SoftmaxRecipe  # noqa: E402
from fllm_export.training.vocabulary import build_vocabulary  # noqa: E402

GROUPS, USERS, ITEMS = 4, 40, 60


def grouped_pairs():
    """Users like items of their own group (number modulo 4); half of those pairs are held out."""
    users, items = np.meshgrid(np.arange(USERS), np.arange(ITEMS), indexing="ij")
    same = users % GROUPS == items % GROUPS
    shown = np.random.default_rng(0).random(same.shape) < 0.5
    train, held_out = np.nonzero(same & shown), np.nonzero(same & ~shown)
    return Pairs(*(a.astype(np.int64) for a in train)), Pairs(*(a.astype(np.int64) for a in held_out))


def recall(vocabulary, train, held_out):
    scores = (vocabulary.items @ vocabulary.users.T).numpy()
    scores[train.items, train.users] = -np.inf
    return Ranking.of(np.argsort(-scores, 1)[:, :10], held_out.users_of(np.arange(ITEMS))).recall


def test_it_learns_which_users_like_an_item():
    train, held_out = grouped_pairs()
    recipe = SoftmaxRecipe(dim=8, vocabulary_batch=64, vocabulary_epochs=1)
    before = recall(build_vocabulary(train, USERS, ITEMS, recipe), train, held_out)
    trained = build_vocabulary(train, USERS, ITEMS, SoftmaxRecipe(dim=8, vocabulary_batch=64, vocabulary_epochs=40))
    after = recall(trained, train, held_out)
    assert before < 0.7
    assert after > 0.95


def test_a_seed_decides_everything_and_untrained_items_are_zero():
    train, _ = grouped_pairs()
    recipe = SoftmaxRecipe(dim=4, vocabulary_epochs=2)
    first = build_vocabulary(train, USERS, ITEMS + 2, recipe)
    again = build_vocabulary(train, USERS, ITEMS + 2, recipe)
    other = build_vocabulary(train, USERS, ITEMS + 2, SoftmaxRecipe(dim=4, vocabulary_epochs=2, seed=1))
    assert torch.equal(first.users, again.users)
    assert not torch.equal(first.users, other.users)
    assert not first.items[ITEMS:].any()
    assert not first.users.requires_grad
    assert not first.items.requires_grad
