from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")

from fllm_export.evaluation.baselines import BASELINES, ColdItems, HeldItems, Known
from fllm_export.evaluation.baselines.centroid import UserCentroid
from fllm_export.evaluation.baselines.chance import RandomUsers
from fllm_export.evaluation.baselines.held import Tally
from fllm_export.evaluation.baselines.known import unit
from fllm_export.evaluation.baselines.popularity import MostActive
from fllm_export.evaluation.baselines.text_knn import TextKnn
from fllm_export.evaluation.dataset import SPLITS, Dataset, Pairs
from fllm_export.evaluation.metrics import Ranking

VECTORS = np.array([[1, 0], [0, 1], [3, 4]], np.float32)


def by_hand() -> Known:
    """Users 0 and 1 like item 0, user 1 likes items 1 and 2; item 3 is cold."""
    pairs = {name: Pairs(np.array([], np.int64), np.array([], np.int64)) for name in SPLITS}
    pairs["train"] = Pairs(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 2]))
    return Known.of(Dataset(np.arange(4), ("",) * 4, np.array([10, 20]), pairs, ""), VECTORS)


def cold(vector: list[float]) -> ColdItems:
    return ColdItems(np.array([3]), unit(np.array([vector])))


def test_activity_is_the_number_of_training_items():
    assert MostActive().fit(by_hand(), {}).scores(cold([1, 0])).tolist() == [[1, 3]]


def test_a_centroid_is_the_direction_of_the_summed_unit_vectors():
    total = np.array([1.6, 1.8])  # (1, 0) + (0, 1) + (0.6, 0.8)
    found = UserCentroid().fit(by_hand(), {}).scores(cold([0, 5]))
    assert found[0] == pytest.approx([0, 1.8 / np.linalg.norm(total)])


def test_neighbours_give_their_users_the_power_of_the_cosine():
    # Cosines of (1, 0): 1 with item 0, 0.6 with item 2, 0 with item 1.
    found = TextKnn().fit(by_hand(), {"k": 2, "p": 2.0}).scores(cold([2, 0]))
    assert found[0] == pytest.approx([1, 1 + 0.36])


def test_a_negative_cosine_counts_as_nothing():
    found = TextKnn().fit(by_hand(), {"k": 200, "p": 1.0}).scores(cold([-1, 0]))
    assert found.tolist() == [[0, 0]]


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: baseline.name)
def test_scores_do_not_depend_on_how_items_are_grouped(baseline, small):
    data = small.dataset
    known = Known.of(data, small.vectors[data.splits["train"].distinct_items])
    items = np.arange(30, 50)
    wanted = ColdItems(items, unit(small.vectors[items]))
    model = baseline.fit(known, baseline.choose(known, None))
    whole = model.scores(wanted)
    assert whole.shape == (20, len(data.user_ids))
    parts = np.concatenate([model.scores(block) for block in wanted.blocks(7)])
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


def test_random_scores_follow_the_seed_and_the_item():
    known, items = by_hand(), ColdItems(np.array([3, 5]), None)
    first = RandomUsers().fit(known, {}).scores(items)
    assert np.array_equal(first, RandomUsers().fit(known, {}).scores(items))
    assert not np.array_equal(first, RandomUsers(seed=1).fit(known, {}).scores(items))
    assert not np.array_equal(first[0], first[1])


def test_recall_on_held_items_is_the_metric_of_the_evaluation(small):
    items, users = HeldItems.sample(small.dataset)
    held = HeldItems.of(small.dataset, items, users, None)
    scores = np.random.default_rng(0).random((len(items), len(users)))
    best = np.argsort(-scores, axis=1)[:, :20]
    expected = Ranking.of(best, small.dataset.splits["cold_val"].users_of(items)).recall
    parts = [held.recalls(window, scores[window]) for window in held.blocks(1 << 23)]
    assert len(parts) > 1
    assert np.concatenate(parts).mean() == pytest.approx(expected)


def test_large_data_sets_are_chosen_on_a_fixed_part_of_users_and_items(small, monkeypatch):
    monkeypatch.setattr("fllm_export.evaluation.baselines.held.MOST_USERS", 25)
    monkeypatch.setattr("fllm_export.evaluation.baselines.held.MOST_ITEMS", 6)
    items, users = HeldItems.sample(small.dataset)
    assert (len(items), len(users)) == (6, 25)
    assert all(np.array_equal(a, b) for a, b in zip(HeldItems.sample(small.dataset), (items, users), strict=True))
    held = HeldItems.of(small.dataset, items, users, small.vectors[items])
    truth = [np.intersect1d(liked, users) for liked in small.dataset.splits["cold_val"].users_of(items)]
    assert held.sizes.tolist() == [len(liked) for liked in truth]
    perfect = np.array([np.isin(users, liked) for liked in truth], float)
    assert held.recalls(slice(0, 6), perfect) == pytest.approx(np.minimum(1, 20 / held.sizes))
    known = Known.of(small.dataset, small.vectors[:30])
    for baseline in BASELINES:
        assert baseline.fit(known, baseline.choose(known, held)).scores(ColdItems(items, held.vectors)).shape[0] == 6


def test_the_choice_has_the_highest_recall_and_ties_go_to_the_first():
    tally = Tally()
    for params, recall in (((1.0,), 0.5), ((2.0,), 0.75), ((3.0,), 0.75), ((1.0,), 0.25)):
        tally.add(params, np.array([recall]))
    assert tally.best() == (1.0,)
    tally.add((2.0,), np.array([0.1]))
    assert tally.best() == (2.0,)
