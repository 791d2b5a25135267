"""Tables that change: what they answer is what a fresh table of the same users answers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fllm_export import BundleError, UsageError, UserTable
from fllm_export.files import locked
from fllm_export.table.draft import MERGED_ROWS
from fllm_export.table.layout import FILE_NAME, PREVIOUS_NAME, TOMBSTONES, TableLayout
from fllm_export.table.living import LOCK_NAME, LivingTable
from fllm_export.table.table import Table

DIM = 24
POOL = np.random.default_rng(5).standard_normal((400, DIM)).astype(np.float32)
POOL[100:140] = POOL[:40]  # rows of equal scores
BIAS = np.random.default_rng(6).standard_normal(400).astype(np.float32)
KINDS = (
    ("int8", "yes", "yes", True, "no"),
    ("int8", "no", "no", False, "no"),
    ("fp32", "no", "yes", False, "no"),
    ("int2", "auto", "yes", True, "no"),
    ("int4", "yes", "no", False, "no"),
    ("fp8", "no", "yes", True, "no"),
    ("int2", "auto", "yes", True, "int8"),
    ("int4", "no", "no", False, "fp16"),
)


@pytest.fixture
def table(tmp_path: Path) -> UserTable:
    UserTable.create(tmp_path / "users", POOL[:100], cluster="yes", sketch="yes", shard_bytes=1 << 12)
    return UserTable.open(tmp_path / "users", threads=1)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


class Machine(RuleBasedStateMachine):
    """Any changes, against a dict from user id to the number of the row in the pool."""

    @initialize(kind=st.sampled_from(KINDS), users=st.integers(1, 150), shard_bytes=st.sampled_from([1 << 11, 1 << 20]))
    def start(self, kind: tuple[str, str, str, bool, str], users: int, shard_bytes: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.quant, self.sketch, self.cluster, self.biased, self.refine = kind
        self.model = {3 * user: user for user in range(users)}
        self.create(self.folder / "t", shard_bytes)
        self.table = LivingTable(self.folder / "t", shard_bytes=shard_bytes)
        self.native = UserTable.open(self.folder / "t", threads=2)
        self.reference = UserTable.open(self.folder / "t", engine="numpy")
        self.generation = 1

    def create(self, directory: Path, shard_bytes: int = 1 << 20) -> None:
        ids = np.array(sorted(self.model))
        rows = np.array([self.model[user] for user in ids.tolist()])
        form = {"quant": self.quant, "sketch": self.sketch, "cluster": self.cluster, "shard_bytes": shard_bytes}
        form |= {"refine": self.refine}
        UserTable.create(directory, POOL[rows], ids, bias=BIAS[rows] if self.biased else None, **form)

    def chunk(
        self, ids: list[int], rows: list[int]
    ) -> tuple[npt.NDArray[np.float32], list[int], npt.NDArray[np.float32] | None]:
        return POOL[rows], ids, BIAS[rows] if self.biased else None

    @rule(data=st.data(), count=st.integers(1, 40))
    def append(self, data: st.DataObject, count: int) -> None:
        self.appended(data, count)

    def appended(self, data: st.DataObject, count: int) -> None:
        free = [user for user in range(600) if user not in self.model]
        ids = data.draw(st.permutations(free))[:count]
        rows = data.draw(st.lists(st.integers(0, 399), min_size=len(ids), max_size=len(ids)))
        half = len(ids) // 2
        parts = [(ids[:half], rows[:half]), (ids[half:], rows[half:])]
        change = self.table.append([self.chunk(*part) for part in parts if part[0]])
        self.model |= dict(zip(ids, rows, strict=True))
        self.generation += 1
        assert (change.generation, change.appended) == (self.generation, len(ids))

    @rule(data=st.data(), count=st.integers(1, 40))
    def update(self, data: st.DataObject, count: int) -> None:
        self.updated(data, count)

    def updated(self, data: st.DataObject, count: int) -> None:
        ids = data.draw(st.permutations(sorted(self.model)))[:count]
        rows = data.draw(st.lists(st.integers(0, 399), min_size=len(ids), max_size=len(ids)))
        self.table.update([self.chunk(ids, rows)])
        self.model |= dict(zip(ids, rows, strict=True))
        self.generation += 1

    @precondition(lambda self: len(self.model) > 1)
    @rule(data=st.data(), share=st.floats(0, 1))
    def delete(self, data: st.DataObject, share: float) -> None:
        self.deleted(data, share)

    def deleted(self, data: st.DataObject, share: float) -> None:
        count = max(1, int(share * (len(self.model) - 1)))
        ids = data.draw(st.permutations(sorted(self.model)))[:count]
        self.table.delete(ids)
        for user in ids:
            del self.model[user]
        self.generation += 1

    @rule()
    def compact(self) -> None:
        change = self.table.compact()
        assert change.deleted_rows == 0
        assert change.generation in (self.generation, self.generation + 1)
        self.generation = change.generation

    @rule(data=st.data(), verbs=st.lists(st.sampled_from(["append", "update", "delete"]), min_size=1, max_size=3))
    def compact_meanwhile(self, data: st.DataObject, verbs: list[str]) -> None:
        """Another writer makes changes before the last rows of a compaction are written."""
        left = list(verbs)

        def meanwhile(stage: str, done: int, total: int) -> None:
            while left:
                verb = left.pop()
                if verb == "append":
                    self.appended(data, 5)
                elif verb == "update":
                    self.updated(data, 5)
                elif len(self.model) > 1:
                    self.deleted(data, 0.3)

        change = LivingTable(self.folder / "t").compact(meanwhile)
        assert change.users == len(self.model)
        assert change.generation in (self.generation, self.generation + 1)
        self.generation = change.generation

    @rule(
        batch=st.sampled_from([1, 2, 20]),
        part=st.floats(0, 1),
        how=st.sampled_from([{}, {"log_probs": "estimate"}, {"log_probs": "none"}, {"mode": "sample", "seed": 7}]),
        denied=st.lists(st.integers(0, 600), max_size=50),
    )
    def ask(self, batch: int, part: float, how: dict[str, object], denied: list[int]) -> None:
        self.native.reopen()
        self.reference.reopen()
        self.create(self.folder / "fresh")
        fresh = UserTable.open(self.folder / "fresh", engine="numpy")
        z = np.random.default_rng(batch).standard_normal((batch, DIM)).astype(np.float32)
        k = max(1, int(part * len(self.model)))
        for filter in (None, fresh.filter(deny=denied)):
            plain = {name: value for name, value in how.items() if name != "log_probs"}
            wanted = fresh.topk(z, k, filter=filter, **plain)
            for table in (self.native, self.reference):
                found = table.topk(z, k, filter=filter, **how)
                np.testing.assert_array_equal(found.user_ids, wanted.user_ids)
                np.testing.assert_array_equal(found.scores, wanted.scores)
                assert (found.coverage == 1).all()
                assert found.complete.all()
                assert found.generation == self.generation
                if "log_probs" not in how:
                    np.testing.assert_allclose(found.logsumexp, wanted.logsumexp, rtol=1e-5, atol=1e-5)
        shutil.rmtree(self.folder / "fresh")

    @invariant()
    def whole(self) -> None:
        if hasattr(self, "table"):
            table = Table(self.folder / "t")
            table.verify()
            assert table.layout.rows == len(self.model)
            assert table.layout.generation == self.generation
            assert {user for ids, _ in table.decoded() for user in ids.tolist()} == set(self.model)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


Machine.TestCase.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
TestMachine = Machine.TestCase


class ManyMachines(Machine):
    """The same at length."""


ManyMachines.TestCase.settings = settings(max_examples=600, stateful_step_count=30, deadline=None)
TestManyMachines = pytest.mark.slow(ManyMachines.TestCase)


def test_a_handle_sees_its_own_changes_and_says_their_generation(table: UserTable) -> None:
    other = UserTable.open(table.directory, engine="numpy")
    change = table.append(1000 * POOL[:1], [777])
    assert (change.generation, change.users, table.generation, len(table)) == (2, 101, 2, 101)
    found = table.topk(POOL[0], 2)
    assert found.user_ids[0].tolist()[0] == 777
    assert found.generation == 2
    assert other.topk(POOL[0], 1).generation == 1
    other.reopen()
    assert other.topk(POOL[0], 1).user_ids[0, 0] == 777
    table.delete([777])
    assert 777 not in table.topk(POOL[0], 100).user_ids


def test_an_open_reader_keeps_its_snapshot_when_its_files_are_removed(table: UserTable) -> None:
    reader = UserTable.open(table.directory, engine="numpy")
    before = reader.topk(POOL[:3], 10)
    files = names(table.directory)
    for generation in range(3):
        table.update(POOL[200:250], np.arange(50))
        table.compact()
        assert table.generation >= 2 + generation
    assert not files & names(table.directory) - {FILE_NAME}
    np.testing.assert_array_equal(reader.topk(POOL[:3], 10).scores, before.scores)


@pytest.mark.parametrize(
    ("verb", "ids", "message"),
    [
        ("append", [200, 3], "user id 3 is in the table already.*Use update"),
        ("append", [200, 200], "ids holds 200 twice"),
        ("append", [200, -1], "ids runs from -1"),
        ("append", [200], r"ids has the shape \[1\]"),
        ("update", [3, 200], "user id 200 is not in the table.*Use append"),
        ("update", [3, 3], "ids holds 3 twice"),
    ],
)
def test_a_change_that_is_refused_leaves_nothing(table: UserTable, verb: str, ids: list[int], message: str) -> None:
    files = names(table.directory)
    with pytest.raises(UsageError, match=message):
        getattr(table, verb)(POOL[:2], ids)
    assert names(table.directory) <= files | {LOCK_NAME}
    assert table.generation == 1


@pytest.mark.parametrize(
    ("ids", "message"),
    [([7, 100], "user id 100 is not"), ([7, 7], "holds 7 twice"), (np.arange(100), "expected a user that stays")],
)
def test_a_deletion_that_is_refused_leaves_nothing(table: UserTable, ids: list[int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        table.delete(ids)
    assert Table(table.directory).layout.tombstones is None


def test_rows_that_do_not_belong_into_the_table_are_refused(table: UserTable) -> None:
    with pytest.raises(UsageError, match=r"rows \(one per user\) has the shape \[2, 5\]; expected \[n, 24\]"):
        table.append(POOL[:2, :5], [200, 201])
    with pytest.raises(UsageError, match=r"rows \(one per user\) has a vector that is not finite, number 1"):
        table.append(np.array([POOL[0], POOL[1] * np.nan]), [200, 201])
    with pytest.raises(UsageError, match="bias was given; expected no bias"):
        table.append(POOL[:2], [200, 201], bias=[1.0, 2.0])


def test_ids_of_different_chunks_must_differ_too(table: UserTable) -> None:
    writer = LivingTable(table.directory)
    with pytest.raises(UsageError, match="ids holds 200 twice"):
        writer.append([(POOL[:2], [200, 201], None), (POOL[:1], [200], None)])
    with pytest.raises(UsageError, match="ids holds 3 twice"):
        writer.update([(POOL[:2], [3, 4], None), (POOL[:1], [3], None)])
    assert Table(table.directory).layout.generation == 1


def test_a_second_writer_is_refused_while_the_first_is_at_work(table: UserTable) -> None:
    with locked(table.directory / LOCK_NAME, UsageError("never")), pytest.raises(UsageError, match="another writer"):
        table.append(POOL[:1], [200])
    assert table.append(POOL[:1], [200]).generation == 2


def test_a_change_that_was_decided_on_an_older_generation_is_refused(table: UserTable) -> None:
    table.append(POOL[:1], [200])
    for change in (
        lambda: table.update(POOL[:1], [200], if_generation=1),
        lambda: table.delete([200], if_generation=1),
    ):
        with pytest.raises(UsageError, match="is of generation 2; expected 1"):
            change()
    assert table.delete([200], if_generation=2).generation == 3


def test_a_writer_that_ignores_the_lock_is_noticed(table: UserTable, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, rogue = LivingTable(table.directory), LivingTable(table.directory)
    encode = writer._table.codec.encode

    def meanwhile(*arguments: object) -> object:
        monkeypatch.undo()
        (table.directory / LOCK_NAME).unlink()
        rogue.append([(POOL[:1], [300], None)])
        return encode(*arguments)

    monkeypatch.setattr(writer._table.codec, "encode", meanwhile)
    with pytest.raises(UsageError, match="from generation 1 to 2 while it was changed"):
        writer.append([(POOL[:1], [200], None)])
    table.reopen()
    assert (table.generation, len(table)) == (2, 101)
    assert writer.append([(POOL[:1], [200], None)]).users == 102


def test_an_unreadable_layout_lets_the_one_before_be_read_and_says_so(table: UserTable) -> None:
    table.append(POOL[:1], [200])
    path = table.directory / FILE_NAME
    path.write_bytes(path.read_bytes()[:-40] + bytes(40))
    for engine in ("native", "numpy"):
        with pytest.warns(UserWarning, match=f"cannot be read|is not JSON.*{PREVIOUS_NAME}"):
            found = UserTable.open(table.directory, engine=engine, threads=1)
        assert (found.generation, len(found)) == (1, 100)
    with pytest.raises(BundleError, match="is not JSON"):
        LivingTable(table.directory).append([(POOL[:1], [201], None)])
    with pytest.warns(UserWarning, match=PREVIOUS_NAME):
        before = Table(table.directory)
    with pytest.raises(BundleError, match="is not JSON"):
        before.verify()


def test_a_layout_of_a_newer_format_is_never_passed_over(table: UserTable) -> None:
    table.delete([3])
    path = table.directory / FILE_NAME
    path.write_text(path.read_text().replace(f'"{TOMBSTONES}"\n', '"wings"\n', 1))
    for engine in ("native", "numpy"):
        with pytest.raises(BundleError, match="needs the reader features wings"):
            UserTable.open(table.directory, engine=engine, threads=1)


def test_small_shards_are_merged_so_that_their_number_stays_small(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    UserTable.create(tmp_path / "t", rows[:1000])
    writer = LivingTable(tmp_path / "t")
    for first in range(1000, 3000, 10):
        writer.append([(rows[first : first + 10], np.arange(first, first + 10), None)])
    layout = TableLayout.load(tmp_path / "t")
    assert len(layout.shards) <= 1 + np.log2(200) + 1
    assert max(entry.rows for entry in layout.shards[1:]) <= MERGED_ROWS
    fresh = UserTable.create(tmp_path / "fresh", rows)
    found = UserTable.open(tmp_path / "t", threads=1).topk(rows[:4], 20)
    np.testing.assert_array_equal(found.scores, fresh.topk(rows[:4], 20).scores)


def test_files_that_no_layout_lists_are_removed_and_others_stay(table: UserTable) -> None:
    directory = table.directory
    left_over = ("00000009-0123abcd-000.safetensors", "00000009-0123abcd-tombstones.safetensors", ".table.json.x1")
    foreign = ("notes.txt", "refined.safetensors", ".00000.safetensors.d")
    for name in (*left_over, *foreign[:2]):
        (directory / name).write_bytes(b"x")
    (directory / foreign[2]).mkdir()
    (directory / foreign[2]).rmdir()
    table.append(POOL[:1], [200])
    assert not names(directory) & set(left_over)
    assert set(foreign[:2]) <= names(directory)


def test_the_generation_before_can_still_be_read(table: UserTable) -> None:
    directory = table.directory
    for change in (
        lambda: table.append(POOL[:30], np.arange(200, 230)),
        lambda: table.update(POOL[:30], np.arange(200, 230)),
        lambda: table.delete(np.arange(200, 230)),
        lambda: table.compact(),
    ):
        users = len(table)
        change()
        (directory / FILE_NAME).rename(directory / "aside")
        (directory / PREVIOUS_NAME).rename(directory / FILE_NAME)
        assert Table(directory).layout.rows == users
        Table(directory).verify()
        (directory / FILE_NAME).rename(directory / PREVIOUS_NAME)
        (directory / "aside").rename(directory / FILE_NAME)
