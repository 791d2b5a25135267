"""Tiles of uneven size, which end where clusters do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fllm_export import BundleError, UserTable
from fllm_export.engines.base import UserFilter
from fllm_export.table import centres, clusters, native
from fllm_export.table.layout import TableLayout
from fllm_export.table.living import LivingTable
from fllm_export.table.table import Table

ENGINES = ("numpy", *(("native",) if native._core is not None else ()))
OPTIONS: dict[str, Any] = {"sketch": "no", "cluster": "yes"}


@contextmanager
def numpy_alone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_core", None)
        yield


def mixture(count: int, dim: int, groups: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return rows around centres, and the number of each row's centre."""
    generator = np.random.default_rng(seed)
    middle = generator.standard_normal((groups, dim))
    own = generator.integers(0, groups, count)
    return (middle[own] + spread * generator.standard_normal((count, dim))).astype(np.float32), own


def points_of(rows: np.ndarray) -> np.ndarray:
    return clusters.features(rows, clusters.principal_directions(rows))


def assert_whole(found: clusters.Tiling, count: int, tile_rows: int) -> None:
    assert (np.sort(found.order) == np.arange(count)).all()
    ends = found.ends
    assert ends is not None
    sizes = np.diff(ends, prepend=0)
    assert ends[-1] == count
    assert (ends[:-1] % 16 == 0).all()
    assert (sizes >= 1).all()
    assert (sizes <= 2 * tile_rows).all()
    for stop, size in zip(ends, sizes, strict=True):
        assert (np.diff(found.order[stop - size : stop]) > 0).all()


@pytest.mark.parametrize(("dim", "groups"), [(128, 40), (16, 5), (3, 6), (40, 300)])
def test_tiles_hold_rows_of_one_cluster(dim: int, groups: int) -> None:
    count = max(6_000, 160 * groups)
    rows, own = mixture(count, dim, groups, 0.3 if dim > 8 else 0.02)
    found = clusters.tiling(points_of(rows), 256)
    assert_whole(found, count, 256)
    assert found.ends is not None
    starts = np.append(0, found.ends[:-1])
    mixed = [
        start for start, stop in zip(starts, found.ends, strict=True) if len(set(own[found.order[start:stop]])) > 1
    ]
    assert mixed[0] >= 0.92 * count  # what is left over, at the end


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(20, 3000),
    st.integers(1, 40),
    st.integers(1, 30),
    st.sampled_from([0.0, 1e-4, 0.05, 0.3, 0.5, 1.0]),
    st.sampled_from([16, 64, 1024, 24]),
    st.integers(0, 1 << 30),
)
def test_both_writers_cut_alike(count: int, dim: int, groups: int, spread: float, tile_rows: int, seed: int) -> None:
    rows, _ = mixture(count, dim, groups, spread, seed)
    points = points_of(rows)
    found = clusters.tiling(points, tile_rows)
    with numpy_alone():
        expected = clusters.tiling(points, tile_rows)
    np.testing.assert_array_equal(found.order, expected.order)
    if expected.ends is None:
        assert found.ends is None
        np.testing.assert_array_equal(found.order, clusters.clustered(points, tile_rows))
    else:
        np.testing.assert_array_equal(found.ends, expected.ends)
        assert_whole(found, count, tile_rows)


@pytest.mark.parametrize("groups", [150, 380])
def test_both_writers_cut_large_shards_alike(groups: int) -> None:
    """More rows than a sample has, in clusters of sizes that differ a lot, and some rows in none."""
    generator = np.random.default_rng(1)
    rows, own = mixture(140_000, 64, groups, 0.3)
    rows = rows[generator.random(len(rows)) < 1 / (1 + own % 7)]
    rows[::900] *= 3
    points = points_of(rows)
    found = clusters.tiling(points, 1024)
    assert_whole(found, len(rows), 1024)
    with numpy_alone():
        expected = clusters.tiling(points, 1024)
    np.testing.assert_array_equal(found.order, expected.order)
    np.testing.assert_array_equal(found.ends, expected.ends)


