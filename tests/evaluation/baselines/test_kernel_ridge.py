from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("scipy")

from fllm_export.evaluation.baselines import ColdItems, Known
from fllm_export.evaluation.baselines.kernel_ridge import KernelRidge
from fllm_export.evaluation.baselines.kernel_system import ExactSystem, NystromSystem
from fllm_export.evaluation.baselines.known import unit


def random_known(generator: np.random.Generator, items: int, users: int, width: int) -> tuple[Known, np.ndarray]:
    likes = (generator.random((items, users)) < 0.3).astype(float)
    likes[:, 0] = 1  # no item without a user
    likes[0, :] = 1  # no user without an item
    rows, columns = np.nonzero(likes)
    vectors = unit(generator.standard_normal((items, width)))
    return Known(np.arange(items), rows, columns, users, vectors), likes


@given(
    seed=st.integers(0, 2**32 - 1),
    items=st.integers(1, 40),
    users=st.integers(1, 30),
    g=st.sampled_from([0.5, 2.0, 8.0]),
    ridge=st.sampled_from([0.5, 3.0]),
    r=st.sampled_from([0.0, 0.25]),
    c=st.sampled_from([0.0, 0.4]),
)
def test_scores_are_those_of_the_regression_written_out(seed, items, users, g, ridge, r, c):
    generator = np.random.default_rng(seed)
    known, likes = random_known(generator, items, users, 6)
    cold = unit(generator.standard_normal((3, 6)))
    x = known.vectors.astype(float)
    kernel = np.exp(g * (x @ x.T - 1)) + ridge * np.eye(items)
    target = likes.sum(1)[:, None] ** -r * likes * likes.sum(0)[None] ** -c
    expected = np.exp(g * (cold.astype(float) @ x.T - 1)) @ np.linalg.solve(kernel, target)
    model = KernelRidge().fit(known, {"g": g, "lambda": ridge, "r": r, "c": c})
    np.testing.assert_allclose(model.scores(ColdItems(np.arange(3), cold)), expected, rtol=1e-4, atol=1e-5)


def weights(system, cold):
    return np.concatenate([part for _, part in system.weights(cold)], axis=1)


def test_landmarks_of_all_items_give_the_exact_weights():
    generator = np.random.default_rng(1)
    x, cold = unit(generator.standard_normal((50, 6))), unit(generator.standard_normal((5, 6)))
    exact = ExactSystem(x, 2.0).factorised(1.0)
    landmarks = NystromSystem.of(x, x, 2.0).factorised(1.0)
    np.testing.assert_allclose(weights(landmarks, cold), weights(exact, cold), atol=1e-5)


def test_landmarks_that_repeat_change_nothing_and_windows_cover_all_items(monkeypatch):
    monkeypatch.setattr("fllm_export.evaluation.baselines.kernel_system._ITEMS_AT_ONCE", 7)
    monkeypatch.setattr("fllm_export.evaluation.baselines.kernel_system._ROWS_AT_ONCE", 11)
    generator = np.random.default_rng(2)
    x, cold = unit(generator.standard_normal((40, 6))), unit(generator.standard_normal((5, 6)))
    plain = NystromSystem.of(x, x[:20], 2.0).factorised(1.0)
    twice = NystromSystem.of(x, np.concatenate([x[:20], x[:20]]), 2.0).factorised(1.0)
    assert [window.stop for window, _ in plain.weights(cold)] == [7, 14, 21, 28, 35, 40]
    np.testing.assert_allclose(weights(twice, cold), weights(plain, cold), atol=1e-4)


def test_many_items_take_landmarks_and_rank_nearly_as_the_exact_regression(monkeypatch):
    generator = np.random.default_rng(3)
    known, _ = random_known(generator, 60, 40, 4)
    cold = ColdItems(np.arange(8), unit(generator.standard_normal((8, 4))))
    params = {"g": 1.0, "lambda": 1.0, "r": 0.25, "c": 0.2}
    exact = KernelRidge().fit(known, params).scores(cold)
    monkeypatch.setattr("fllm_export.evaluation.baselines.kernel_system.EXACT_ITEMS", 59)
    monkeypatch.setattr("fllm_export.evaluation.baselines.kernel_system.LANDMARKS", 40)
    fitted = KernelRidge().fit(known, params)
    assert isinstance(fitted.system, NystromSystem)
    assert np.corrcoef(fitted.scores(cold).ravel(), exact.ravel())[0, 1] > 0.99
