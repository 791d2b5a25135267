from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm_export.calibration.directions import rotation
from fllm_export.calibration.feedback import Feedback
from fllm_export.table.codecs import codec
from fllm_export.table.rounding import nearest

CODECS = ("int8", "fp8", "int4", "int4row", "int2", "int1")


def tables(dim: int, seed: int, decay: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """White rows, and the second moment of item vectors that have most of their size in few directions."""
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((60, dim)).astype(np.float32)
    turn = rotation(dim, seed).items
    sizes = np.arange(1, dim + 1) ** -decay
    return rows, (turn * sizes) @ turn.T


def error(rows: np.ndarray, stored: np.ndarray, metric: np.ndarray) -> np.ndarray:
    lost = rows.astype(np.float64) - stored
    return np.einsum("nd,de,ne->n", lost, metric, lost)


def least_error(rows: np.ndarray, stored: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """The error with the best scale for each row: feedback's own scales are unbiased, which makes few bits longer."""
    along, squares = (np.einsum("nd,de,ne->n", part, metric, stored.astype(np.float64)) for part in (rows, stored))
    return error(rows, stored * (along / squares)[:, None], metric)


@pytest.mark.parametrize("quant", CODECS)
@settings(max_examples=15)
@given(dim=st.integers(24, 90), seed=st.integers(0, 1 << 30))
def test_scores_change_less_than_by_the_nearest_codes(quant: str, dim: int, seed: int) -> None:
    rows, metric = tables(dim, seed)
    kind = codec(quant)
    plain, fed = (kind.decode(kind.encode(rows, rule), dim) for rule in (nearest, Feedback(metric)))
    assert least_error(rows, fed, metric).mean() < 0.9 * least_error(rows, plain, metric).mean()


@pytest.mark.parametrize("quant", CODECS)
def test_a_round_metric_leaves_nothing_to_feed_back(quant: str) -> None:
    rows, _ = tables(40, 0)
    kind = codec(quant)
    plain, fed = (kind.encode(rows, rule) for rule in (nearest, Feedback(np.eye(40))))
    np.testing.assert_array_equal(plain["codes"], fed["codes"])


def test_the_error_of_a_row_has_no_part_along_the_row() -> None:
    rows, metric = tables(48, 3)
    kind = codec("int2")
    stored = kind.decode(kind.encode(rows, Feedback(metric)), 48).astype(np.float64)
    damped = metric / np.diag(metric).mean() + 1e-3 * np.eye(48)
    along = np.einsum("nd,de,ne->n", rows, damped, rows - stored) / np.einsum("nd,de,ne->n", rows, damped, rows)
    np.testing.assert_allclose(along, 0, atol=1e-4)


def test_rows_in_parts_are_rounded_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, metric = tables(33, 5)
    kind, rule = codec("int4row"), Feedback(metric)
    whole = kind.decode(kind.encode(rows, rule), 33)
    monkeypatch.setattr("fllm_export.calibration.feedback._ROWS_AT_ONCE", 7)
    parts = kind.decode(kind.encode(rows, rule), 33)
    # Sums in another order may bring a number over the middle between two codes.
    same = np.isclose(whole, parts, rtol=1e-4, atol=1e-5).all(1)
    assert same.mean() > 0.95


@pytest.mark.parametrize("quant", CODECS)
@pytest.mark.parametrize("size", [1e-36, 1e36])
def test_rows_of_any_size_and_rows_of_zeros_stay_finite(quant: str, size: float) -> None:
    rows, metric = tables(20, 1)
    rows = (rows * size).astype(np.float32)
    rows[3] = 0
    kind = codec(quant)
    stored = kind.decode(kind.encode(rows, Feedback(metric)), 20)
    assert np.isfinite(stored).all()
    assert not stored[3].any()
    assert (np.abs(stored - rows).max() if quant not in ("int2", "int1") else 0) < 0.5 * np.abs(rows).max()
