"""Power cuts at every moment of every change: what was acknowledged is there, and nothing is there by half."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fllm_export import UserTable
from fllm_export.errors import FllmError
from fllm_export.table.histories import Histories
from fllm_export.table.learner import Learner
from fllm_export.table.learning import Pairs
from fllm_export.table.living import LivingTable
from fllm_export.table.table import Table

from .recording import Recorder, recorded, remains

ROWS = np.random.default_rng(1).standard_normal((80, 16)).astype(np.float32)

LEARNER = Learner.of(np.arange(20), np.random.default_rng(3).standard_normal((20, 16)), 0.3, None)

Users = dict[int, tuple[bytes, bytes]]


def learn(table: LivingTable, pairs: list[tuple[int, int]], *, withdraw: bool = False) -> None:
    users, items = (np.array(column) for column in zip(*pairs, strict=True))
    table.learn(Pairs.of(users, items.astype(np.int32)), LEARNER, withdraw=withdraw)


CHANGES: dict[str, Callable[[LivingTable], object]] = {
    "append": lambda table: table.append([(ROWS[40:50], np.arange(40, 50), None)]),
    "update": lambda table: table.update([(ROWS[50:60], np.arange(20, 30), None)]),
    "delete": lambda table: table.delete([1, 2, 33, 61]),
    "learn": lambda table: learn(table, [(60, 3), (62, 4), (62, 5)]),
    "withdraw": lambda table: learn(table, [(60, 1), (61, 2)], withdraw=True),
    "compact": lambda table: table.compact(),
}


# A compaction that is undone loses no user.
SPARE: dict[str, set[str]] = {change: {"directory 2"} if change == "compact" else set() for change in CHANGES}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A table with a large and a small shard, deleted rows in one of them, and learned users."""
    UserTable.create(tmp_path / "t", ROWS[:32], sketch="yes", cluster="yes")
    table = LivingTable(tmp_path / "t")
    table.delete([0, 7])
    table.append([(ROWS[32:40], np.arange(32, 40), None)])
    learn(table, [(60, 1), (60, 2), (61, 2), (63, 5)])
    return tmp_path / "t"


def users_of(directory: Path) -> Users:
    """The rows and the items of all users; a table that cannot be opened, and damaged files, raise.

    So does a damaged ``table.json``, although readers take the one before and warn: a writer refuses such a table.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = Table(directory)
    histories, found = Histories.load(directory, table.layout.histories), {}
    histories.verify()
    for ids, rows in table.decoded():
        known = histories.of(ids)
        for number, (user, row) in enumerate(zip(ids.tolist(), rows, strict=True)):
            found[user] = row.tobytes(), known.items[known.starts[number] : known.starts[number + 1]].tobytes()
    return found


def run(directory: Path, change: str, monkeypatch: pytest.MonkeyPatch, lost: str = "") -> tuple[Recorder, Users, Users]:
    before = users_of(directory)
    table = LivingTable(directory)
    with recorded(directory, monkeypatch, lost=lost) as recorder:
        CHANGES[change](table)
    return recorder, before, users_of(directory)


def faults(recorder: Recorder, before: Users, after: Users, scratch: Path) -> list[str]:
    """What is wrong with the tables that power cuts at all recorded moments leave."""
    found, seen = [], set()
    for moment in recorder.moments:
        acknowledged = moment is recorder.moments[-1]
        for how, files in remains(moment):
            key = (acknowledged, tuple(sorted((name, hash(content)) for name, content in files.items())))
            if key in seen:
                continue
            seen.add(key)
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            for name, content in files.items():
                (scratch / name).write_bytes(content)
            try:
                left = users_of(scratch)
            except (FllmError, UserWarning) as error:
                found.append(f"{how}: {error}")
                continue
            if left != after and (acknowledged or left != before):
                found.append(f"{how}: {'the change is lost' if left == before else 'the change is there by half'}")
    return found


@pytest.mark.parametrize("change", CHANGES)
def test_a_power_cut_leaves_the_table_before_or_after(
    change: str, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, before, after = run(directory, change, monkeypatch)
    assert len(recorder.syncs) >= 4
    assert len(recorder.moments) > 8
    assert faults(recorder, before, after, tmp_path / "cut") == []
    Table(directory).verify()


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_power_cut_leaves_can_be_changed_again(
    change: str, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, _, _ = run(directory, change, monkeypatch)
    for number, moment in enumerate(recorder.moments):
        scratch = tmp_path / f"cut{number}"
        scratch.mkdir()
        for name, content in next(remains(moment))[1].items():
            (scratch / name).write_bytes(content)
        kept = users_of(scratch)
        LivingTable(scratch).append([(ROWS[70:72], [70, 71], None)])
        assert {user: row for user, row in users_of(scratch).items() if user < 70} == kept
        Table(scratch).verify()


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_with_one_sync_taken_out_fails(
    change: str, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    syncs = run(copy, change, monkeypatch)[0].syncs
    assert {"layout 1", "directory 1", "directory 2"} < set(syncs)
    unnoticed = set()
    for lost in syncs:
        shutil.rmtree(copy)
        shutil.copytree(directory, copy)
        recorder, before, after = run(copy, change, monkeypatch, lost)
        if not faults(recorder, before, after, tmp_path / "cut"):
            unnoticed.add(lost)
    assert unnoticed == SPARE[change]
