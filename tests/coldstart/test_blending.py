"""The schedule: pseudo-users alone at first, real users in the end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_export.coldstart.blending import ItemUsers, blended, grouped

PSEUDO = np.array([7, 3, 9, 1])
SHARES = np.array([0.4, 0.3, 0.2, 0.1])


def test_without_real_users_the_pseudo_users_decide_alone() -> None:
    found = blended(PSEUDO, SHARES, np.empty(0, np.int64), 20.0)
    np.testing.assert_array_equal(found.places, PSEUDO)
    np.testing.assert_allclose(found.weights, 4 * SHARES)


@given(count=st.integers(1, 500), half_at=st.floats(0.1, 1000))
def test_pseudo_users_keep_n0_in_n0_plus_n_of_their_weight(count: int, half_at: float) -> None:
    real = np.arange(100, 100 + count)
    found = blended(PSEUDO, SHARES, real, half_at)
    np.testing.assert_allclose(found.weights[:4].sum(), 4 * half_at / (half_at + count))
    np.testing.assert_array_equal(found.places[4:], real)
    np.testing.assert_array_equal(found.weights[4:], 1)


def test_after_many_real_users_no_pseudo_user_matters() -> None:
    found = blended(PSEUDO, SHARES, np.arange(100, 100_100), 20.0)
    assert found.weights[:4].sum() < 1e-3
    assert found.weights[4:].sum() == 100_000


def test_a_user_who_is_both_counts_once_with_both_weights() -> None:
    found = blended(PSEUDO, SHARES, np.array([2, 9]), 2.0)
    np.testing.assert_array_equal(found.places, [7, 3, 9, 1, 2])
    np.testing.assert_allclose(found.weights, [0.8, 0.6, 1.4, 0.2, 1.0])


@pytest.mark.parametrize("dim", [4, 1 << 21])
def test_groups_hold_every_item_once_and_pad_nothing(dim: int) -> None:
    users = [ItemUsers(np.arange(n), np.full(n, float(n))) for n in (3, 1, 3, 2, 3)]
    seen = []
    for group in grouped(users, dim):
        assert group.places.shape == group.weights.shape
        assert (group.weights == group.places.shape[1]).all()
        seen += group.items.tolist()
        # A group's vectors stay below what is gathered at once, but for a single item.
        assert len(group.items) == 1 or group.places.size * dim <= 1 << 22
    assert sorted(seen) == [0, 1, 2, 3, 4]
