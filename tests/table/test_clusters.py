from __future__ import annotations

import numpy as np
import pytest

from fllm_export.table import clusters


def order_of(rows: np.ndarray, tile_rows: int) -> np.ndarray:
    points = clusters.features(rows, clusters.principal_directions(rows))
    return clusters.clustered(points, tile_rows)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000, 4096])
@pytest.mark.parametrize("kind", ["gauss", "zeros", "ties"])
def test_every_row_is_there_once_and_tiles_ascend(count: int, kind: str) -> None:
    generator = np.random.default_rng(count)
    rows = generator.standard_normal((count, 7)).astype(np.float32)
    rows = {"gauss": rows, "zeros": 0 * rows, "ties": np.sign(rows)}[kind]
    order = order_of(rows, 64)
    assert (np.sort(order) == np.arange(count)).all()
    for start in range(0, count, 64):
        assert (np.diff(order[start : start + 64]) > 0).all()


def test_rows_that_lie_together_share_a_tile() -> None:
    generator = np.random.default_rng(0)
    group = generator.integers(0, 8, 4096)
    rows = (20 * np.eye(8, 24)[group] + generator.standard_normal((4096, 24))).astype(np.float32)
    tiles = group[order_of(rows, 64)].reshape(-1, 64)
    mixed = sum(len(np.unique(tile)) > 1 for tile in tiles)
    assert mixed <= 16


def test_rows_of_one_length_share_a_tile() -> None:
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((4096, 24)).astype(np.float32) * generator.lognormal(0, 1, (4096, 1))
    norms = np.linalg.norm(rows, axis=1)
    tiles = norms[order_of(rows.astype(np.float32), 64)].reshape(-1, 64)
    assert np.median(tiles.max(1) / tiles.min(1)) < 0.2 * norms.max() / norms.min()


def test_the_order_is_the_same_each_time() -> None:
    rows = np.random.default_rng(0).standard_normal((3000, 40)).astype(np.float32)
    assert (order_of(rows, 256) == order_of(rows.copy(), 256)).all()
