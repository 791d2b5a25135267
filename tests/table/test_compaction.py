"""Compactions beside other changes: what was changed meanwhile is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fllm_export import UsageError, UserTable
from fllm_export.files import locked
from fllm_export.table.layout import SHARD_BYTES, TableLayout
from fllm_export.table.living import COMPACTION_LOCK, LivingTable
from fllm_export.table.table import Table

POOL = np.random.default_rng(5).standard_normal((210, 24)).astype(np.float32)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("refine", ["no", "fp16"])
def test_changes_during_a_compaction_are_kept(tmp_path: Path, refine: str) -> None:
    rows = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    UserTable.create(tmp_path / "t", rows[:300], quant="int4", refine=refine, shard_bytes=1 << 12)
    writer, other = LivingTable(tmp_path / "t"), LivingTable(tmp_path / "t")
    writer.append([(rows[300:304], np.arange(300, 304), None)])
    writer.delete([0, 299])

    def meanwhile(stage: str, done: int, total: int) -> None:
        if done == total:
            other.update([(rows[390:392], [5, 301], None)])
            other.delete([7])
            other.append([(rows[310:330], np.arange(310, 330), None)])  # takes in the small shards before it

    change = writer.compact(meanwhile)
    assert change.deleted_rows > 0
    wanted = {user: user for user in [*range(1, 299), *range(300, 304), *range(310, 330)] if user != 7}
    wanted |= {5: 390, 301: 391}
    ids = np.array(sorted(wanted))
    form = {"quant": "int4", "refine": refine}
    fresh = UserTable.create(tmp_path / "fresh", rows[[wanted[user] for user in ids.tolist()]], ids, **form)
    for engine in ("native", "numpy"):
        found = UserTable.open(tmp_path / "t", engine=engine, threads=1).topk(rows[:5], len(ids))
        same = fresh.topk(rows[:5], len(ids))
        np.testing.assert_array_equal(found.user_ids, same.user_ids)
        np.testing.assert_array_equal(found.scores, same.scores)
    assert writer.compact().deleted_rows == 0
    Table(tmp_path / "t").verify()


@pytest.mark.parametrize("shard_bytes", [1 << 12, SHARD_BYTES])
def test_a_table_keeps_the_size_of_its_shards(tmp_path: Path, shard_bytes: int) -> None:
    rows = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    UserTable.create(tmp_path / "t", rows, quant="int8", shard_bytes=shard_bytes)
    before = TableLayout.load(tmp_path / "t")
    # Other readers need not know the member, and tables that leave it out are as they always were.
    assert ("shard_bytes" in before.text()) == (shard_bytes != SHARD_BYTES)
    assert before.reader_features == []
    writer = LivingTable(tmp_path / "t")
    writer.delete(np.arange(0, 400, 20))
    writer.compact()
    after = TableLayout.load(tmp_path / "t")
    assert after.shard_bytes == shard_bytes
    assert after.rows == after.stored_rows == 380
    assert (len(after.shards) > 1) == (shard_bytes != SHARD_BYTES)
    assert max(shard.rows for shard in after.shards) <= max(shard.rows for shard in before.shards)


def test_one_compaction_at_a_time_and_what_one_left_is_removed(tmp_path: Path) -> None:
    UserTable.create(tmp_path / "users", POOL[:100], cluster="yes", shard_bytes=1 << 12)
    table = UserTable.open(tmp_path / "users", threads=1)
    table.delete([3])
    (table.directory / ".compacting-0123abcd-000.safetensors").write_bytes(b"x")
    table.append(POOL[:1], [200])
    assert ".compacting-0123abcd-000.safetensors" in names(table.directory)
    with (
        locked(table.directory / COMPACTION_LOCK, UsageError("never")),
        pytest.raises(UsageError, match="is being compacted already"),
    ):
        table.compact()
    assert table.append(POOL[1:2], [201]).users == 101
    table.compact()
    assert not [name for name in names(table.directory) if "compacting" in name]
