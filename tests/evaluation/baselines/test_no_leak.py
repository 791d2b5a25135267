"""No cold pair enters the fit of a baseline, and pairs of ``cold_val`` choose hyper-parameters and nothing else."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

sparse = pytest.importorskip("scipy.sparse")

from fllm_export.evaluation.baselines import BASELINES, HeldItems, Known  # noqa: E402
from fllm_export.evaluation.baselines.fitting import FittedBaseline, fit_baselines  # noqa: E402
from fllm_export.evaluation.dataset import Pairs  # noqa: E402


def state(value: Any) -> list[np.ndarray]:
    """Return every array and number that a fitted baseline holds."""
    if is_dataclass(value):
        return [array for field in fields(value) for array in state(getattr(value, field.name))]
    if sparse.issparse(value):
        return state(value.toarray())
    if isinstance(value, tuple):
        return [array for part in value for array in state(part)]
    return [np.asarray(value)]


def same(a: Any, b: Any) -> bool:
    first, second = state(a), state(b)
    return len(first) == len(second) and all(map(np.array_equal, first, second))


def fitted(small, dataset) -> dict[str, FittedBaseline]:
    found = {each.name: each for each in fit_baselines(dataset, BASELINES, small.text_vectors)}
    assert len(found) == len(BASELINES)
    return found


def permuted(pairs: Pairs, seed: int) -> Pairs:
    """Return as many pairs, with other users for the same items."""
    return Pairs(np.random.default_rng(seed).permutation(pairs.users), pairs.items)


def test_pairs_and_texts_of_cold_test_change_nothing(small):
    before = fitted(small, small.dataset)
    nothing = Pairs(np.array([], np.int64), np.array([], np.int64))
    for replaced in (permuted(small.dataset.splits["cold_test"], 1), nothing):
        after = fitted(small, small.with_pairs(cold_test=replaced))
        for name, was in before.items():
            assert after[name].params == was.params
            assert same(after[name].model, was.model), name
    small.vectors[40:] = np.nan
    for name, now in fitted(small, small.dataset).items():
        assert same(now.model, before[name].model), name


def test_pairs_of_cold_val_choose_and_do_nothing_else(small):
    chosen = set()
    before = fitted(small, small.dataset)
    for seed in range(4):
        data = small.with_pairs(cold_val=permuted(small.dataset.splits["cold_val"], seed))
        known = Known.of(data, small.vectors[data.splits["train"].distinct_items])
        for baseline in BASELINES:
            items, users = HeldItems.sample(data)
            params = baseline.choose(known, HeldItems.of(data, items, users, small.vectors[items]))
            chosen.add((baseline.name, *params.values()))
            was = before[baseline.name]
            assert same(baseline.fit(known, was.params), was.model), baseline.name
    # The test would see nothing if every choice were the same.
    assert len(chosen) > len(BASELINES)


def test_pairs_of_train_do_change_the_fit(small):
    before = fitted(small, small.dataset)
    pairs = small.dataset.splits["train"]
    fewer = Pairs(pairs.users[1:], pairs.items[1:])
    after = fitted(small, small.with_pairs(train=permuted(fewer, 1)))
    assert [name for name, was in before.items() if same(after[name].model, was.model)] == ["random users"]


def test_without_an_encoder_baselines_that_read_texts_are_left_out(small):
    found = [each.name for each in fit_baselines(small.dataset, BASELINES, None)]
    assert found == ["random users", "most active users"]


def test_without_held_items_the_hyper_parameters_are_fixed(small):
    nothing = Pairs(np.array([], np.int64), np.array([], np.int64))
    found = fitted(small, small.with_pairs(cold_val=nothing))
    assert found["kernel ridge"].params == {"g": 2.0, "lambda": 3.0, "r": 0.25, "c": 0.2}
    assert found["text kNN"].params == {"k": 50, "p": 4.0}
