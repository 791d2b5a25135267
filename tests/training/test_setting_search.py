from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from fllm_export.errors import UsageError
from fllm_export.evaluation.metrics import Ranking
from fllm_export.training.closed_form import ClosedForm
from fllm_export.training.landmarks import choose_landmarks
from fllm_export.training.setting_search import Grid, Validation, sampled, search
from fllm_export.training.user_sums import UserItems

GRID = Grid(gammas=(1.0, 4.0), penalties=(0.3, 3.0), item_powers=(0.0, 0.5), user_powers=(0.0, 0.3))


def world(users=300, items=200, cold=60):
    """Users like items near them; popular items and active users occur by a power law."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((items + cold, 8))
    tastes = generator.standard_normal((users, 8)) * generator.pareto(3, users)[:, None]
    liked = tastes @ x.T + 1.5 * generator.standard_normal((users, items + cold)) > 3.5
    liked[generator.integers(0, users, items), np.arange(items)] = True
    found = UserItems.of(*np.nonzero(liked[:, :items]), users)
    return x[:items], found, Validation(x[items:], [np.flatnonzero(row) for row in liked[:, items:].T])


def test_every_point_is_what_the_closed_form_itself_gives():
    x, users, validation = world()
    landmarks = choose_landmarks(x, 50)
    best, trials = search(x, landmarks, users, validation, GRID)
    assert len(trials) == len(GRID) == 16
    assert best.ndcg == max(trial.ndcg for trial in trials)
    assert len({trial.recall for trial in trials}) > 4
    for trial in trials[::5]:
        form = ClosedForm.fit(x, landmarks, np.bincount(users.items), trial.setting)
        scores = form.item_vectors(validation.items) @ form.rows(users).T
        ranking = Ranking.of(np.argsort(-scores, 1)[:, :20], validation.truth)
        assert (trial.precision, trial.recall, trial.ndcg) == pytest.approx(
            (ranking.precision, ranking.recall, ranking.ndcg), abs=2e-3
        )


def test_a_sample_of_users_keeps_their_items_and_their_part_of_the_truth():
    x, users, validation = world()
    fewer, seen = sampled(users, validation, 100, seed=1)
    assert len(fewer) == 100
    chosen = np.sort(np.random.default_rng(1).choice(300, 100, replace=False))
    for place in (0, 50, 99):
        part = users.part(int(chosen[place]), int(chosen[place]) + 1)
        assert np.array_equal(fewer.part(place, place + 1).items, part.items)
    for all_of_it, some in zip(validation.truth, seen.truth, strict=True):
        assert np.array_equal(chosen[some], np.intersect1d(all_of_it, chosen))
    assert sampled(users, validation, 300, seed=1)[0] is users
    assert search(x, choose_landmarks(x, 30), fewer, seen, GRID)[0].recall > 0.2


def test_a_validation_without_users_is_refused():
    x, users, validation = world()
    nobody = Validation(validation.items, [np.empty(0, np.int64)] * len(validation.truth))
    with pytest.raises(UsageError, match="no validation item"):
        search(x, choose_landmarks(x, 10), users, nobody, GRID)
