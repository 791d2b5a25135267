from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fllm_export.evaluation.best_lists import BestItems, best_users
from fllm_export.evaluation.cold_split import ColdSplit
from fllm_export.evaluation.dataset import Pairs


@given(seed=st.integers(0, 2**32 - 1), users=st.integers(1, 60), levels=st.integers(1, 60), data=st.data())
def test_best_users_are_a_stable_sort_whatever_ties(seed, users, levels, data):
    k = data.draw(st.integers(1, users))
    scores = np.random.default_rng(seed).integers(0, levels, (4, users)).astype(np.float32)
    assert np.array_equal(best_users(scores, k), np.argsort(-scores, axis=1, kind="stable")[:, :k])


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 12), k=st.integers(1, 12))
def test_lists_of_users_do_not_depend_on_the_blocks(seed, size, k):
    generator = np.random.default_rng(seed)
    candidates, users = np.arange(5, 17), np.array([1, 4, 6])
    masked = Pairs(generator.integers(0, 8, 20), generator.integers(5, 17, 20))
    split = ColdSplit("cold_test", 8, candidates, candidates, [], users, [], {"B": masked})
    scores = generator.integers(0, 5, (12, 8)).astype(np.float32)
    lists = BestItems(split, masked, k)
    for start in range(0, 12, size):
        lists.add(slice(start, start + size), scores[start : start + size])
    scores[masked.items - 5, masked.users] = -np.inf
    turns = np.random.default_rng(0).permutation(12)
    order = np.lexsort((np.broadcast_to(turns, (3, 12)), -scores[:, users].T), axis=1)
    assert np.array_equal(lists.items(), candidates[order[:, :k]])


def test_items_with_equal_scores_are_not_in_the_order_of_their_ids():
    candidates, users = np.arange(400), np.arange(5)
    split = ColdSplit("cold_test", 5, candidates, candidates, [], users, [], {})
    lists = BestItems(split, Pairs(np.array([], np.int64), np.array([], np.int64)), 100)
    lists.add(slice(0, 400), np.zeros((400, 5), np.float32))
    assert abs(lists.items().mean() - 200) < 40