@pytest.mark.parametrize("kind", ["gauss", "spectrum", "one cluster", "zeros", "many"])
def test_rows_without_clusters_keep_full_tiles(kind: str) -> None:
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((20_000, 48))
    rows = {
        "gauss": rows,
        "spectrum": rows * np.arange(1, 49) ** -0.7 * generator.lognormal(0, 0.4, (20_000, 1)),
        "one cluster": 1 + 1e-3 * rows,
        "zeros": 0 * rows,
        "many": mixture(20_000, 48, 5_000, 0.1)[0],  # of four rows each
    }[kind]
    points = points_of(rows.astype(np.float32))
    found = clusters.tiling(points, 1024)
    assert found.ends is None
    np.testing.assert_array_equal(found.order, clusters.clustered(points, 1024))


def test_what_is_far_from_all_centres_is_left_apart() -> None:
    rows, _ = mixture(20_000, 32, 20, 0.1)
    rows[::500] *= 4
    found = clusters.tiling(points_of(rows), 1024)
    assert found.ends is not None
    assert (np.flatnonzero(np.isin(found.order, np.arange(0, 20_000, 500))) >= found.ends[-2]).all()


def test_the_grid_is_exact() -> None:
    """The largest sums that can be are whole numbers that float32 holds."""
    places = np.full((4, 32), centres._LARGEST, np.float32)
    own, squares = centres._nearest(places, -places)
    assert squares[0] == 4 * 32 * centres._LARGEST**2 < 1 << 24
    assert own[0] == 0


def write(directory: Path, rows: np.ndarray, **options: Any) -> Table:
    UserTable.create(directory, rows, np.arange(len(rows)) * 3, **{**OPTIONS, **options})
    return Table(directory)


@pytest.mark.parametrize("quant", ["int8", "int4", "int2", "int4row", "fp16", "fp32", "fp8"])
@pytest.mark.parametrize("sketch", ["no", "yes"])
def test_searches_are_those_of_a_plain_table(quant: str, sketch: str, tmp_path: Path) -> None:
    if sketch == "yes" and quant in ("int2", "int4row"):
        pytest.skip("these codecs have no sketch")
    rows, _ = mixture(6_001, 40, 9, 0.2)
    table = write(tmp_path / "t", rows, quant=quant, sketch=sketch)
    assert table.layout.reader_features == ["tile_ends"]
    assert table.shards[0].uneven
    assert table.verify() > 0
    write(tmp_path / "plain", rows, quant=quant, cluster="no")
    for count in (1, 7, 40):
        items = rows[:: 6_001 // count][:count]
        expected = UserTable.open(tmp_path / "plain", engine="numpy").topk(items, 30, log_probs="exact")
        for engine in ENGINES:
            for log_probs in ("none", "exact", "certified"):
                found = UserTable.open(tmp_path / "t", engine=engine).topk(items, 30, log_probs=log_probs)
                np.testing.assert_array_equal(found.user_ids, expected.user_ids)
                np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("engine", ENGINES)
def test_estimates_filters_and_samples_are_those_of_numpy(engine: str, tmp_path: Path) -> None:
    rows, _ = mixture(20_003, 24, 30, 0.2)
    write(tmp_path / "t", rows)
    table, reference = UserTable.open(tmp_path / "t", engine=engine), UserTable.open(tmp_path / "t", engine="numpy")
    some = np.arange(0, 60_000, 21)
    filters = [UserFilter(some, deny=deny) for deny in (False, True)]
    for options in ({"log_probs": "estimate"}, {"filter": filters[0]}, {"filter": filters[1], "log_probs": "estimate"}):
        found, expected = table.topk(rows[:6], 20, **options), reference.topk(rows[:6], 20, **options)
        np.testing.assert_array_equal(found.user_ids, expected.user_ids)
        if "log_probs" in options:
            np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-5)
    found, expected = (each.topk(rows[:6], 20, mode="sample", seed=3) for each in (table, reference))
    np.testing.assert_array_equal(found.user_ids, expected.user_ids)


