"""Folding in: the maximum that a plain Newton method finds, bit for bit the same in whatever company."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm_export.table import fold_in
from fllm_export.table.fixed_point import exact_product, on_grid
from fllm_export.table.fold_in import FoldIn

ITEMS, RANK, USERS = 211, 12, 9


def problem(seed: int, spread: float = 1.0) -> tuple[FoldIn, np.ndarray, np.ndarray, np.ndarray]:
    """Items of which some are far more likely for a user than others, and users with a few of them."""
    generator = np.random.default_rng(seed)
    vectors = on_grid(spread * generator.standard_normal((ITEMS, RANK)), whole=True).astype(np.float32)
    normalisers = generator.uniform(2, 5, ITEMS).astype(np.float32)
    liked = generator.random((USERS, ITEMS)) < 0.05
    liked[:, 0] = True
    pulls = (liked / generator.integers(1, 9, ITEMS)) @ vectors.astype(np.float64)
    prior = 0.3 * generator.standard_normal((USERS, RANK))
    return FoldIn(vectors, normalisers, 0.2), pulls, prior, 0.1 * generator.standard_normal(USERS)


def highest(fold: FoldIn, pull: np.ndarray, prior: np.ndarray, bias: float) -> np.ndarray:
    """The maximum of f by Newton's method with the whole Hessian, halving steps that lead down."""
    y, z = fold.vectors.astype(np.float64), fold.log_normalisers.astype(np.float64)

    def height(w: np.ndarray) -> float:
        return float(pull @ w - np.logaddexp(z, y @ w + bias).sum() - fold.strength / 2 * ((w - prior) ** 2).sum())

    w = prior.copy()
    for _ in range(50):
        p = 1 / (1 + np.exp(z - y @ w - bias))
        gradient = pull - p @ y - fold.strength * (w - prior)
        step = np.linalg.solve((y.T * (p * (1 - p))) @ y + fold.strength * np.eye(RANK), gradient)
        while height(w + step) < height(w) and np.abs(step).max() > 1e-12:
            step /= 2
        w = w + step
    return w


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_it_finds_the_maximum_that_newtons_method_finds(spread: float) -> None:
    fold, pulls, prior, bias = problem(1, spread)
    found = fold.rows(pulls, prior, bias)
    wanted = np.stack([highest(fold, *user) for user in zip(pulls, prior, bias.tolist(), strict=True)])
    assert np.abs(wanted - prior).max() > 0.1  # there was something to find
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_the_gradient_is_zero_there_and_not_where_it_began(spread: float) -> None:
    fold, pulls, prior, bias = problem(2, spread)
    lengths = np.linalg.norm(pulls, axis=1)
    after = np.linalg.norm(fold.gradient(fold.rows(pulls, prior, bias), pulls, prior, bias), axis=1)
    before = np.linalg.norm(fold.gradient(prior, pulls, prior, bias), axis=1)
    assert (after < 3 * fold_in.TOLERANCE * lengths).all()
    assert (before > 100 * fold_in.TOLERANCE * lengths).any()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, USERS - 1), min_size=1, max_size=30), st.integers(0, 50))
def test_a_row_is_the_same_in_any_company(users: list[int], seed: int) -> None:
    fold, pulls, prior, bias = problem(seed)
    alone = np.concatenate([fold.rows(pulls[[u]], prior[[u]], bias[[u]]) for u in range(USERS)])
    np.testing.assert_array_equal(fold.rows(pulls[users], prior[users], bias[users]), alone[users])


def test_users_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    fold, pulls, prior, bias = problem(3)
    found = fold.rows(pulls, prior, bias)
    monkeypatch.setattr(fold_in, "_SCORES_AT_ONCE", 2 * ITEMS)
    np.testing.assert_array_equal(fold.rows(pulls, prior, bias), found)


def test_a_strong_prior_is_kept() -> None:
    fold, pulls, prior, bias = problem(4)
    found = FoldIn(fold.vectors, fold.log_normalisers, 1e9).rows(pulls, prior, bias)
    np.testing.assert_allclose(found, prior, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("rows", "terms", "columns"), [(1, 7, 3), (33, 4096, 5), (5, 9000, 40)])
def test_products_on_a_grid_have_no_order(rows: int, terms: int, columns: int) -> None:
    generator = np.random.default_rng(5)
    left = on_grid(generator.standard_normal((rows, terms)) * 10.0 ** generator.uniform(-9, 9, (rows, 1)))
    right = on_grid(generator.standard_normal((terms, columns)), whole=True)
    found = exact_product(left, right)
    for first in range(0, terms, 4096):
        part = slice(first, min(first + 4096, terms))
        order = part.start + generator.permutation(part.stop - part.start)
        np.testing.assert_array_equal(left[:, order] @ right[order], left[:, part] @ right[part])
    np.testing.assert_allclose(found, left @ right, rtol=0, atol=1e-12 * np.abs(left).max() * terms)
    np.testing.assert_array_equal(exact_product(left[::-1].copy(), right)[::-1], found)
