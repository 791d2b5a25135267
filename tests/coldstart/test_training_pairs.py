from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from fllm_export.coldstart.pseudo_pairs import PseudoPairs
from fllm_export.coldstart.recommender import BprRecommender
from fllm_export.coldstart.recommender_options import RecommenderOptions
from fllm_export.coldstart.training_pairs import TrainingPairs
from fllm_export.errors import UsageError
from fllm_export.evaluation.dataset import COLD_SPLITS, Pairs

from .small_loop import random_dataset

PSEUDO = PseudoPairs([150, 220], [[0, 30], [110, 20]], [[0.3, 0.1], [0.2, 0.2]])


def test_observed_pairs_come_first_and_pseudo_pairs_weigh_their_share():
    dataset = random_dataset()
    pairs = TrainingPairs.of(dataset, PSEUDO, pseudo_weight=0.5)
    train = dataset.splits["train"]
    assert np.array_equal(pairs.pairs.users[: pairs.observed], train.users)
    assert pairs.pairs.users[pairs.observed :].tolist() == [0, 3, 11, 2]
    assert pairs.pairs.items[pairs.observed :].tolist() == [15, 15, 22, 22]
    assert pairs.weights[pairs.observed :] == pytest.approx([0.75, 0.25, 0.5, 0.5])
    assert set(pairs.weights[: pairs.observed]) == {1.0}


def test_no_cold_pair_is_in_them():
    dataset = random_dataset()
    pairs = TrainingPairs.of(dataset)
    cold = dataset.pairs(*COLD_SPLITS).distinct_items
    assert not np.isin(pairs.pairs.items, cold).any()
    assert not np.isin(pairs.validation.items, cold).any()
    everybody = Pairs(*(part.ravel() for part in np.meshgrid(np.arange(12), cold)))
    poisoned = replace(dataset, splits={**dataset.splits, "cold_test": everybody})
    fit = BprRecommender(RecommenderOptions.default("lightgcn", dim=4, epochs=2, batch=32)).fit
    ours, theirs = fit(pairs), fit(TrainingPairs.of(poisoned))
    assert np.array_equal(ours.items, theirs.items)
    assert np.array_equal(ours.users, theirs.users)
    assert not np.isin(ours.item_ids, dataset.item_ids[cold]).any()


@pytest.mark.parametrize(
    ("item", "user", "words"),
    [(10, 0, "item 10 has pseudo-interactions and is not cold"), (151, 0, "item 151"), (150, 5, "user 5 is not in")],
)
def test_pairs_of_others_are_refused(item, user, words):
    with pytest.raises(UsageError, match=words):
        TrainingPairs.of(random_dataset(), PseudoPairs([item], [[user]], [[0.5]]))
