"""Changes of a table in C: the files that Python writes for the same change, refusals, and both writers in turn."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import BundleError, UsageError, UserTable
from fllm_export.table.codecs import CODECS
from fllm_export.table.layout import FILE_NAME, PREVIOUS_NAME, TableLayout
from fllm_export.table.living import COMPACTION_LOCK, LOCK_NAME, LivingTable
from fllm_export.table.table import Table
from tests.linked import set_link

from .native_writer import NativeTable

GENERATOR = np.random.default_rng(5)
BIAS = GENERATOR.standard_normal(3000).astype(np.float32)


def rows_of(count: int, dim: int) -> np.ndarray:
    return np.random.default_rng(count + dim).standard_normal((count, dim)).astype(np.float32)


def files_of(directory: Path) -> dict[str, bytes]:
    """Contents by name; the random part of names is left out, in table.json with its own hash."""
    found = {}
    for path in directory.iterdir():
        name, content = re.sub("-[0-9a-f]{8}-", "-", path.name), path.read_bytes()
        if name in (FILE_NAME, PREVIOUS_NAME):
            document = json.loads(re.sub(rb"-[0-9a-f]{8}-", b"-", content))
            carried = document.pop("sha256")
            assert len(carried) == 64
            content = json.dumps(document, indent=2, sort_keys=True).encode()
        found[name] = content
    return found


def both(directory: Path, change: Callable[[Any], Any], tmp_path: Path) -> tuple[Path, Path]:
    """Make a change in Python and in C, each on a copy of a table, and return these."""
    made = []
    for kind in (LivingTable, NativeTable):
        copy = tmp_path / kind.__name__
        shutil.copytree(directory, copy, dirs_exist_ok=True)
        made.append((copy, change(kind(copy))))
    (python, in_python), (native, in_c) = made
    told = {name: getattr(in_c, name) for name, _ in in_c._fields_ if name != "size"}
    assert told == asdict(in_python)
    Table(native).verify()
    return python, native


def append(rows: np.ndarray, ids: Any, bias: Any = None) -> Callable[[Any], Any]:
    def change(table: Any) -> Any:
        return table.append(rows, ids, bias) if isinstance(table, NativeTable) else table.append([(rows, ids, bias)])

    return change


def update(rows: np.ndarray, ids: Any, bias: Any = None) -> Callable[[Any], Any]:
    def change(table: Any) -> Any:
        return table.update(rows, ids, bias) if isinstance(table, NativeTable) else table.update([(rows, ids, bias)])

    return change


FORMS: dict[str, dict[str, Any]] = {
    **{name: {"quant": name, "sketch": "no", "cluster": "no"} for name in CODECS},
    "clustered": {"quant": "int8", "sketch": "no", "cluster": "yes"},
    "sketched": {"quant": "int8", "sketch": "yes", "cluster": "yes"},
    "sketched fp16": {"quant": "fp16", "sketch": "yes", "cluster": "no"},
}


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dim", [24, 65])
@pytest.mark.parametrize("form", FORMS)
def test_the_files_are_those_of_python(form: str, dim: int, biased: bool, tmp_path: Path) -> None:
    rows, bias = rows_of(900, dim), BIAS if biased else None

    def part(start: int, stop: int) -> Any:
        return None if bias is None else bias[start:stop]

    directory = tmp_path / "t"
    UserTable.create(directory, rows[:500], np.arange(500) * 3, bias=part(0, 500), **FORMS[form])
    steps = [
        append(rows[500:530], np.arange(30)[::-1] * 5 + 10_001, part(500, 530)),  # beside the large shard
        append(rows[530:600], np.arange(70) + 20_000, part(530, 600)),  # takes the small one in
        update(rows[600:640], np.r_[np.arange(20) * 30, np.arange(20) + 20_010], part(600, 640)),
        lambda table: table.delete([3, 12, 20_069, 10_001]),
        append(rows[640:740], np.arange(100) + 30_000, part(640, 740)),  # takes in a shard with deleted rows
    ]
    for step in steps:
        python, native = both(directory, step, tmp_path)
        assert files_of(native) == files_of(python)
        shutil.rmtree(directory)
        shutil.copytree(native, directory)  # its names are those of a change in C from now on
        shutil.rmtree(python)
        shutil.rmtree(native)
    assert TableLayout.load(directory).generation == 6


def test_a_link_stays_and_is_one_of_the_reader_features(tmp_path: Path) -> None:
    rows = rows_of(60, 16)
    UserTable.create(tmp_path / "t", rows[:40])
    set_link(tmp_path / "t", 2)
    steps = [
        append(rows[40:50], np.arange(40, 50)),
        *(lambda table, user=user: table.delete([user]) for user in (1, 2)),
    ]
    for step in steps:
        python, native = both(tmp_path / "t", step, tmp_path)
        assert files_of(native) == files_of(python)
        assert TableLayout.load(native).link.exponent == 2
        for folder in (python, tmp_path / "t"):
            shutil.rmtree(folder)
        native.rename(tmp_path / "t")


def test_large_rows_are_cut_into_full_shards_as_in_python(tmp_path: Path) -> None:
    rows = rows_of(2500, 16)
    UserTable.create(tmp_path / "t", rows[:100], sketch="no", cluster="no", shard_bytes=20_000)
    python, native = both(tmp_path / "t", append(rows[100:], np.arange(100, 2500)), tmp_path)
    assert len(TableLayout.load(native).shards) > 3
    assert files_of(native) == files_of(python)


@pytest.mark.parametrize("dim", [8, 40])
def test_shards_of_several_clustered_tiles_have_the_content_of_python(dim: int, tmp_path: Path) -> None:
    rows = rows_of(3000, dim)
    UserTable.create(tmp_path / "t", rows[:10], quant="int8", sketch="yes", cluster="yes")
    python, native = both(tmp_path / "t", append(rows[10:], np.arange(10, 3000)), tmp_path)
    assert TableLayout.load(native).tile_rows < 3000
    items = rows_of(5, dim)
    for engine in ("native", "numpy"):
        expected, found = (UserTable.open(path, engine=engine).topk(items, 50) for path in (python, native))
        np.testing.assert_array_equal(found.user_ids, expected.user_ids)
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_the_tiles_of_c_hold_rows_that_lie_together(tmp_path: Path) -> None:
    """As the tiles of Python do: a bound across a tile is about as tight."""
    centres = 4 * rows_of(4, 32)
    rows = (centres[np.arange(4096) % 4] + rows_of(4096, 32)).astype(np.float32)
    UserTable.create(tmp_path / "t", rows[:10], quant="int8", sketch="no", cluster="yes")
    python, native = both(tmp_path / "t", append(rows[10:], np.arange(10, 4096)), tmp_path)

    def across(directory: Path) -> float:
        return float(
            np.mean([shard.beside["tile_extents"].view(np.float32)[:, 2] for shard in Table(directory).shards])
        )

    largest = float(np.linalg.norm(rows, axis=1).max())
    assert across(native) < 1.05 * across(python) < 0.9 * largest


def test_both_writers_take_turns(tmp_path: Path) -> None:
    rows = rows_of(400, 32)
    UserTable.create(tmp_path / "t", rows[:50], sketch="yes", cluster="yes")
    python, native = LivingTable(tmp_path / "t"), NativeTable(tmp_path / "t")
    model = {user: rows[user] for user in range(50)}
    choice = np.random.default_rng(1)
    for turn in range(30):
        writer = python if turn % 2 else native
        kind = ("append", "update", "delete")[turn % 3]
        ids = (
            np.arange(1000 * turn + 500, 1000 * turn + 509)
            if kind == "append"
            else choice.choice(sorted(model), 7, False)
        )
        if kind == "delete":
            writer.delete(ids)
            model = {user: row for user, row in model.items() if user not in set(ids.tolist())}
            continue
        given = rows[choice.integers(0, 400, len(ids))]
        (append if kind == "append" else update)(given, ids)(writer)
        model |= dict(zip(ids.tolist(), given, strict=True))
        if turn == 15:
            python.compact()
    Table(tmp_path / "t").verify()
    found = {
        int(user): row for ids, part in Table(tmp_path / "t").decoded() for user, row in zip(ids, part, strict=True)
    }
    assert found.keys() == model.keys()
    for user, row in model.items():
        np.testing.assert_allclose(found[user], row, atol=np.abs(row).max() / 253)
    names = {path.name for path in (tmp_path / "t").iterdir()} - {LOCK_NAME, COMPACTION_LOCK, FILE_NAME, PREVIOUS_NAME}
    listed = {
        file.name for name in (FILE_NAME, PREVIOUS_NAME) for file in TableLayout._read(tmp_path / "t" / name).files
    }
    assert names == listed


def test_a_compaction_in_python_keeps_what_c_changes_meanwhile(tmp_path: Path) -> None:
    rows = rows_of(300, 32)
    UserTable.create(tmp_path / "t", rows[:200], sketch="no", cluster="yes")
    native = NativeTable(tmp_path / "t")
    native.delete(np.arange(0, 200, 2))
    native.append(rows[200:210], np.arange(200, 210))
    waiting = [
        lambda: native.delete([1, 205]),
        lambda: native.update(rows[250:252], [3, 206]),
        lambda: native.append(rows[210:215], np.arange(210, 215)),
    ]

    def meanwhile(_message: str, _done: int, _total: int | None) -> None:
        while waiting:
            waiting.pop(0)()

    change = LivingTable(tmp_path / "t").compact(meanwhile)
    assert not waiting
    assert change.users == 100 + 10 - 2 + 5
    Table(tmp_path / "t").verify()
    found = {
        int(user): row for ids, part in Table(tmp_path / "t").decoded() for user, row in zip(ids, part, strict=True)
    }
    np.testing.assert_allclose(found[206], rows[251], atol=np.abs(rows[251]).max() / 253)
    assert {1, 205} & found.keys() == set()
    assert {210, 214} < found.keys()


def test_an_open_handle_answers_from_its_generation_until_it_reopens(tmp_path: Path) -> None:
    rows = rows_of(60, 16)
    UserTable.create(tmp_path / "t", rows[:50])
    handle = UserTable.open(tmp_path / "t", threads=1)
    NativeTable(tmp_path / "t").append(100 * rows[50:51], [77])
    assert 77 not in handle.topk(rows[50], 3).user_ids
    handle.reopen()
    assert handle.topk(rows[50], 3).user_ids[0, 0] == 77


@pytest.fixture
def small(tmp_path: Path) -> Path:
    UserTable.create(tmp_path / "t", rows_of(20, 16), sketch="no")
    return tmp_path / "t"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.delete([5, 99]), "user id 99 is not in the table.*Leave it out"),
        (lambda t: t.delete([5, 5]), "the ids hold 5 twice"),
        (lambda t: t.delete(np.arange(20)), "20 users are to be deleted of 20; expected a user that stays"),
        (lambda t: t.delete([]), "no ids were given"),
        (lambda t: t.delete([1], if_generation=4), "is of generation 1; expected 4, as if_generation says"),
        (lambda t: t.append(rows_of(2, 16), [3, 30]), "user id 3 is in the table already.*Use update"),
        (lambda t: t.update(rows_of(2, 16), [3, 30]), "user id 30 is not in the table.*Use append"),
        (lambda t: t.append(rows_of(2, 16), [-1, 30]), "a user id is -1"),
        (lambda t: t.append(rows_of(2, 17), [40, 41]), "the rows have 17 dimensions; expected 16"),
        (lambda t: t.append(rows_of(0, 16), []), "no rows were given"),
        (lambda t: t.append(rows_of(1, 16), [40], [1.0]), "bias was given; expected no bias"),
        (lambda t: t.append(np.full((1, 16), np.nan), [40]), "row 0 .*not finite"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(
    change: Callable[[NativeTable], Any], words: str, small: Path
) -> None:
    before = {path.name: path.read_bytes() for path in small.iterdir()}
    with pytest.raises(UsageError, match=words):
        change(NativeTable(small))
    after = {path.name: path.read_bytes() for path in small.iterdir() if path.name != LOCK_NAME}
    assert after == {name: content for name, content in before.items() if name != LOCK_NAME}


def test_a_second_writer_is_refused(small: Path) -> None:
    with (small / LOCK_NAME).open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="is being changed by another writer; expected one writer at a time"):
            NativeTable(small).delete([1])
    assert NativeTable(small).delete([1]).generation == 2


def edit(directory: Path, **members: Any) -> None:
    path = directory / FILE_NAME
    document = json.loads(path.read_text()) | members
    path.write_text(json.dumps(document))


def test_members_that_are_not_known_stay_as_they_are(small: Path) -> None:
    edit(small, later={"name": "ÿ\n", "list": [1, []]})
    NativeTable(small).delete([1])
    assert json.loads((small / FILE_NAME).read_text())["later"] == {"name": "ÿ\n", "list": [1, []]}
    TableLayout.verify(small)


def test_writer_features_are_refused_by_name(small: Path) -> None:
    edit(small, writer_features=["leases"])
    with pytest.raises(UsageError, match=r"needs the writer features \['leases'\]"):
        NativeTable(small).delete([1])


def test_a_damaged_layout_is_not_gone_on_from(small: Path) -> None:
    NativeTable(small).delete([1])
    (small / FILE_NAME).write_text("{")
    with pytest.raises(BundleError, match="is not JSON"):
        NativeTable(small).delete([2])


def test_tables_with_histories_or_refinement_rows_are_refused_by_name(tmp_path: Path) -> None:
    rows = rows_of(20, 64)
    UserTable.create(tmp_path / "fine", rows, quant="int2", refine="int8")
    fine = NativeTable(tmp_path / "fine")
    for change in (fine.append, fine.update):
        with pytest.raises(
            UsageError, match=r"has refinement rows; expected .*Make this change with `fllm-export users`"
        ):
            change(rows[:1], [100])
    assert fine.delete([1, 2]).users == 18
    Table(tmp_path / "fine").verify()
    UserTable.create(tmp_path / "learned", rows)
    edit(tmp_path / "learned", histories=[{"name": "x", "rows": 1, "bytes": 1, "sha256": ""}])
    with pytest.raises(UsageError, match="keeps the items that its users were learned from"):
        NativeTable(tmp_path / "learned").delete([1])


def test_rows_of_a_bundle_that_transforms_them_are_refused_and_users_can_be_deleted(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    UserTable.create(bundle / "users", rows_of(20, 16))
    files = {"calibration/transform.safetensors": {}}
    identity = TableLayout.load(bundle / "users").identity
    (bundle / "manifest.json").write_text(json.dumps({"files": files, "table": identity, "writer_features": []}))
    table = NativeTable(bundle / "users/.")
    with pytest.raises(UsageError, match="belongs to a bundle that transforms rows"):
        table.append(rows_of(1, 16), [77])
    assert table.delete([3]).users == 19
    (bundle / "manifest.json").write_text(json.dumps({"files": {}, "table": "other"}))
    with pytest.raises(BundleError, match=r"expected 'other', which .*manifest\.json names"):
        table.delete([4])
