from __future__ import annotations

import numpy as np
import pytest

from fllm_export.calibration.directions import Directions
from fllm_export.calibration.moments import Moments
from fllm_export.calibration.ranks import offered_dims, recall_by_dim, smallest_dim


@pytest.fixture(scope="module")
def tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    decay = np.arange(1, 33) ** -1.0
    rows, z = (generator.standard_normal((count, 32)) * decay for count in (900, 400))
    return rows.astype(np.float32), z.astype(np.float32), generator.standard_normal(900).astype(np.float32) * 0.1


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("chunk", [7, 250, 2000])
def test_recall_in_one_pass_is_that_of_whole_rankings(tables, biased: bool, chunk: int, monkeypatch) -> None:
    monkeypatch.setattr("fllm_export.calibration.ranks._NUMBERS_AT_ONCE", 12_000)
    rows, z, bias = tables
    whole = Directions.of(Moments.of([z]), Moments.of([rows])).transform(32, 0.5)
    chunks = [
        (rows[first : first + chunk], bias[first : first + chunk] if biased else None)
        for first in range(0, len(rows), chunk)
    ]
    found = recall_by_dim(whole, [4, 16, 32], z[:20], chunks, 50)
    added = bias if biased else 0
    best = np.argsort(-(z[:20] @ rows.T + added), 1)[:, :50]
    for m, recall in found.items():
        cut = (z[:20] @ whole.items[:m].T) @ (rows @ whole.users[:m].T).T + added
        again = np.argsort(-cut, 1)[:, :50]
        expected = np.mean([len(np.intersect1d(a, b)) / 50 for a, b in zip(best, again, strict=True)])
        assert recall == pytest.approx(expected, abs=0.003)
    assert found[4] < found[16] < found[32] == 1


def test_the_smallest_dimension_is_one_that_all_larger_ones_surpass() -> None:
    recalls = {8: 0.991, 16: 0.97, 24: 0.99, 32: 0.999}
    assert smallest_dim(recalls, 0.99) == 24
    assert smallest_dim(recalls, 0.9) == 8
    assert smallest_dim(recalls, 0.9999) is None
    assert smallest_dim({}, 0.5) is None


def test_dimensions_on_offer_are_below_and_finely_spaced() -> None:
    for dim in (1, 2, 16, 100, 256, 1024, 4096):
        found = offered_dims(dim)
        assert found == sorted(set(found))
        assert all(0 < m < dim for m in found)
        if dim >= 256:
            assert all(m % 8 == 0 for m in found)
            assert max(b / a for a, b in zip(found[5:], [*found[6:], dim], strict=True)) <= 1.25
    assert offered_dims(1) == []
