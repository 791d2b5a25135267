from __future__ import annotations

import numpy as np
import pytest

from fllm_export.sweep.timing import RUNS, Times, measure
from fllm_export.sweep.truth import Corpus, Truth, exact_top, kept_truth, true_top


@pytest.fixture
def corpus():
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((500, 8), dtype=np.float32)
    return Corpus(rows, generator.standard_normal(500, dtype=np.float32), generator.standard_normal((6, 8), np.float32))


def best(corpus, k):
    exact = corpus.items.astype(np.float64) @ corpus.rows.astype(np.float64).T
    return np.argsort(-(exact if corpus.bias is None else exact + corpus.bias), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("biased", [True, False])
def test_the_truth_is_the_float64_order_of_all_rows(corpus, biased):
    corpus = corpus if biased else corpus._replace(bias=None)
    truth = true_top(corpus, 20)
    np.testing.assert_allclose(truth.scores, corpus.scores(best(corpus, 20)), rtol=1e-12)
    assert truth.recall(corpus, best(corpus, 20), 20).tolist() == [1.0] * 6
    if not biased:
        np.testing.assert_array_equal(
            exact_top([corpus.rows[:300], corpus.rows[300:]], corpus.items, 20), best(corpus, 20)
        )


def test_recall_counts_what_is_missing_repeated_or_too_deep(corpus):
    truth, ids = true_top(corpus, 20), best(corpus, 40)
    assert truth.recall(corpus, ids[:, 10:30], 20).tolist() == [0.5] * 6
    assert truth.recall(corpus, np.repeat(ids[:, :1], 20, axis=1), 20).tolist() == [0.05] * 6
    assert truth.recall(corpus, np.full((6, 20), -1), 20).tolist() == [0.0] * 6
    assert truth.recall(corpus, ids[:, :20], 10).tolist() == [1.0] * 6
    assert truth.recall(corpus, ids[:, 10:30], 10).tolist() == [0.0] * 6


def test_rows_that_tie_with_the_last_of_the_best_count(corpus):
    order = best(corpus, 30)[:1]
    rows, bias = corpus.rows.copy(), corpus.bias.copy()
    twins = order[0, 19:25]  # ranks 20 to 25 become equal
    rows[twins], bias[twins] = rows[twins[0]], bias[twins[0]]
    tied = Corpus(rows, bias, corpus.items[:1])
    truth = true_top(tied, 20)
    for twin in twins:
        found = np.append(order[0, :19], twin)[None]
        assert truth.recall(tied, found, 20) == [1.0]
    assert truth.recall(tied, np.append(order[0, :19], order[0, 27])[None], 20) == [0.95]


def test_the_truth_is_kept_for_the_same_inputs_only(tmp_path):
    made = []

    def make():
        made.append(1)
        return Truth(np.array([[2.0, 1.0]]) * len(made), 0.5)

    first = kept_truth(tmp_path, "one", make)
    assert kept_truth(tmp_path, "one", make).scores.tolist() == first.scores.tolist()
    assert kept_truth(tmp_path, "two", make).scores.tolist() == [[4.0, 2.0]]
    (tmp_path / "truth.npz").write_bytes((tmp_path / "truth.npz").read_bytes()[:100])
    assert kept_truth(tmp_path, "two", make).scores.tolist() == [[6.0, 3.0]]


def test_times_say_what_they_are():
    times = Times(np.array([[1.0, 3.0, 5.0], [2.0, 4.0, 90.0], [1.0, 4.0, 6.0]]))
    assert times.median == 4.0
    assert times.p99 == pytest.approx(6.0, abs=0.05)
    low, high = times.interval()
    assert 1.0 <= low <= times.median <= high <= 90.0
    assert times.interval() == (low, high)
    assert times.per_second(8) == pytest.approx(8 * 3 / 11e-3)


def test_at_least_five_runs_are_timed_and_slow_calls_are_fewer():
    called, between = [], []
    times = measure(called.append, 100, 1e6, 0.0, lambda: between.append(1))
    assert times.ms.shape == (RUNS, 8)
    assert set(called) <= set(range(100))
    assert len(between) == RUNS
    assert measure(called.append, 3, 1e6, 0.0, lambda: None).ms.shape == (RUNS, 3)
    more = measure(called.append, 100, 0.001, 0.3, lambda: None).ms.shape
    assert more[0] > RUNS
    assert more[1] == 100
