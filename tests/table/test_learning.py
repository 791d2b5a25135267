"""Learning into a living table: the same rows on every way to the same interactions, bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fllm_export import BundleError, UsageError, UserTable
from fllm_export.table import history_draft
from fllm_export.table.histories import Histories
from fllm_export.table.learner import Learner
from fllm_export.table.learning import Pairs
from fllm_export.table.living import LearnedChange, LivingTable
from fllm_export.table.table import Table

ITEMS, DIM, STRANGER = 30, 16, 10**9
GENERATOR = np.random.default_rng(0)
LEARNER = Learner.of(np.arange(ITEMS), GENERATOR.standard_normal((ITEMS, DIM)), 0.3, 0.4)

Interactions = list[tuple[int, int]]
Content = dict[int, tuple[bytes, float, tuple[int, ...]]]

SOME = st.lists(st.tuples(st.integers(0, 12), st.integers(0, ITEMS - 1)), min_size=1, max_size=40)


def a_table(directory: Path, quant: str = "int8") -> LivingTable:
    """A table with one user, whose row was given."""
    UserTable.create(directory, np.ones((1, DIM)), [STRANGER], bias=[0.0], quant=quant, sketch="no", cluster="yes")
    return LivingTable(directory)


def learn(table: LivingTable, pairs: Interactions, *, withdraw: bool = False) -> LearnedChange:
    users, items = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    return table.learn(Pairs.of(users, items.astype(np.int32)), LEARNER, withdraw=withdraw)


def content(table: LivingTable) -> Content:
    """By user the stored row, the bias and the items; the generation and the files do not matter."""
    opened = Table(table.directory)
    opened.verify()
    histories, found = Histories.load(table.directory, opened.layout.histories), {}
    for tile in opened.tiles():
        known = histories.of(tile.ids)
        for number, user in enumerate(tile.ids.tolist()):
            row = b"".join(array[number].tobytes() for array in tile.stored.values())
            items = known.items[known.starts[number] : known.starts[number + 1]]
            found[user] = row, float(tile.bias[number]), tuple(items.tolist())
    return found


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SOME, SOME)
def test_two_parts_are_learned_as_the_whole(tmp_path: Path, first: Interactions, second: Interactions) -> None:
    for name in ("parts", "whole"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    parts, whole = a_table(tmp_path / "parts"), a_table(tmp_path / "whole")
    learn(parts, first)
    learn(parts, second)
    learn(whole, second + first)
    assert content(parts) == content(whole)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SOME, SOME)
def test_what_is_withdrawn_was_never_there(tmp_path: Path, first: Interactions, second: Interactions) -> None:
    shutil.rmtree(tmp_path / "t", ignore_errors=True)
    table = a_table(tmp_path / "t")
    learn(table, first)
    before, fresh = content(table), sorted(set(second) - set(first))
    learn(table, second)
    if fresh:
        change = learn(table, fresh, withdraw=True)
        assert change.interactions == len(fresh)
    assert content(table) == before


def test_rows_are_those_of_training_on_the_same_interactions(tmp_path: Path) -> None:
    table = a_table(tmp_path / "t", "fp32")
    learn(table, [(1, 4), (2, 9), (1, 7)])
    learn(table, [(1, 2), (2, 9)])
    learn(table, [(1, 7)], withdraw=True)
    rows = {
        user: (row, bias)
        for ids, rows, biases in Table(table.directory).labelled_chunks()
        for user, row, bias in zip(ids.tolist(), rows, biases, strict=True)
    }
    numbers = LEARNER.contributions.astype(np.float64)
    np.testing.assert_array_equal(rows[1][0], ((numbers[2] + numbers[4]) * 2.0**-0.3).astype(np.float32))
    np.testing.assert_array_equal(rows[2][0], numbers[9].astype(np.float32))
    assert (rows[1][1], rows[2][1]) == (np.float32(0.4 * np.log(2)), 0)


def test_counts_say_what_was_done_and_a_repeated_call_does_nothing(tmp_path: Path) -> None:
    table = a_table(tmp_path / "t")
    pairs = [(1, 4), (2, 9), (1, 7), (1, 7)]
    change = learn(table, pairs)
    assert (change.appended, change.updated, change.deleted, change.interactions) == (2, 0, 0, 3)
    again = learn(table, pairs)
    assert (again.generation, again.interactions, again.without_effect) == (change.generation, 0, 3)
    change = learn(table, [(1, 5), (3, 1), (2, 9)])
    assert (change.appended, change.updated, change.without_effect, change.users) == (1, 1, 1, 4)
    change = learn(table, [(2, 9), (1, 5), (8, 8)], withdraw=True)
    assert (change.updated, change.deleted, change.interactions, change.without_effect) == (1, 1, 2, 1)
    assert set(content(table)) == {1, 3, STRANGER}


def test_rows_that_were_given_are_not_learned(tmp_path: Path) -> None:
    table = a_table(tmp_path / "t")
    learn(table, [(1, 4), (2, 9)])
    table.update([(np.ones((1, DIM)), [2], [0.5])])
    before = content(table)
    for user in (2, STRANGER):
        with pytest.raises(UsageError, match=f"the row of user {user} was not learned but given"):
            learn(table, [(1, 1), (user, 3)])
    assert content(table) == before
    table.delete([2])
    learn(table, [(2, 3)])
    assert content(table)[2][2] == (3,)


def test_a_deleted_user_is_forgotten(tmp_path: Path) -> None:
    table = a_table(tmp_path / "t")
    learn(table, [(1, 4), (2, 9)])
    table.delete([2])
    learn(table, [(2, 1)])
    assert content(table)[2][2] == (1,)
    table.delete([2])
    table.compact()
    names = [entry.name for entry in Table(table.directory).layout.histories]
    assert Histories.load(table.directory, Table(table.directory).layout.histories).users().tolist() == [1]
    assert len(names) == 1


def test_the_last_user_does_not_leave(tmp_path: Path) -> None:
    table = a_table(tmp_path / "t")
    learn(table, [(1, 4)])
    table.delete([STRANGER])
    with pytest.raises(UsageError, match="no user would be left"):
        learn(table, [(1, 4)], withdraw=True)
    with pytest.raises(UsageError, match="no interactions were given"):
        table.learn(Pairs.of(np.zeros(0, np.int64), np.zeros(0, np.int32)), LEARNER)


def test_a_rule_of_other_rows_is_refused(tmp_path: Path) -> None:
    table = a_table(tmp_path / "t")
    narrow = Learner.of(np.arange(ITEMS), GENERATOR.standard_normal((ITEMS, 8)), 0.3, 0.4)
    bare = Learner.of(np.arange(ITEMS), LEARNER.contributions, 0.3, None)
    pairs = Pairs.of(np.array([1]), np.array([1], np.int32))
    for rule, message in ((narrow, "rows of dimension 8"), (bare, "no bias was given")):
        with pytest.raises(UsageError, match=message):
            table.learn(pairs, rule)


def test_many_small_changes_leave_few_files_of_histories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, model = a_table(tmp_path / "t"), {}
    monkeypatch.setattr(history_draft, "MERGED_USERS", 16)
    for user in range(40):
        learn(table, [(user, user % ITEMS), (user // 2, 5)])
        model.setdefault(user, set()).add(user % ITEMS)
        model.setdefault(user // 2, set()).add(5)
    assert len(Table(table.directory).layout.histories) < 12
    assert {user: set(known[2]) for user, known in content(table).items() if user != STRANGER} == model
    before = content(table)
    table.compact()
    assert len(Table(table.directory).layout.histories) == 1
    assert content(table) == before


def test_blocks_of_users_are_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(user, item) for user in range(30) for item in range(user % 4 + 1)]
    whole = a_table(tmp_path / "whole")
    learn(whole, pairs)
    monkeypatch.setattr("fllm_export.table.learning._ROW_BYTES_AT_ONCE", 7 * 4 * DIM)
    parts = a_table(tmp_path / "parts")
    assert learn(parts, pairs).generation == 2
    assert content(parts) == content(whole)


@pytest.mark.parametrize("tensor", ["users", "starts", "items"])
def test_histories_that_lie_are_refused(tensor: str, tmp_path: Path) -> None:
    table = a_table(tmp_path / "t")
    learn(table, [(1, 4), (1, 6), (2, 9)])
    opened = Table(table.directory)
    (entry,) = opened.layout.histories
    known = Histories.load(table.directory, [entry]).of(np.array([1, 2]))
    path, array = table.directory / entry.name, getattr(known, tensor).copy()
    raw = path.read_bytes()
    assert raw.count(array.tobytes()) == 1
    wrong = array.copy()
    wrong[:2] = wrong[:2][::-1]
    path.write_bytes(raw.replace(array.tobytes(), wrong.tobytes()))
    with pytest.raises(BundleError):
        Histories.load(table.directory, [entry]).verify()
    with pytest.raises(BundleError, match="SHA-256"):
        opened.verify()
    path.write_bytes(raw[:-1])
    with pytest.raises(BundleError):
        learn(table, [(3, 1)])
