from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm_export.table import tile_bounds


def hard_rows(count: int, dim: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((count, dim)) * np.exp(2 * generator.standard_normal((count, 1)))
    rows[0] = 0
    rows[1] = 3
    rows[2] = 0
    rows[2, dim // 2] = 1e5
    rows[3] *= 1e-30
    rows[4] = -rows[5]
    return rows


@given(
    dim=st.integers(1, 90),
    count=st.integers(6, 60),
    seed=st.integers(0, 1 << 30),
    size=st.sampled_from([1e-30, 1e-3, 1.0, 1e6]),
    near=st.booleans(),
)
def test_no_score_exceeds_its_tiles_bound(dim: int, count: int, seed: int, size: float, near: bool) -> None:
    generator = np.random.default_rng(seed)
    rows = hard_rows(count, dim, seed)[generator.permutation(count)]
    # All but parallel rows leave nothing across the direction: there the rounding of the direction shows.
    rows = rows[:1] * generator.lognormal(size=(count, 1)) if near else rows
    bias = generator.standard_normal(count).astype(np.float32) if seed % 2 else None
    direction, extents = tile_bounds.describe(rows, bias)
    for item in (generator.standard_normal(dim) * size, rows[-1] * size, -rows[0], np.zeros(dim)):
        scores = rows @ item + (0 if bias is None else bias.astype(np.float64))
        bound = tile_bounds.bounds(direction[None], extents[None], item)[0]
        assert (scores <= bound + 1e-14 * np.abs(scores)).all()
    assert tile_bounds.holds(rows, bias, direction, extents)


def test_the_bound_of_coherent_rows_is_near() -> None:
    generator = np.random.default_rng(0)
    rows = 5 + 0.1 * generator.standard_normal((500, 64))
    item = generator.standard_normal(64) + 1
    direction, extents = tile_bounds.describe(rows, None)
    bound = tile_bounds.bounds(direction[None], extents[None], item)[0]
    assert (rows @ item).max() <= bound < 1.05 * (rows @ item).max()


@pytest.mark.parametrize("spoil", ["low", "high", "rest", "bias", "direction", "nan"])
def test_bounds_that_do_not_hold_are_seen(spoil: str) -> None:
    rows = hard_rows(40, 16)[5:]
    bias = np.arange(35, dtype=np.float32)
    direction, extents = tile_bounds.describe(rows, bias)
    if spoil == "direction":
        direction = direction * np.float32(1.1)
    elif spoil == "nan":
        extents[2] = np.nan
    else:
        place = ["low", "high", "rest", "bias"].index(spoil)
        extents[place] += np.float32(0.01 if spoil == "low" else -0.01) * np.abs(extents[place])
    assert not tile_bounds.holds(rows, bias, direction, extents)
