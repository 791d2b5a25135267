from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from fllm_export.coldstart.recommender import BprRecommender
from fllm_export.coldstart.recommender_options import RecommenderOptions
from fllm_export.coldstart.training_pairs import TrainingPairs
from fllm_export.evaluation.dataset import COLD_SPLITS, Pairs

from .small_loop import random_dataset


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
