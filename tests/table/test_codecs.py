from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fllm_export import UsageError
from fllm_export.table.codecs import CODECS, Codec, codec
from fllm_export.table.rounding import Grid, Rounded, nearest

ROWS = st.integers(1, 70).flatmap(
    lambda dim: arrays(np.float32, st.tuples(st.integers(1, 8), st.just(dim)), elements=st.floats(-1e6, 1e6, width=32))
)
# Half a step of the grid relative to the row's largest magnitude; int4's group multiplier rounds up by one part of 255.
HALF_STEP = {"fp32": 0.0, "fp16": 2**-11, "int8": 0.5 / 127, "fp8": 16 / 448, "int4": 0.5 / 7 * (1 + 1 / 127)}


@pytest.mark.parametrize("quant", [CODECS[name] for name in HALF_STEP], ids=HALF_STEP)
@settings(max_examples=150, deadline=None)
@given(rows=ROWS)
def test_a_decoded_row_is_within_half_a_step(quant: Codec, rows: np.ndarray) -> None:
    stored = quant.encode(rows)
    decoded = quant.decode(stored, rows.shape[1])
    peaks = np.abs(rows).max(1, keepdims=True).astype(np.float64)
    bound = HALF_STEP[quant.name] * peaks * (1 + 1e-5) + 1e-36
    assert (np.abs(decoded.astype(np.float64) - rows) <= bound).all()


@pytest.mark.parametrize("quant", CODECS.values(), ids=CODECS)
@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_stored_tensors_are_as_declared(quant: Codec, rows: np.ndarray) -> None:
    dim = rows.shape[1]
    stored = quant.encode(rows)
    declared = quant.tensors(dim)
    assert set(stored) == set(declared)
    for name, (_, shape) in declared.items():
        assert stored[name].shape == (len(rows), *shape)
    assert sum(array.nbytes for array in stored.values()) == len(rows) * quant.row_bytes(dim)
    assert np.isfinite(stored["scales"]).all()
    # Odd integers reach a row of zeros by the scale 0 alone.
    assert (stored["scales"] >= (0 if quant.in_blocks else np.finfo(np.float32).tiny)).all()


@pytest.mark.parametrize("quant", CODECS.values(), ids=CODECS)
def test_row_norms_survive(quant: Codec) -> None:
    """One scale for the whole table would flatten the small rows to zero; per-row scales keep them."""
    generator = np.random.default_rng(0)
    norms = np.logspace(-30, 30, 61, dtype=np.float64)[:, None]
    rows = (generator.standard_normal((61, 64)) * norms).astype(np.float32)
    decoded = quant.decode(quant.encode(rows), 64)
    ratio = np.linalg.norm(decoded.astype(np.float64), axis=1) / np.linalg.norm(rows.astype(np.float64), axis=1)
    # Least squares shortens a row by what it leaves out: two bits, by 6% on average; signs, by 20%.
    np.testing.assert_allclose(ratio, 1, atol={"int2": 0.12, "int1": 0.27}.get(quant.name, 0.1))


@pytest.mark.parametrize("quant", CODECS.values(), ids=CODECS)
def test_extreme_rows_stay_finite(quant: Codec) -> None:
    largest = np.finfo(np.float32).max
    rows = np.array([[0, 0, 0], [largest, -largest, 1], [1e-45, 0, -1e-45], [1e-38, 2e-38, 0]], np.float32)
    decoded = quant.decode(quant.encode(rows), 3)
    assert np.isfinite(decoded).all()
    assert (decoded[0] == 0).all()
    np.testing.assert_allclose(decoded[1, :2], rows[1, :2], rtol=0.35 if quant.in_blocks else 1e-3)


def test_fp8_bytes_are_those_of_an_independent_implementation() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    generator = np.random.default_rng(1)
    grid = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    grid = np.sort(grid[np.isfinite(grid)])
    values = np.concatenate([grid, (grid[1:] + grid[:-1]) / 2, generator.uniform(-448, 448, 100_000)])
    rows = np.concatenate([values.astype(np.float32), [448]]).astype(np.float32)[None]
    stored = codec("fp8").encode(rows)
    assert stored["scales"][0] == 1
    expected = rows.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    # Minus zero and zero are one number; everything else is compared as bytes.
    np.testing.assert_array_equal(stored["codes"] & 0x7F, expected & 0x7F)
    nonzero = (expected & 0x7F) != 0
    np.testing.assert_array_equal(stored["codes"][nonzero], expected[nonzero])


@pytest.mark.parametrize("quant", ["int8", "fp8", "int4", "int4row", "int2"])
def test_values_are_multiples_of_one_step_so_that_sums_are_exact(quant: str) -> None:
    rows = np.random.default_rng(2).standard_normal((50, 96)).astype(np.float32)
    chosen = codec(quant)
    values = chosen.values(chosen.encode(rows), 96) * 2**9
    assert (values == np.rint(values)).all()
    assert np.abs(values).max() * 8127 * 4096 < 2**53


def test_an_unknown_codec_is_named() -> None:
    with pytest.raises(UsageError, match=r"no codec 'int3'.*fp32, fp16, int8, fp8, int4, int4row, int2"):
        codec("int3")


def passed_on(rows: np.ndarray, grid: Grid) -> Rounded:
    """Round dimension by dimension; each takes over the error of the one before it."""
    error = np.zeros((len(rows), 1), np.float32)
    codes = []
    for dim in range(rows.shape[1]):
        here = slice(dim, dim + 1)
        meant = rows[:, here] + error
        codes.append(grid.nearest(meant, here))
        error = meant - grid.rows(codes[-1], here)
    return Rounded(np.concatenate(codes, 1), np.ones(len(rows), np.float32))


@pytest.mark.parametrize("quant", CODECS.values(), ids=CODECS)
def test_a_rounding_that_feeds_errors_back_needs_nothing_of_the_codec(quant: Codec) -> None:
    rows = np.random.default_rng(3).standard_normal((50, 70)).astype(np.float32)
    plain, fed = (quant.decode(quant.encode(rows, rule), 70) for rule in (nearest, passed_on))
    sums = [np.abs((decoded - rows).sum(1, dtype=np.float64)).max() for decoded in (plain, fed)]
    # One step at most is left of the sum of a whole row, where independent errors add up.
    if quant.name in HALF_STEP:
        assert sums[1] <= 2 * HALF_STEP[quant.name] * np.abs(rows).max() + 1e-4
    assert quant.name in ("fp32", "fp16") or sums[1] < sums[0]


@pytest.mark.parametrize("quant", CODECS.values(), ids=CODECS)
def test_the_grid_says_what_its_codes_stand_for(quant: Codec) -> None:
    rows = np.random.default_rng(4).standard_normal((20, 45)).astype(np.float32)
    grid, _ = quant.grid(rows)
    np.testing.assert_allclose(grid.rows(nearest(rows, grid).codes), quant.decode(quant.encode(rows), 45), rtol=1e-6)


def test_numbers_beyond_the_grid_become_its_largest() -> None:
    """A rounding by data may ask for more than the row's largest number; e4m3 has a NaN where 480 would be."""
    for quant in CODECS.values():
        if quant.name not in ("fp32", "fp16"):
            grid, _ = quant.grid(np.ones((2, 40), np.float32))
            codes = grid.nearest(np.array([[1.3], [-40.0]], np.float32) * np.ones((2, 40), np.float32))
            largest = np.abs(grid.rows(codes))
            assert np.isfinite(largest).all(), quant.name
            assert (largest == largest[0, 0]).all(), quant.name
