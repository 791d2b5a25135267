"""Disks that are full, read-only or failing: a clear error, a table that is as it was, and readers that go on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import BudgetError, BundleError, FllmError, UsageError, UserTable
from fllm_export.table.layout import FILE_NAME, TableLayout
from fllm_export.table.living import COMPACTION_LOCK
from fllm_export.table.table import Table

ROWS = np.random.default_rng(2).standard_normal((80, 16)).astype(np.float32)

CHANGES: dict[str, Callable[[UserTable], object]] = {
    "append": lambda table: table.append(ROWS[40:50], np.arange(40, 50)),
    "update": lambda table: table.update(ROWS[50:60], np.arange(20, 30)),
    "delete": lambda table: table.delete([1, 2, 33]),
    "compact": lambda table: table.compact(),
}


@pytest.fixture
def table(tmp_path: Path) -> UserTable:
    UserTable.create(tmp_path / "t", ROWS[:32], cluster="yes")
    table = UserTable.open(tmp_path / "t", threads=1)
    table.append(ROWS[32:40], np.arange(32, 40))
    table.delete([0, 7])
    return table


def fail(name: str, number: int, at: int) -> Callable[..., Any]:
    """Return a function of ``os`` that fails with an errno the ``at``-th time that it is called."""
    real, calls = getattr(os, name), iter(range(1 << 30))

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(calls) == at:
            raise OSError(number, os.strerror(number), str(arguments[0]))
        return real(*arguments, **options)

    return failing


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("name", "number", "error"),
    [
        ("fsync", errno.EIO, BundleError),
        ("fsync", errno.ENOSPC, BudgetError),
        ("fsync", errno.EDQUOT, BudgetError),
        ("replace", errno.EIO, BundleError),
        ("replace", errno.EROFS, UsageError),
        ("link", errno.EIO, BundleError),
    ],
)
def test_a_failing_call_of_the_system_changes_nothing(
    change: str, name: str, number: int, error: type[FllmError], table: UserTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, failures = TableLayout.load(table.directory), 0
    for at in range(20):
        answer = table.topk(ROWS[:3], 5)
        files = {path.name for path in table.directory.iterdir()}
        with monkeypatch.context() as patched:
            patched.setattr(os, name, fail(name, number, at))
            try:
                CHANGES[change](table)
                break
            except error as refused:
                message = str(refused)
        failures += 1
        assert os.strerror(number) in message
        now = TableLayout.load(table.directory)
        if now == before:
            assert "the table is unchanged" in message
            assert FILE_NAME in files
        else:  # the last sync of the directory: the change was made
            assert "the change was made, and a power cut may undo it" in message
            assert now.generation == before.generation + 1
        Table(table.directory).verify()
        np.testing.assert_array_equal(table.topk(ROWS[:3], 5).user_ids, answer.user_ids)
        if now != before:
            break
    assert failures >= 1
    table.reopen()
    Table(table.directory).verify()
    table.append(ROWS[60:61], [60])
    assert 60 in table.topk(ROWS[60], 5).user_ids


@pytest.mark.parametrize("change", CHANGES)
def test_a_link_that_the_file_system_does_not_know_is_a_copy(
    change: str, table: UserTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", fail("link", errno.EOPNOTSUPP, 0))
    generation = table.generation
    CHANGES[change](table)
    assert TableLayout.load(table.directory).generation == generation + 1


@pytest.mark.parametrize("change", CHANGES)
def test_a_full_disk_leaves_no_file_behind(change: str, table: UserTable, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {path.name for path in table.directory.iterdir()}
    monkeypatch.setattr(os, "fsync", fail("fsync", errno.ENOSPC, 0))
    with pytest.raises(BudgetError, match=r"No space left on device; the table is unchanged.*Free some space"):
        CHANGES[change](table)
    assert {path.name for path in table.directory.iterdir()} - {COMPACTION_LOCK} == files


@pytest.mark.parametrize("change", CHANGES)
def test_a_read_only_directory_is_refused(change: str, table: UserTable) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    table.directory.chmod(0o555)
    try:
        with pytest.raises(UsageError, match="the table is unchanged"):
            CHANGES[change](table)
    finally:
        table.directory.chmod(0o755)
    assert len(table.topk(ROWS[0], 5).user_ids[0]) == 5


@pytest.mark.parametrize("change", CHANGES)
def test_a_read_only_file_system_is_refused(change: str, table: UserTable, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def read_only(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if "w" in mode:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", read_only)
    with pytest.raises(UsageError, match="Read-only file system; the table is unchanged"):
        CHANGES[change](table)
    assert len(table.topk(ROWS[0], 5).user_ids[0]) == 5
