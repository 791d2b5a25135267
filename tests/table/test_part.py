"""Parts of a table: every row in exactly one, the same rows in every engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm_export import UsageError, UserTable
from fllm_export.table.layout import ShardEntry, TableLayout
from fllm_export.table.living import LivingTable
from fllm_export.table.part import TablePart
from fllm_export.table.tombstones import Tombstones

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.standard_normal((3000, 64)).astype(np.float32)
Z = GENERATOR.standard_normal((5, 64)).astype(np.float32)


def layout_of(rows: list[int]) -> TableLayout:
    shards = tuple(ShardEntry(f"{i:05d}.safetensors", count, 1, "") for i, count in enumerate(rows))
    return TableLayout("int8", 8, sum(rows), 64, False, 1, 0, False, shards)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=40), st.integers(1, 50))
def test_each_shard_is_in_one_part_and_parts_are_balanced(rows: list[int], count: int) -> None:
    layout = layout_of(rows)
    parts = [part.shards(layout) for part in TablePart.all(count)]
    assert [shard for part in parts for shard in part] == list(range(len(rows)))
    sizes = [sum(rows[i] for i in part) for part in parts]
    assert max(sizes) <= sum(rows) / count + 2 * max(rows)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=9), st.integers(1, 6), st.randoms(use_true_random=False))
def test_tombstones_are_cut_with_the_shards(rows: list[int], count: int, random: object) -> None:
    layout, total = layout_of(rows), sum(rows)
    deleted = np.array(sorted(random.sample(range(total), total // 3)), np.int64)  # type: ignore[attr-defined]
    marked = Tombstones.none().with_rows(deleted, total)
    layout = replace(layout, rows=total - len(deleted))
    found, first = [], 0
    for part in TablePart.all(count):
        cut, own = part.cut(layout, marked)
        found.append(first + np.flatnonzero(own.marks(np.arange(cut.stored_rows))))
        assert cut.rows == cut.stored_rows - own.deleted == part.rows(layout, marked)
        first += cut.stored_rows
    np.testing.assert_array_equal(np.concatenate(found), deleted)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of several shards, some rows of which are deleted and others of which were appended."""
    place = tmp_path_factory.mktemp("parts") / "t"
    UserTable.create(place, ROWS, shard_bytes=1 << 15)
    writer = LivingTable(place, shard_bytes=1 << 15)
    writer.delete(np.arange(0, 3000, 7))
    writer.append([(ROWS[:300] * 2, np.arange(5000, 5300), None)])
    return place


@pytest.mark.parametrize("count", [1, 2, 3])
def test_parts_of_native_are_those_of_the_reference(table: Path, count: int) -> None:
    users: list[np.ndarray] = []
    for number in range(count):
        native = UserTable.open(table, engine="native", threads=2, part=(number, count))
        reference = UserTable.open(table, engine="numpy", part=(number, count))
        assert len(native) == len(reference)
        for k in (1, 50, len(native)):
            found, expected = native.topk(Z, k), reference.topk(Z, k)
            np.testing.assert_array_equal(found.user_ids, expected.user_ids)
            np.testing.assert_array_equal(found.scores, expected.scores)
            np.testing.assert_allclose(found.logsumexp, expected.logsumexp, rtol=1e-6)
            assert found.coverage.tolist() == [1.0] * len(Z)
        ids = np.concatenate([ids for ids, _ in native.decoded()])
        np.testing.assert_array_equal(np.sort(ids), np.sort(native.topk(Z[:1], len(native)).user_ids[0]))
        users.append(ids)
    expected_ids = np.concatenate([np.setdiff1d(np.arange(3000), np.arange(0, 3000, 7)), np.arange(5000, 5300)])
    np.testing.assert_array_equal(np.sort(np.concatenate(users)), expected_ids)


def test_a_filter_and_a_reopening_keep_to_the_part(tmp_path: Path) -> None:
    place = tmp_path / "t"
    UserTable.create(place, ROWS, shard_bytes=1 << 15)
    half = UserTable.open(place, part=(1, 2))
    rows = len(half)
    own = np.concatenate([ids for ids, _ in half.decoded()])
    answer = half.topk(Z, 10, filter=half.filter(deny=own[::2]))
    assert np.isin(answer.user_ids, own[1::2]).all()
    UserTable.open(place).delete(own[:5])
    half.reopen()
    assert len(half) == rows - 5
    assert half.generation == 2


@pytest.mark.parametrize("engine", ["native", "numpy"])
def test_parts_that_cannot_be_opened_are_refused(tmp_path: Path, engine: str) -> None:
    UserTable.create(tmp_path / "t", ROWS)
    with pytest.raises(UsageError, match="holds no user"):
        UserTable.open(tmp_path / "t", engine=engine, part=(0, 4))
    for part in ((4, 4), (-1, 2), (0, 0)):
        with pytest.raises(UsageError, match=r"part"):
            UserTable.open(tmp_path / "t", engine=engine, part=part)
