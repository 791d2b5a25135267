from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fllm_export.table.codecs import codec
from fllm_export.table.odd_grid import odd_grid
from fllm_export.table.rounding import nearest

GENERATOR = np.random.default_rng(0)
QUANTS = {"int1": 1, "int2": 3, "int4row": 15}
ROWS = st.integers(1, 70).flatmap(
    lambda dim: arrays(np.float32, st.tuples(st.integers(1, 8), st.just(dim)), elements=st.floats(-1e6, 1e6, width=32))
)


@pytest.mark.parametrize("quant", QUANTS)
@settings(max_examples=150, deadline=None)
@given(rows=ROWS)
def test_numbers_are_rounded_to_the_nearest_odd_integer(quant: str, rows: np.ndarray) -> None:
    stored = codec(quant).encode(rows)
    values, scales = codec(quant).numbers(stored, rows.shape[1]), stored["scales"][:, None].astype(np.float64)
    assert values.dtype == np.int8
    assert (values % 2 == 1).all()
    grid = np.arange(-QUANTS[quant], QUANTS[quant] + 1, 2)
    least = np.abs(rows[:, :, None].astype(np.float64) - scales[:, :, None] * grid).min(2)
    error = np.abs(rows - scales * values)
    # A number in units of the scale is rounded to float32 itself.
    assert (error <= least + 1e-6 * np.abs(rows) + 1e-37).all()


@pytest.mark.parametrize("quant", QUANTS)
@settings(max_examples=100, deadline=None)
@given(rows=ROWS)
def test_what_is_lost_of_a_row_is_no_longer_than_the_row(quant: str, rows: np.ndarray) -> None:
    decoded = codec(quant).decode(codec(quant).encode(rows), rows.shape[1]).astype(np.float64)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    assert (np.linalg.norm(rows - decoded, axis=1) <= lengths * (1 + 1e-3) + 1e-36).all()


@pytest.mark.parametrize(("quant", "distortion"), [("int1", 0.3634), ("int2", 0.1182), ("int4row", 0.0114)])
def test_normal_rows_lose_little_more_than_the_best_uniform_quantiser_takes(quant: str, distortion: float) -> None:
    """Max (1960): 0.3634, 0.1188, 0.01154 of the variance at 2, 4, 16 levels; a scale per row may gain on them."""
    rows = GENERATOR.standard_normal((2000, 256)).astype(np.float32)
    decoded = codec(quant).decode(codec(quant).encode(rows), 256)
    assert ((rows - decoded) ** 2).sum() / (rows**2).sum() < distortion


@pytest.mark.parametrize("largest", QUANTS.values())
def test_scales_depend_on_no_other_row_and_on_no_power_of_two(largest: int) -> None:
    rows = (GENERATOR.standard_t(3, (400, 256)) * GENERATOR.lognormal(size=(400, 1))).astype(np.float32)
    _, scales = odd_grid(rows, largest)
    np.testing.assert_array_equal(np.concatenate([odd_grid(rows[i : i + 1], largest)[1] for i in range(400)]), scales)
    np.testing.assert_array_equal(odd_grid(rows * np.float32(2**-40), largest)[1], scales * np.float32(2**-40))


@pytest.mark.parametrize("quant", QUANTS)
def test_dimensions_may_be_rounded_one_slice_at_a_time(quant: str) -> None:
    rows = GENERATOR.standard_normal((50, 45)).astype(np.float32)
    grid, _ = codec(quant).grid(rows)
    parts = [slice(0, 7), slice(7, 32), slice(32, 45)]
    sliced = np.concatenate([grid.nearest(rows[:, dims], dims) for dims in parts], 1)
    np.testing.assert_array_equal(sliced, nearest(rows, grid).codes)
    together = np.concatenate([grid.rows(sliced[:, dims], dims) for dims in parts], 1)
    np.testing.assert_array_equal(together, codec(quant).decode(codec(quant).encode(rows), 45))


def test_a_row_takes_a_quarter_or_half_a_byte_per_dimension() -> None:
    for dim in (16, 64, 256, 1024):
        assert codec("int2").row_bytes(dim) == dim // 4 + 4
        assert codec("int4row").row_bytes(dim) == dim // 2 + 4
    assert codec("int2").row_bytes(17) == 2 * 4 + 4
