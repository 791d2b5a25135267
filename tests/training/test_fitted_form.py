from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from fllm_export.errors import UsageError  # noqa: E402
from fllm_export.evaluation.metrics import Ranking  # noqa: E402
from fllm_export.training import fitted_form as module  # noqa: E402
from fllm_export.training import ranked_users  # noqa: E402
from fllm_export.training.closed_form import ClosedForm, Setting  # noqa: E402
from fllm_export.training.fitted_form import FittedForm, Vectors  # noqa: E402
from fllm_export.training.left_out import LeftOut  # noqa: E402
from fllm_export.training.recipe import ClosedFormRecipe  # noqa: E402
from fllm_export.training.setting_search import Grid, Validation  # noqa: E402
from fllm_export.training.user_sums import UserItems  # noqa: E402

USERS, ITEMS, COLD = 240, 160, 60


@pytest.fixture(scope="module", autouse=True)
def small_grid():
    """Four points: how a grid is searched is tested beside the search."""
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "_GRID", Grid((2.0, 4.0), (1.0,), (0.25,), (0.0, 0.2)))
    patch.setattr(module, "_LEAST_DIM", 1)
    yield
    patch.undo()


def world(users=USERS):
    """Items, the items of each user, and cold items. Users like items near them, some users far more of them."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((ITEMS + COLD, 6)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    tastes = generator.standard_normal((users, 6))
    tastes /= np.linalg.norm(tastes, axis=1, keepdims=True)
    reach = np.where(np.arange(users) % 10 == 0, 0.5, 0.1)
    liked = generator.random((users, ITEMS + COLD)) < reach[:, None] * np.exp(3 * (tastes @ x.T - 0.5))
    liked[generator.integers(0, users, ITEMS), np.arange(ITEMS)] = True
    found = UserItems.of(*np.nonzero(liked[:, :ITEMS]), users)
    return x[:ITEMS], found, Validation(x[ITEMS:], [np.flatnonzero(row) for row in liked[:, ITEMS:].T])


def fit(vectors, landmarks, dim):
    recipe = ClosedFormRecipe(landmarks=landmarks, dim=dim, head_epochs=0)
    return FittedForm.of(vectors, vectors.best().setting, recipe, Path())


@pytest.fixture(scope="module")
def vectors():
    x, users, validation = world()
    return Vectors(x, validation, users, seed=1)


@pytest.fixture(scope="module")
def fitted(vectors):
    return fit(vectors, 16_384, None)


def logits(fitted, vectors):
    bias = fitted.bias(vectors.users)
    return fitted.form.item_vectors(vectors.validation.items) @ fitted.rows(vectors.users).T.astype(float) + bias


def ndcg(scores, vectors):
    return Ranking.of(np.argsort(-scores, 1, kind="stable")[:, :20], vectors.validation.truth).ndcg


def negative_log(scores, truth, link):
    m, total = link.log_sums(scores)
    logs = link.logits(scores) - (m + np.log(total))[:, None]
    return -np.mean(np.concatenate([logs[item, liked] for item, liked in enumerate(truth)]))


def test_the_dimension_is_the_smallest_that_holds_the_ndcg(fitted):
    found = fitted.ndcg_by_dim
    assert set(found) == {1 << bit for bit in range(8)}
    holding = [dim for dim, value in found.items() if value >= 0.995 * max(found.values())]
    assert fitted.form.dim == min(holding)
    assert 1 < fitted.form.dim < 128


def test_each_ndcg_is_that_of_a_projection_to_so_many_dimensions(fitted, vectors):
    # The power that was chosen with the grid, not the one that was fitted with the biases.
    whole = ClosedForm.fit(vectors.items, np.arange(ITEMS), vectors.counts, vectors.best().setting)
    for dim in (2, 16):
        short = whole.project(dim, vectors.users, seed=1)
        scores = short.item_vectors(vectors.validation.items) @ short.rows(vectors.users).T.astype(float)
        assert fitted.ndcg_by_dim[dim] == pytest.approx(ndcg(scores, vectors), abs=2e-3)
    wide = whole.project(64, vectors.users, seed=1)
    cut, short = wide.cut(8), whole.project(8, vectors.users, seed=1)
    assert cut.dim == 8
    fresh = np.random.default_rng(0).standard_normal((9, 6))
    both = [form.item_vectors(fresh) @ form.rows(vectors.users).T.astype(float) for form in (cut, short)]
    assert np.allclose(*both, atol=1e-4 * np.abs(both[1]).max())
    for form, dim in ((wide, 65), (wide, 0), (whole, 8)):
        with pytest.raises(UsageError, match=f"dim is {dim}; expected 1 to"):
            form.cut(dim)


def test_a_dimension_that_is_given_is_taken(vectors):
    found = fit(vectors, 16_384, 11)
    assert (found.form.dim, found.ndcg_by_dim) == (11, {})
    assert found.rows(vectors.users).shape == (USERS, 11)
    with pytest.raises(UsageError, match="dim is 200"):
        fit(vectors, 16_384, 200)


def test_rows_of_a_low_rank_still_get_a_dimension():
    # Twelve items give rows of rank 12 at most, and 12 users like them.
    generator = np.random.default_rng(3)
    x = generator.standard_normal((20, 3)).astype(np.float32)
    users = UserItems.of(np.arange(12), np.arange(12), 24)
    truth = [np.array([item % 12]) for item in range(8)]
    vectors = Vectors(x[:12], Validation(x[12:], truth), users, 0)
    found = fit(vectors, 16_384, None)
    assert set(found.ndcg_by_dim) == {1, 2, 4, 8}


def test_logits_are_probabilities_of_users(fitted, vectors):
    found, chosen = logits(fitted, vectors), fitted.probabilities
    uniform = np.log(USERS)
    assert chosen.loss < uniform - 0.1
    assert negative_log(found, vectors.validation.truth, fitted.link) < uniform - 0.1
    # Near the best scale of the cold items themselves, which the fit has not seen.
    plain = found - chosen.bias(vectors.users.sizes)
    around = [
        negative_log(plain * factor + chosen.bias(vectors.users.sizes), vectors.validation.truth, fitted.link)
        for factor in (0.25, 1, 4)
    ]
    assert around[1] < min(around[0], around[2])
    assert fitted.form.setting.user_power == chosen.user_power
    assert ndcg(found, vectors) == pytest.approx(chosen.ndcg, abs=1e-6)
    assert chosen.ndcg >= 0.98 * max(fitted.ndcg_by_dim.values())


def test_what_was_chosen_is_said(fitted):
    said = fitted.to_json()
    assert said["landmarks"] == ITEMS
    assert Setting(**said["setting"]) == fitted.form.setting
    assert said["setting"]["gamma"] in (2.0, 4.0)
    assert list(said["ndcg_by_dim"]) == [str(dim) for dim in fitted.ndcg_by_dim]
    assert said["probabilities"]["scale"] == fitted.probabilities.scale
    assert said["link"] == said["probabilities"]["link"] == str(fitted.link)


def test_few_landmarks_are_kept_to(vectors):
    found = fit(vectors, 40, None)
    assert len(found.form.ridge.kernel.landmarks) == 40
    assert max(found.ndcg_by_dim) <= 32


@pytest.mark.parametrize(("given", "items", "expected"), [(None, 24_576, 24_576), (None, 24_577, 8_192), (40, 99, 40)])
def test_without_a_number_all_items_are_landmarks_while_memory_allows(given, items, expected):
    assert ClosedFormRecipe(landmarks=given).landmarks_of(items) == expected


def test_more_landmarks_than_the_search_has_choose_the_penalty_again(vectors, monkeypatch):
    monkeypatch.setattr(module, "SEARCH_LANDMARKS", 30)
    asked = []
    best = Vectors.best

    def noted(self, grid=None, *, landmarks=None, progress=None):
        asked.append((landmarks, grid and tuple(grid.penalties)))
        return best(self, grid, landmarks=landmarks)

    monkeypatch.setattr(Vectors, "best", noted)
    found = fit(vectors, 16_384, 8)
    assert asked == [(None, None), (16_384, (1.0, 3.0))]
    assert len(found.form.ridge.kernel.landmarks) == ITEMS
    assert found.form.setting.penalty in (1.0, 3.0)


def test_of_very_many_users_some_choose_and_all_have_rows(vectors, monkeypatch):
    monkeypatch.setattr(module, "_SEARCH_USERS", 100)
    some = Vectors(vectors.items, vectors.validation, vectors.users, seed=1)
    assert len(some.some) == 100
    assert all(int(right.max(initial=0)) < 100 for right in some.validation.truth)
    assert np.array_equal(some.counts, vectors.counts)
    found = fit(some, 16_384, None)
    assert found.rows(some.users).shape == (USERS, found.form.dim)
    of_all = fit(vectors, 16_384, None)
    assert ndcg(logits(found, some), vectors) > 0.8 * ndcg(logits(of_all, vectors), vectors)


def test_blocks_change_nothing(monkeypatch):
    x, users, validation = world(users=50)
    few = Vectors(x, validation, users, seed=1)
    whole = fit(few, 16_384, 8)
    # 2,000 scores at once are 40 items of 50 users; a block of them has a hat matrix of 10 x 160 numbers.
    monkeypatch.setattr(module, "_LEFT_OUT_SCORES", 2000)
    monkeypatch.setattr(module, "_SCORES_AT_ONCE", 2000)
    monkeypatch.setattr(ranked_users, "_ITEMS_AT_ONCE", 7)
    sizes, given = [], []
    scores, likeliest = LeftOut.scores, module.probabilities.fit
    monkeypatch.setattr(LeftOut, "scores", lambda self, items: sizes.append(len(items)) or scores(self, items))
    monkeypatch.setattr(module.probabilities, "fit", lambda *parts: given.append(parts) or likeliest(*parts))
    cut = fit(few, 16_384, 8)
    assert sizes == [10] * 4
    some = np.sort(np.random.default_rng(1).choice(ITEMS, 40, replace=False))
    plain = replace(cut.form.setting, user_power=0)
    left_out = LeftOut(ClosedForm.fit(x, np.arange(ITEMS), few.counts, plain), users)
    assert np.allclose(given[0][0], scores(left_out, some), atol=1e-6)
    assert [liked.tolist() for liked in given[0][1]] == [left_out.users_of(item).tolist() for item in some]
    assert cut.probabilities.ndcg > 0.9 * whole.probabilities.ndcg


def test_a_row_has_at_least_64_dimensions_where_it_can(vectors, monkeypatch):
    monkeypatch.setattr(module, "_LEAST_DIM", 64)
    assert set(fit(vectors, 16_384, None).ndcg_by_dim) == {64, 128}
    assert set(fit(vectors, 40, None).ndcg_by_dim) == {32}


@pytest.fixture(scope="module")
def headed(vectors, tmp_path_factory):
    recipe = ClosedFormRecipe(dim=16, head_epochs=8)
    return FittedForm.of(vectors, vectors.best().setting, recipe, tmp_path_factory.mktemp("head"))


def test_a_head_is_served_where_it_ranks_enough_better(headed, vectors, monkeypatch):
    plain = fit(vectors, 16_384, 16)
    assert headed.ranking == plain.ranking
    assert headed.head.ranking.ndcg == pytest.approx(
        ndcg(headed.form.item_vectors(vectors.cold.items) @ headed.head.rows.T + headed.head.bias, vectors), abs=1e-6
    )
    monkeypatch.setattr(module, "_HEAD_GAIN", 0.0)
    assert headed.taught is headed.head
    assert np.array_equal(headed.rows(vectors.users), headed.head.rows)
    assert np.array_equal(headed.bias(vectors.users), headed.head.bias)
    assert headed.ndcg == headed.head.ranking.ndcg
    assert headed.to_json()["head"] == headed.head.to_json()
    assert ndcg(logits(headed, vectors), vectors) == pytest.approx(headed.ndcg, abs=1e-6)
    monkeypatch.setattr(module, "_HEAD_GAIN", 100.0)
    assert headed.taught is None
    assert headed.to_json()["head"] is None
    assert np.array_equal(headed.rows(vectors.users), plain.rows(vectors.users))
    assert headed.ndcg == plain.ranking.ndcg


def test_there_is_no_head_where_none_was_asked_for(vectors):
    assert fit(vectors, 16_384, 8).head is None
