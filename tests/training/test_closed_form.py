from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
hypothesis = pytest.importorskip("hypothesis")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from fllm_export.errors import UsageError  # noqa: E402
from fllm_export.training import triangular  # noqa: E402
from fllm_export.training.closed_form import ClosedForm, Setting  # noqa: E402
from fllm_export.training.kernel import JITTERS, Kernel, unit  # noqa: E402
from fllm_export.training.landmarks import choose_landmarks  # noqa: E402
from fllm_export.training.left_out import LeftOut  # noqa: E402
from fllm_export.training.left_out_vectors import left_out_vectors  # noqa: E402
from fllm_export.training.ridge import KernelRidge, Ridge  # noqa: E402
from fllm_export.training.user_sums import UserItems, damping  # noqa: E402

USERS = 17
NUMBERS = st.builds(
    Setting,
    gamma=st.floats(0.5, 6),
    penalty=st.floats(0.05, 10),
    item_power=st.floats(0, 1),
    user_power=st.floats(0, 1),
)
SEEDS = st.integers(0, 2**32 - 1)


def world(seed, items=23, dims=6):
    """Item vectors, and the items of each user: every item has a user, and one user has none."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((items, dims))
    liked = generator.random((USERS, items)) < 0.2
    liked[generator.integers(0, USERS - 1, items), np.arange(items)] = True
    liked[-1] = False
    return x, liked


def grouped(liked):
    users, items = np.nonzero(liked)
    return UserItems.of(users, items, len(liked))


def form_of(x, liked, landmarks, setting):
    return ClosedForm.fit(x, landmarks, liked.sum(0), setting)


def powers(sizes, power):
    return np.where(sizes > 0, np.maximum(sizes, 1.0) ** -power, 0)


@settings(deadline=None, max_examples=40)
@given(SEEDS, NUMBERS)
def test_all_items_as_landmarks_are_kernel_ridge_regression(seed, setting):
    x, liked = world(seed)
    fresh = np.random.default_rng(seed + 1).standard_normal((9, x.shape[1]))
    form = form_of(x, liked, choose_landmarks(x, len(x)), setting)
    scores = form.item_vectors(fresh) @ form.rows(grouped(liked)).T.astype(float)

    a, b = unit(x), unit(fresh)
    k, kb = (np.exp(setting.gamma * (y @ a.T - 1)) for y in (a, b))
    dual = np.linalg.solve(k + setting.penalty * np.eye(len(k)), kb.T)
    targets = liked * powers(liked.sum(0), setting.item_power)
    expected = (targets @ dual).T * powers(liked.sum(1), setting.user_power)
    assert np.allclose(scores, expected, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(SEEDS, NUMBERS, st.integers(1, 22))
def test_few_landmarks_are_ridge_regression_on_their_features(seed, setting, most):
    x, liked = world(seed)
    landmarks = choose_landmarks(x, most, seed)
    assert len(landmarks) == most
    form = form_of(x, liked, landmarks, setting)
    phi = form.ridge.kernel.features(unit(x))
    targets = liked * powers(liked.sum(0), setting.item_power)
    solved = np.linalg.solve(phi.T @ phi + setting.penalty * np.eye(most), phi.T @ targets.T).T
    expected = solved * powers(liked.sum(1), setting.user_power)[:, None]
    assert np.allclose(form.rows(grouped(liked)), expected, rtol=1e-3, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(SEEDS, NUMBERS, st.sampled_from([5, 12, 23]))
def test_leaving_an_item_out_is_what_solving_without_it_gives(seed, setting, most):
    x, liked = world(seed)
    landmarks = choose_landmarks(x, most, seed)
    without = LeftOut(form_of(x, liked, landmarks, setting), grouped(liked)).scores(np.arange(len(x)))
    for item in (0, 7, 22):
        kept = np.delete(np.arange(len(x)), item)
        kernel = Kernel(unit(x[landmarks]), setting.gamma)
        again = ClosedForm(Ridge(kernel, x[kept]), setting, liked[:, kept].sum(0))
        expected = again.rows(grouped(liked[:, kept])) @ again.item_vectors(x[[item]])[0]
        assert np.allclose(without[item], expected, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("most", [12, 23])
def test_left_out_vectors_give_the_left_out_scores(most):
    # 40 users: with as many dimensions as features the rows hold the scores without loss, up to pop_u^-c.
    generator = np.random.default_rng(4)
    x = generator.standard_normal((23, 6))
    liked = generator.random((40, 23)) < 0.3
    liked[:4] = True
    users, setting = grouped(liked), Setting(user_power=0.0)
    form = form_of(x, liked, choose_landmarks(x, most, 4), setting)
    wide = form.project(most, users)
    rows = wide.rows(users)
    found = left_out_vectors(wide, users.by_item(23), rows) @ rows.T
    expected = LeftOut(form, users).scores(np.arange(23))
    # The rows span what an item gives to its users only where there are as many dimensions as items.
    tolerance = 1e-4 if most == 23 else 0.5
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


def test_a_left_out_vector_is_nearer_to_solving_without_the_item_than_the_vector_itself():
    x, liked = world(6, items=60, dims=8)
    users, setting = grouped(liked), Setting(user_power=0.2)
    form = form_of(x, liked, np.arange(60), setting).project(8, users)
    rows = form.rows(users)
    expected = LeftOut(form, users).scores(np.arange(60))
    off = [
        np.abs(z @ rows.T - expected).mean()
        for z in (left_out_vectors(form, users.by_item(60), rows), form.item_vectors(x))
    ]
    assert off[0] < 0.8 * off[1]


def test_the_diagonal_of_an_inverse_goes_by_blocks(monkeypatch):
    factor = np.tril(np.random.default_rng(0).random((11, 11))) + np.eye(11)
    expected = np.diag(np.linalg.inv(factor @ factor.T))
    monkeypatch.setattr(triangular, "_COLUMNS", 4)
    assert np.allclose(triangular.inverse_diagonal(factor), expected)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 23))
def test_features_give_back_the_kernel_where_one_side_is_a_landmark(seed, most):
    x, _ = world(seed)
    kernel = Kernel(unit(x[choose_landmarks(x, most, seed)]), 2.0)
    phi, own = kernel.features(unit(x)), kernel.features(kernel.landmarks)
    assert np.allclose(own @ phi.T, kernel.against(unit(x)).T, atol=1e-6)
    factor = kernel.factor()
    assert np.allclose(factor @ kernel.against(unit(x)).T, phi.T, atol=1e-6)


def test_items_of_one_direction_are_one_landmark():
    x, liked = world(3)
    twice = np.concatenate([x, 2 * x[:5], x[:3] * (1 + 1e-12)])
    landmarks = choose_landmarks(twice, 1000)
    assert list(landmarks[:23]) == list(range(23))
    assert 23 <= len(landmarks) <= 26
    form = form_of(twice, np.concatenate([liked, liked[:, :8]], 1), landmarks, Setting())
    assert np.isfinite(form.contributions).all()
    assert np.isfinite(form.mapper().weights["2.weight"]).all()
    with pytest.raises(UsageError, match="twice"):
        Kernel(unit(x[[0, 0]]), 2.0)


def test_landmarks_are_a_seeded_draw():
    x, _ = world(0, items=200)
    one, same, other = (choose_landmarks(x, 50, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert len(np.unique(one)) == 50
    assert np.all(np.diff(one) > 0)
    few = choose_landmarks(np.repeat(x[:10], 20, axis=0), 50)
    assert sorted(few // 20) == list(range(10))


def test_exact_and_general_ridge_regression_agree():
    x, liked = world(11)
    kernel, fresh = Kernel(unit(x), 2.0), unit(np.random.default_rng(0).standard_normal((5, 6)))
    exact, general = KernelRidge(kernel, x), Ridge(kernel, x)
    assert np.allclose(exact.weights(0.7, fresh), general.weights(0.7, fresh), atol=1e-6)
    assert np.allclose(exact.hats(0.7, np.array([3, 1])), general.hats(0.7, np.array([3, 1])), atol=1e-6)
    for each in (exact, general):
        assert np.allclose(each.leverages(0.7), np.diag(exact.hats(0.7, np.arange(23))), atol=1e-6)
    for (window, ours), (_, theirs) in zip(exact.contributed(0.7), general.contributed(0.7), strict=True):
        assert window == slice(0, 23)
        assert np.allclose(ours, theirs, atol=1e-6)
    users = grouped(liked)
    short = [ClosedForm(r, Setting(penalty=0.7), liked.sum(0)).project(5, users) for r in (exact, general)]
    ours, theirs = (form.rows(users) @ form.item_vectors(fresh).T for form in short)
    assert np.allclose(ours, theirs, atol=1e-4)


def test_a_projection_to_all_dimensions_loses_nothing():
    x, liked = world(1, items=40, dims=12)
    form = form_of(x, liked, choose_landmarks(x, 10), Setting())
    users = grouped(liked)
    whole = form.project(10, users)
    fresh = np.random.default_rng(2).standard_normal((30, 12))
    expected = form.item_vectors(fresh) @ form.rows(users).T
    assert np.allclose(whole.item_vectors(fresh) @ whole.rows(users).T, expected, atol=1e-5)


@pytest.mark.parametrize(("most", "kind"), [(30, Ridge), (60, KernelRidge)])
def test_a_projection_is_the_best_of_its_rank_on_the_training_items(most, kind):
    x, liked = world(5, items=60, dims=12)
    form = form_of(x, liked, choose_landmarks(x, most), Setting())
    assert type(form.ridge) is kind
    users = grouped(liked)
    scores = form.rows(users).astype(float) @ form.item_vectors(x).T
    values = np.linalg.svd(scores, compute_uv=False)
    for dim in (1, 3, 8):
        short = form.project(dim, users)
        assert short.dim == dim
        assert short.contributions.shape == (60, dim)
        z = short.item_vectors(x)
        rows = short.rows(users).astype(float)
        lost = np.linalg.norm(rows @ z.T - scores)
        assert lost == pytest.approx(np.sqrt((values[dim:] ** 2).sum()), rel=1e-3)
        assert np.allclose(rows.T @ rows / len(users), np.eye(dim), atol=2e-2)


def test_a_projection_beyond_the_rank_is_refused():
    x, liked = world(1)
    form = form_of(x, liked, choose_landmarks(x, 23), Setting())
    with pytest.raises(UsageError, match="rank"):
        form.project(20, grouped(liked))


@pytest.mark.parametrize("dim", [None, 6])
def test_the_mapper_gives_the_item_vectors(dim):
    x, liked = world(2, items=60, dims=8)
    form = form_of(x, liked, choose_landmarks(x, 30), Setting(gamma=3))
    form = form if dim is None else form.project(dim, grouped(liked))
    mapper = form.mapper()
    fresh = np.random.default_rng(0).standard_normal((11, 8)).astype(np.float32)
    z = mapper.apply(fresh)
    assert (mapper.kind, mapper.hidden, mapper.dim) == ("kernel", 8, dim or 30)
    assert np.allclose(z, form.item_vectors(fresh), atol=1e-3)


def test_sums_are_those_of_each_users_items():
    x, liked = world(7)
    vectors = x.astype(np.float32)
    users = grouped(liked)
    assert np.allclose(users.sums(vectors), liked.astype(np.float32) @ vectors, atol=1e-5)
    assert np.allclose(users.part(3, 9).sums(vectors), liked[3:9].astype(np.float32) @ vectors, atol=1e-5)
    assert np.allclose(users.chosen(np.array([9, 2])).sums(vectors), liked[[9, 2]] @ vectors, atol=1e-5)
    assert np.array_equal(users.sizes, liked.sum(1))
    assert damping(np.array([0, 1, 16]), 0.5).tolist() == [0, 1, 0.25]
    with pytest.raises(UsageError, match="users run"):
        UserItems.of(np.array([0, 5]), np.array([0, 0]), 5)


def test_more_lambda_means_shorter_rows_and_powers_scale_them():
    x, liked = world(4)
    landmarks, users = choose_landmarks(x, 23), grouped(liked)
    base = form_of(x, liked, landmarks, Setting(penalty=1, item_power=0, user_power=0))
    more = form_of(x, liked, landmarks, Setting(penalty=4, item_power=0, user_power=0))
    assert np.linalg.norm(more.rows(users)) < np.linalg.norm(base.rows(users))
    damped = form_of(x, liked, landmarks, Setting(penalty=1, item_power=0, user_power=1))
    assert np.allclose(damped.rows(users) * users.sizes[:, None], base.rows(users), atol=1e-6)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda x, c: (np.where(np.arange(len(x))[:, None] == 4, 0, x), c), "vector 4"),
        (lambda x, c: (np.where(np.arange(len(x))[:, None] == 4, np.nan, x), c), "vector 4"),
        (lambda x, c: (x, c * 0), "at least one user"),
        (lambda x, c: (x, c[1:]), "counts"),
    ],
)
def test_bad_items_are_named(broken, message):
    x, liked = world(6)
    x, counts = broken(x, liked.sum(0))
    with pytest.raises(UsageError, match=message):
        ClosedForm.fit(x, np.arange(len(x)), counts, Setting())


def test_bad_numbers_are_refused():
    for name, value in (("gamma", 0), ("penalty", -1), ("item_power", 2), ("user_power", float("nan"))):
        with pytest.raises(UsageError, match=name):
            Setting(**{name: value})
    assert JITTERS[0] <= 1e-9


@pytest.mark.slow
def test_a_kernel_of_more_items_than_openblas_multiplies_with_themselves():
    """It takes 2.3 GB. Where a matrix is multiplied with its own transpose, the process ends here."""
    items = unit(np.random.default_rng(0).standard_normal((17_000, 8)))
    values = Kernel(items, 2.0).against(items)
    assert np.allclose(values[-1], np.exp(2 * (items @ items[-1] - 1)))
