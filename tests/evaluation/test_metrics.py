from __future__ import annotations

import numpy as np
import pytest

from fllm_export.evaluation.metrics import Ranking


def test_metrics_of_a_case_worked_by_hand():
    ranked = np.array([[5, 1, 7, 2], [9, 8, 7, 6]])
    truth = [np.array([1, 2, 3]), np.array([9])]
    found = Ranking.of(ranked, truth)
    assert found.lists == 2
    assert found.precision == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert found.recall == pytest.approx((2 / 3 + 1) / 2)
    first = (1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3) + 1 / np.log2(4))
    assert found.ndcg == pytest.approx((first + 1) / 2)


def test_the_ideal_list_is_no_longer_than_k_and_recall_counts_the_whole_truth():
    found = Ranking.of(np.array([[0, 1]]), [np.arange(10)])
    assert found.ndcg == pytest.approx(1.0)
    assert found.recall == pytest.approx(0.2)
    assert found.precision == pytest.approx(1.0)


def test_lists_without_truth_are_left_out():
    found = Ranking.of(np.array([[0, 1], [2, 3]]), [np.array([], np.int64), np.array([3])])
    assert (found.lists, found.precision, found.recall) == (1, 0.5, 1.0)
    assert Ranking.of(np.array([[0]]), [np.array([], np.int64)]).lists == 0
