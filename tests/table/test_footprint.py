"""The bytes of a table are known before it is written, to the byte."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm_export.errors import UsageError
from fllm_export.table.codec_names import CODEC_NAMES, UNSKETCHED
from fllm_export.table.footprint import Footprint, row_counts
from fllm_export.table.layout import TableLayout
from fllm_export.table.options import CHOICES, TableOptions
from fllm_export.table.table import Table
from fllm_export.table.writer import TableWriter


def written(folder: Path, options: TableOptions, rows: int, dim: int, *, bias: bool) -> TableLayout:
    generator = np.random.default_rng(rows)
    writer = TableWriter(folder, options, dim=dim, bias=bias)
    ids = generator.permutation(rows)
    for start in range(0, rows, 1000):
        part = ids[start : start + 1000]
        values = generator.standard_normal((len(part), dim), dtype=np.float32)
        writer.add(values, part, values[:, 0] if bias else None)
    return writer.finish()


def check(options: TableOptions, rows: int, dim: int, *, bias: bool) -> Footprint:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "users"
        layout = written(place, options, rows, dim, bias=bias)
        found = Footprint.of(options, rows, dim, bias=bias, sketch_dims=layout.sketch_dims or None)
        size = sum(path.stat().st_size for path in place.iterdir())
        # Random rows of one dimension may lie in clusters that are well apart: their tiles are more, and only then.
        assert found.disk < size if layout.tile_ends else found.disk == size
        assert found.shard_rows == tuple(shard.rows for shard in layout.shards)
        assert (found.tile_rows, found.sketch_dims) == (layout.tile_rows, layout.sketch_dims)
        assert found.clustered == layout.tile_bounds
        tensors = Table(place).shards[0].tile(0, 1).stored
        assert set(tensors) <= set(found.parts)
    return found


@settings(max_examples=30)
@given(
    st.sampled_from(CODEC_NAMES),
    st.integers(1, 5000),
    st.integers(1, 140),
    st.booleans(),
    st.sampled_from(CHOICES),
    st.sampled_from(CHOICES),
    st.sampled_from([1, 20_000, 150_000, 256 << 20]),
)
def test_the_bytes_are_those_of_the_files(quant, rows, dim, bias, sketch, cluster, shard_bytes) -> None:
    rows = rows if shard_bytes > 1 else min(rows, 40)
    sketch = "auto" if quant in UNSKETCHED else sketch
    check(TableOptions(quant, shard_bytes, sketch, cluster), rows, dim, bias=bias)


def test_a_sketch_of_a_single_row() -> None:
    assert check(TableOptions("int8", sketch="yes"), 1, 40, bias=False).sketch_dims == 48


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_table_of_just_one_shard(more: int) -> None:
    options = TableOptions("int8", 150_000)
    rows = row_counts(options, 64)[1] + more
    found = check(options, rows, 64, bias=False)
    # A shard that is full was written before it was known whether rows follow.
    assert found.clustered == (more >= 0)
    assert bool(found.sketch_dims) == (more >= 0)


def test_a_search_reads_neither_ids_nor_what_rules_rows_out() -> None:
    plain = Footprint.of(TableOptions("int8", sketch="no", cluster="no"), 10_000, 64)
    full = Footprint.of(TableOptions("int8", sketch="yes", cluster="yes"), 10_000, 64)
    assert plain.read == plain.resident == 10_000 * 68
    assert full.read == plain.read
    beside = sum(size for name, size in full.parts.items() if name.startswith(("sketch_", "tile_")))
    assert full.resident == full.read + beside
    assert beside > 10_000 * 32


def test_a_sketch_of_unknown_dimensions_is_counted_at_its_largest() -> None:
    options = TableOptions("int8", sketch="yes")
    sizes = [Footprint.of(options, 5000, 100, sketch_dims=dims).disk for dims in (64, 96, 112)]
    assert sorted(sizes) == sizes
    assert Footprint.of(options, 5000, 100).disk == sizes[-1]


@pytest.mark.parametrize("dims", [0, 24, 128, 1.5])
def test_dimensions_that_no_sketch_has_are_refused(dims: object) -> None:
    with pytest.raises(UsageError, match="sketch_dims is"):
        Footprint.of(TableOptions("int8", sketch="yes"), 5000, 100, sketch_dims=dims)  # type: ignore[arg-type]


def test_a_billion_rows_are_counted_without_being_written() -> None:
    found = Footprint.of(TableOptions("int8"), 1_000_000_000, 256)
    assert found.rows == sum(found.shard_rows)
    assert found.disk > 1_000_000_000 * (256 + 4 + 8 + 128)
    assert len(found.shard_rows) > 1000