def test_a_shard_is_uneven_by_itself(tmp_path: Path) -> None:
    """One shard of clusters, and one of none."""
    rows = np.concatenate([mixture(8_192, 32, 12, 0.1)[0], mixture(8_192, 32, 1, 1.0)[0]])
    table = write(tmp_path / "t", rows, shard_bytes=400_000)
    assert {shard.uneven for shard in table.shards} == {False, True}
    table.verify()
    best = (rows @ rows[:3].T).argmax(0) * 3
    for engine in ENGINES:
        assert (UserTable.open(tmp_path / "t", engine=engine).topk(rows[:3], 5).user_ids[:, 0] == best).all()


def test_tables_of_full_tiles_need_no_feature(tmp_path: Path) -> None:
    table = write(tmp_path / "t", mixture(3_000, 32, 1, 1.0)[0])
    assert table.layout.reader_features == []
    assert "tile_ends" not in (tmp_path / "t" / "table.json").read_text()


def test_uneven_tiles_take_little_room(tmp_path: Path) -> None:
    """Clusters have 128 rows or more on average, so the bounds of their tiles are a small part of a shard."""
    rows, _ = mixture(40_000, 64, 290, 0.1)
    table = write(tmp_path / "t", rows)
    full = write(tmp_path / "full", mixture(40_000, 64, 1, 1.0)[0])
    assert len(table.shards[0].tile_ends) > 290
    assert full.layout.shards[0].bytes < table.layout.shards[0].bytes < 1.04 * full.layout.shards[0].bytes


@pytest.mark.parametrize("quant", ["int8", "int4row"])
def test_a_table_that_changes(quant: str, tmp_path: Path) -> None:
    rows, _ = mixture(9_000, 32, 12, 0.1)
    write(tmp_path / "t", rows[:5_000], quant=quant)
    table = LivingTable(tmp_path / "t")
    table.append([(rows[5_000:], np.arange(5_000, 9_000) * 3, None)])
    table.update([(rows[:50], np.arange(50) * 3, None)])
    table.delete(np.arange(0, 9_000, 7) * 3)
    write(tmp_path / "plain", rows, quant=quant, cluster="no")
    deleted = UserFilter(np.arange(0, 9_000, 7) * 3, deny=True)
    expected = UserTable.open(tmp_path / "plain", engine="numpy").topk(rows[:5], 20, filter=deleted)
    for compacted in (False, True):
        if compacted:
            table.compact()
        layout = TableLayout.load(tmp_path / "t")
        assert layout.tile_ends
        assert Table(tmp_path / "t").shards[0].uneven
        Table(tmp_path / "t").verify()
        for engine in ENGINES:
            found = UserTable.open(tmp_path / "t", engine=engine).topk(rows[:5], 20)
            np.testing.assert_array_equal(found.user_ids, expected.user_ids)


def test_changes_leave_a_table_of_full_tiles_readable(tmp_path: Path) -> None:
    """Rows that come later may lie in clusters: a reader that knows no uneven tiles reads them all the same."""
    write(tmp_path / "t", mixture(3_000, 32, 1, 1.0)[0])
    LivingTable(tmp_path / "t").append([(mixture(6_000, 32, 9, 0.1)[0], np.arange(6_000) + 100_000, None)])
    table = Table(tmp_path / "t")
    assert table.layout.reader_features == []
    assert not any(shard.uneven for shard in table.shards)
    table.verify()


def test_a_reader_without_the_feature_is_told_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "t", mixture(5_000, 32, 9, 0.1)[0])
    monkeypatch.setattr("fllm_export.table.layout.READER_FEATURES", frozenset({"tombstones"}))
    with pytest.raises(BundleError, match="needs the reader features tile_ends"):
        Table(tmp_path / "t")
