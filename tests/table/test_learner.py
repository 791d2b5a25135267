"""The rule itself: rows from sets of items, exact in float64 in every order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm_export import BundleError, UsageError
from fllm_export.table import native
from fllm_export.table.learner import Learner

ITEMS, DIM = 60, 24


def contributions(seed: int) -> np.ndarray:
    """Numbers over many orders of magnitude, so that float32 sums would depend on their order."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((ITEMS, DIM)) * 10.0 ** generator.uniform(-4, 2, (ITEMS, 1))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=200), min_size=1, max_size=8), st.integers(0, 99)
)
def test_rows_do_not_depend_on_the_order_of_items(users: list[list[int]], seed: int) -> None:
    learner = Learner.of(np.arange(ITEMS), contributions(seed), 0.3, None)
    starts = np.cumsum([0, *map(len, users)])
    items = np.concatenate(users).astype(np.int32)
    found = learner.exact_rows(starts, items)
    for row, mine in zip(found, users, strict=True):
        total = np.zeros(DIM)
        for item in sorted(mine, key=lambda item: (item * 7919 + seed) % 101):
            total += learner.contributions[item].astype(np.float64)
        np.testing.assert_array_equal(row, total * float(len(mine)) ** -0.3)
    np.testing.assert_array_equal(learner.rows(starts, items), found.astype(np.float32))


def test_what_is_withdrawn_leaves_no_trace_in_the_sum() -> None:
    learner = Learner.of(np.arange(ITEMS), contributions(1), 0.0, None)
    numbers = learner.contributions.astype(np.float64)
    total = numbers[3].copy()
    for item in range(10, 50):
        total += numbers[item]
    for item in range(10, 50):
        total -= numbers[item]
    np.testing.assert_array_equal(total, numbers[3])


def test_contributions_change_by_less_than_float32_holds() -> None:
    given = contributions(2)
    found = Learner.of(np.arange(ITEMS), given, 0.0, None).contributions
    np.testing.assert_allclose(found, given, rtol=2**-24, atol=2**-37 * np.abs(given).max())


@pytest.mark.parametrize(("dim", "most"), [(24, 90), (200, 9), (200, 90), (256, 90)])
def test_numpy_and_libfllm_make_the_same_rows(dim: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of users with many items libfllm makes the rows panel by panel, where they have more than 64 numbers."""
    generator = np.random.default_rng(0)
    learner = Learner.of(np.arange(ITEMS), generator.standard_normal((ITEMS, dim)), 0.5, None)
    starts = np.concatenate([[0], np.cumsum(generator.integers(1, most, 1300))])
    items = generator.integers(0, ITEMS, starts[-1]).astype(np.int32)
    found = learner.rows(starts, items)
    monkeypatch.setattr(native, "_core", None)
    monkeypatch.setattr("fllm_export.table.learner._BLOCK_NUMBERS", 40 * dim)
    np.testing.assert_array_equal(learner.rows(starts, items), found)


@pytest.mark.parametrize("activity", [None, 0.4])
def test_a_learner_is_read_as_it_was_written(activity: float | None, tmp_path: Path) -> None:
    learner = Learner.of(np.arange(ITEMS)[::-1] * 3, contributions(4), 0.1, activity)
    learner.save(tmp_path / "learner.safetensors")
    found = Learner.load(tmp_path / "learner.safetensors")
    assert (found.user_power, found.activity) == (0.1, activity)
    np.testing.assert_array_equal(found.contributions, learner.contributions)
    assert found.positions(np.array([0, 177])).tolist() == [59, 0]
    with pytest.raises(UsageError, match="item id 4 is not one of the 60 training items"):
        found.positions(np.array([3, 4]))


def test_a_bias_grows_with_the_number_of_items() -> None:
    starts = np.array([0, 1, 8])
    assert Learner.of(np.arange(ITEMS), contributions(5), 0.1, None).bias(starts) is None
    found = Learner.of(np.arange(ITEMS), contributions(5), 0.1, 0.5).bias(starts)
    np.testing.assert_array_equal(found, np.array([0, 0.5 * np.log(7)], np.float32))


def test_a_damaged_learner_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "learner.safetensors"
    Learner.of(np.arange(ITEMS), contributions(6), 0.1, None).save(path)
    content = path.read_bytes()
    for wrong in (content[:-4], content.replace(b"user_power", b"user_pawer"), content.replace(b'\\"user', b'{"user')):
        path.write_bytes(wrong)
        with pytest.raises(BundleError):
            Learner.load(path)


def test_contributions_that_are_no_numbers_are_refused() -> None:
    wrong = contributions(7)
    wrong[3, 3] = np.nan
    for refused in (wrong, np.zeros((ITEMS, DIM)), contributions(7)[:-1]):
        with pytest.raises(UsageError, match="contributions"):
            Learner.of(np.arange(ITEMS), refused, 0.0, None)
