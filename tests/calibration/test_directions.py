from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm_export import UsageError
from fllm_export.calibration.directions import Directions, rotation
from fllm_export.calibration.moments import Moments


def tables(dim: int, rank: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a rank and item vectors, both far from round."""
    generator = np.random.default_rng(seed)
    decay = np.arange(1, dim + 1) ** -0.7
    rows = generator.standard_normal((300, rank)) @ generator.standard_normal((rank, dim)) * decay
    z = (generator.standard_normal((500, dim)) * decay) @ generator.standard_normal((dim, dim)) / dim
    return rows.astype(np.float32), z.astype(np.float32)


@settings(max_examples=25)
@given(dim=st.integers(1, 16), balance=st.floats(0, 1), seed=st.integers(0, 1 << 30))
def test_all_directions_keep_every_score(dim: int, balance: float, seed: int) -> None:
    rows, z = tables(dim, dim, seed)
    found = Directions.of(Moments.of([z]), Moments.of([rows]))
    kept = found.transform(dim, balance).then(rotation(dim, seed))
    scores = rows.astype(np.float64) @ z.T.astype(np.float64)
    again = kept.rows(rows).astype(np.float64) @ kept.item_vectors(z).T.astype(np.float64)
    np.testing.assert_allclose(again, scores, atol=2e-4 * np.abs(scores).max())
    assert found.kept(dim) == pytest.approx(1)


@settings(max_examples=25)
@given(dim=st.integers(2, 12), seed=st.integers(0, 1 << 30))
def test_no_other_subspace_keeps_more_of_the_scores(dim: int, seed: int) -> None:
    rows, z = tables(dim, dim, seed)
    scores = rows.astype(np.float64) @ z.T.astype(np.float64)
    found = Directions.of(Moments.of([z]), Moments.of([rows]))
    for m in range(1, dim):
        cut = found.transform(m, 0.5)
        error = ((scores - cut.rows(rows).astype(np.float64) @ cut.item_vectors(z).T) ** 2).sum()
        least = (np.linalg.svd(scores, compute_uv=False)[m:] ** 2).sum()
        # The metric is shrunk a little, for texts that are yet to come.
        assert least * (1 - 1e-3) - 1e-6 * (scores**2).sum() <= error <= 1.1 * least + 1e-3 * (scores**2).sum()


def test_balance_divides_the_size_of_a_direction() -> None:
    rows, z = tables(8, 8, 3)
    found = Directions.of(Moments.of([z]), Moments.of([rows]))
    for balance, even in ((0.0, "item_vectors"), (1.0, "rows")):
        kept = found.transform(8, balance)
        spread = (getattr(kept, even)(z if even == "item_vectors" else rows) ** 2).mean(0)
        assert spread.max() / spread.min() < 2.5
        uneven = {"item_vectors": "rows", "rows": "item_vectors"}[even]
        spread = (getattr(kept, uneven)(rows if uneven == "rows" else z) ** 2).mean(0)
        assert spread.max() / spread.min() > 1000
    half = found.transform(8, 0.5)
    sizes = [(values.astype(np.float64) ** 2).mean(0) for values in (half.rows(rows), half.item_vectors(z))]
    ratio = sizes[0] / sizes[1]
    assert ratio.max() / ratio.min() < 2.5


def test_the_rank_of_the_rows_is_found() -> None:
    rows, z = tables(12, 5, 0)
    found = Directions.of(Moments.of([z]), Moments.of([rows]))
    assert found.rank == 5
    cut = found.transform(5, 0.5)
    scores = rows @ z.T
    np.testing.assert_allclose(cut.rows(rows) @ cut.item_vectors(z).T, scores, atol=1e-3 * np.abs(scores).max())
    with pytest.raises(UsageError, match="all user rows are zero"):
        Directions.of(Moments.of([z]), Moments.of([np.zeros((4, 12), np.float32)]))


def test_a_rotation_is_orthogonal_and_repeats_with_its_seed() -> None:
    turn = rotation(9, 4)
    np.testing.assert_allclose(turn.items @ turn.items.T, np.eye(9), atol=1e-12)
    assert turn.fingerprint == rotation(9, 4).fingerprint != rotation(9, 5).fingerprint
