"""The rows of a shard are what its codes stand for, and describing them takes no copy of all of them in fp32."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fllm_export.table import native, sketch
from fllm_export.table.codec_names import CODEC_NAMES, CodecName
from fllm_export.table.codecs import codec
from fllm_export.table.options import TableOptions
from fllm_export.table.shard_rows import ShardRows
from fllm_export.table.writer import TableWriter


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", CODEC_NAMES)
def test_parts_and_samples_are_rows_of_the_decoded_shard(
    name: CodecName, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(native, "_core", None)
    known = codec(name)
    stored = known.encode(np.random.default_rng(0).standard_normal((101, 37), dtype=np.float32))
    whole = known.decode(stored, 37)
    rows = ShardRows(known, {**stored, "ids": np.arange(101)}, 37)
    assert len(rows) == 101
    np.testing.assert_array_equal(rows.part(16, 48), whole[16:48])
    np.testing.assert_array_equal(rows.part(96, 112), whole[96:])
    np.testing.assert_array_equal(rows.sample(3), whole[[0, 50, 100]])
    np.testing.assert_array_equal(rows.sample(1000), whole)


def test_a_clustered_shard_with_a_sketch_needs_less_memory_than_its_rows_in_fp32(tmp_path: Path) -> None:
    count, dim = 60_000, 128
    row = np.random.default_rng(1).standard_normal((10_000, dim), dtype=np.float32)
    options = TableOptions("int8", sketch="yes", cluster="yes")
    writer = TableWriter(tmp_path / "t", options, dim=dim)
    for _ in range(0, count, len(row)):
        writer.add(row)
    del row
    tracemalloc.start()
    try:
        writer.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < count * dim * 4 + 16_384 * dim * 12


def test_an_encoder_makes_of_each_part_what_it_makes_of_all() -> None:
    rows = np.random.default_rng(2).standard_normal((61, 40), dtype=np.float32)
    encoder = sketch.Encoder(sketch.make_basis(40, 32, rows))
    parts = encoder.room(len(rows))
    for first in (0, 32):
        part = {name: array[first // 16 : (first + 32) // 16] for name, array in parts.items()}
        encoder.encode(rows[first : first + 32], part)
    for name, array in sketch.encode(rows, encoder.basis).items():
        np.testing.assert_array_equal(parts[name], array)
