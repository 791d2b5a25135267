from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from fllm_export.coldstart.ranked_lists import best_columns
from fllm_export.coldstart.ranking_tasks import RankingTasks
from fllm_export.evaluation.dataset import SPLITS

from .small_loop import random_dataset

K, DIM = 5, 3
COLD_FROM = 15


def liked(dataset, *splits):
    pairs = dataset.pairs(*splits)
    return set(zip(pairs.users.tolist(), pairs.items.tolist(), strict=True))


def brute(dataset, scores, task, protocol, tested):
    """Recall and NDCG of one task, user by user, by the words of the protocol."""
    split = {"cold": tested[1:], "warm": tested[:1], "overall": tested}[task]
    masked = liked(dataset, *(("train",) if protocol == "a" else (name for name in SPLITS if name not in tested)))
    recalls, ndcgs = [], []
    for user in range(len(dataset.user_ids)):
        truth = {item for who, item in liked(dataset, *split) if who == user}
        in_each = all(any(who == user for who, _ in liked(dataset, part)) for part in split)
        if not in_each:
            continue
        items = {"cold": range(COLD_FROM, 23), "warm": range(COLD_FROM), "overall": range(23)}[task]
        ranked = sorted((i for i in items if (user, i) not in masked), key=lambda i: -scores[user, i])[:K]
        gains = [1 / np.log2(rank + 2) for rank, item in enumerate(ranked) if item in truth]
        recalls.append(len(gains) / len(truth))
        ndcgs.append(sum(gains) / sum(1 / np.log2(rank + 2) for rank in range(min(K, len(truth)))))
    return np.mean(recalls), np.mean(ndcgs), len(recalls)


@pytest.mark.parametrize("protocol", ["a", "b", "validation"])
def test_the_tasks_are_those_of_brute_force(protocol):
    dataset = random_dataset()
    generator = np.random.default_rng(1)
    users = generator.standard_normal((len(dataset.user_ids), DIM)).astype(np.float32)
    items = generator.standard_normal((len(dataset.item_ids), DIM)).astype(np.float32)
    validation = protocol == "validation"
    tested = ("warm_val", "cold_val") if validation else ("warm_test", "cold_test")
    tasks = RankingTasks.validation(dataset) if validation else RankingTasks.of(dataset, protocol)
    found = tasks.measure(tasks.warm.best(users, items, K), tasks.cold.best(users, items, K), 0.7)
    scores = users @ items.T
    scores[:, COLD_FROM:] *= np.float32(0.7)
    for task, ranking in found.items():
        expected = brute(dataset, scores, task, "a" if validation else protocol, tested)
        assert (ranking.recall, ranking.ndcg, ranking.lists) == pytest.approx(expected)
    assert found["overall"].lists < len(users)


def test_both_evaluators_differ_where_validation_pairs_are_in_the_way():
    dataset = random_dataset()
    users, items = np.ones((len(dataset.user_ids), 1), np.float32), np.ones((len(dataset.item_ids), 1), np.float32)
    items[dataset.splits["cold_val"].items] = 2
    a, b = (RankingTasks.of(dataset, name) for name in ("a", "b"))
    recalls = [tasks.truth["cold"].measure(tasks.cold.best(users, items, K)).recall for tasks in (a, b)]
    assert recalls[0] < recalls[1]


def test_equal_numbers_keep_the_order_of_their_columns():
    scores = np.random.default_rng(0).integers(0, 4, (200, 30)).astype(np.float32)
    columns, values = best_columns(scores, 7)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :7]
    assert np.array_equal(columns, order)
    assert np.array_equal(values, np.take_along_axis(scores, order, 1))
