"""Rows that tasks read: any part of them is that of the whole, and they travel between processes."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

from fllm_export.pair_files import PairArrays
from fllm_export.scale.building import write_in_parts
from fllm_export.scale.row_sources import ClosedFormRows, VectorRows
from fllm_export.table.options import TableOptions
from fllm_export.training.closed_form import ClosedForm, Setting
from fllm_export.training.interactions import Interactions
from fllm_export.training.landmarks import choose_landmarks
from fllm_export.training.user_stream import UserStream

USERS, ITEMS, DIM = 700, 60, 12


def test_a_table_of_files_of_vectors(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((900, 16)).astype(np.float32)
    np.save(tmp_path / "a.npy", rows[:500])
    np.save(tmp_path / "b.npy", rows[500:])
    source = pickle.loads(pickle.dumps(VectorRows((tmp_path / "a.npy", tmp_path / "b.npy"))))
    assert (source.rows, source.dim, source.bias) == (900, 16, False)
    found = [chunk for first in (0, 450, 890) for chunk in source.chunks(first, min(440, 900 - first))]
    ids = np.concatenate([chunk[1] for chunk in found])
    np.testing.assert_array_equal(np.concatenate([chunk[0] for chunk in found]), rows[ids])
    layout = write_in_parts(tmp_path / "t", source, TableOptions(quant="fp16", shard_bytes=1 << 13))
    assert layout.rows == 900
    assert len(layout.shards) > 2


def test_the_closed_form_by_tasks_is_that_of_one_machine(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    users, items = np.nonzero(generator.random((USERS, ITEMS)) < 0.1)
    interactions = Interactions(PairArrays(3 * users + 5, items), np.arange(ITEMS), tmp_path / "work")
    x = generator.standard_normal((ITEMS, 9))
    landmarks = choose_landmarks(x, DIM)
    form = ClosedForm.fit(x[interactions.items], landmarks, interactions.counts, Setting())
    bias = generator.standard_normal(interactions.users).astype(np.float32)
    stream = UserStream(form, interactions, tmp_path / "work", bias)
    options = TableOptions(quant="int8", shard_bytes=1 << 12)
    stream.write_table(tmp_path / "one", quant="int8", shard_bytes=1 << 12)
    write_in_parts(tmp_path / "many", ClosedFormRows(stream), options, items=stream.sketch_items)
    one, many = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "many"))
    assert len(one) > 3
    assert one == many
    assert len(pickle.loads(pickle.dumps(ClosedFormRows(stream))).key) == 64
