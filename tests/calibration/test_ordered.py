"""The transform for tables with refinement rows: all of the score, the important directions first."""

from __future__ import annotations

import numpy as np
import pytest

from fllm_export.calibration.directions import Directions, cut, ordered
from fllm_export.calibration.moments import Moments

GENERATOR = np.random.default_rng(0)
DIM, KEPT = 24, 9
MIX = GENERATOR.standard_normal((DIM, DIM)) * np.linspace(3, 0.1, DIM)
ITEMS = (GENERATOR.standard_normal((400, DIM)) @ MIX.T).astype(np.float32)
ROWS = (GENERATOR.standard_normal((900, DIM)) @ MIX).astype(np.float32)


@pytest.fixture(scope="module")
def directions() -> Directions:
    return Directions.of(Moments.of((ITEMS,)), Moments.of((ROWS,)))


@pytest.mark.parametrize("dim", [1, KEPT, DIM - 1, DIM])
def test_no_score_changes(directions: Directions, dim: int) -> None:
    transform = ordered(directions, dim)
    assert transform.dim == DIM
    found = transform.item_vectors(ITEMS) @ transform.rows(ROWS).T
    truth = ITEMS @ ROWS.T
    np.testing.assert_allclose(found, truth, atol=2e-5 * np.abs(truth).max())


def test_the_leading_dimensions_are_those_of_the_cut(directions: Directions) -> None:
    whole, short = ordered(directions, KEPT), cut(directions, KEPT, "int8")
    np.testing.assert_allclose(
        whole.item_vectors(ITEMS)[:, :KEPT] @ whole.rows(ROWS)[:, :KEPT].T,
        short.item_vectors(ITEMS) @ short.rows(ROWS).T,
        atol=1e-3,
        rtol=1e-3,
    )
    ratio = whole.rows(ROWS)[:, :KEPT] / short.rows(ROWS)
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-3)
