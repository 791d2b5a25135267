"""Attempts to make both readers of refinement rows crash, read outside a file or believe a lie."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import BundleError, UserTable
from fllm_export.table.options import TableOptions
from fllm_export.table.table import Table
from fllm_export.table.writer import TableWriter, write_table

ROWS = np.random.default_rng(0).standard_normal((3000, 32)).astype(np.float32)
READERS: dict[str, Callable[[Path], Any]] = {
    "python": Table,
    "libfllm": lambda path: UserTable.open(path, engine="native", threads=1),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("written") / "users"
    writer = TableWriter(directory, TableOptions("int2", 1 << 17, refine="int8"), dim=32, scan_dim=16)
    write_table(writer, [(ROWS, None, None)])
    return directory


@pytest.fixture
def users(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written, tmp_path / "users")
    return tmp_path / "users"


def change(users: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = users / "table.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def set_in_refinement(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["refinement"].__setitem__(key, value)


LIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "another codec": (set_in_refinement("codec", "int4"), "codec of the refinement is 'int4'"),
    "no codec": (set_in_refinement("codec", None), "`codec` is"),
    "fewer dimensions": (set_in_refinement("dim", 15), "the refinement has 15 dimensions; expected at least the 16"),
    "more dimensions": (set_in_refinement("dim", 33), r"tensor `codes` is I8 .*expected I8 \[\d+, 33\]"),
    "dimensions beyond counting": (set_in_refinement("dim", 1 << 62), "dim|codes"),
    "negative dimensions": (set_in_refinement("dim", -32), "dim"),
    "a dimension that is no number": (set_in_refinement("dim", "32"), "`dim` is"),
    "no shards": (set_in_refinement("shards", []), "the shards of the refinement hold"),
    "shards that are no list": (set_in_refinement("shards", 3), "`shards` is 3"),
    "a shard that is no object": (lambda d: d["refinement"]["shards"].__setitem__(0, 7), r"shards\[0\] is 7"),
    "one row more": (
        lambda d: d["refinement"]["shards"][0].__setitem__("rows", d["shards"][0]["rows"] + 1),
        "the shards of the refinement hold",
    ),
    "a name that leads out": (
        lambda d: d["refinement"]["shards"][0].__setitem__("name", "../refine-00000.safetensors"),
        "shard name",
    ),
    "the name of the rows": (
        lambda d: d["refinement"]["shards"][0].__setitem__("name", "00000.safetensors"),
        "tensor `codes` is U8",
    ),
    "not announced": (lambda d: d.__setitem__("reader_features", []), "`refinement` is not one of the reader features"),
    "announced alone": (lambda d: d.__delitem__("refinement"), "`refinement` is missing"),
    "no object": (lambda d: d.__setitem__("refinement", [1]), "`refinement` is"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("lie", LIES)
def test_a_layout_that_lies(users: Path, lie: str, reader: str) -> None:
    edit, message = LIES[lie]
    change(users, edit)
    with pytest.raises(BundleError, match=message):
        READERS[reader](users)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_rows(path: Path) -> None:
    shutil.copyfile(path.with_name("refine-00001.safetensors"), path)


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(8192))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", [cut, missing, empty, other_rows, noise])
def test_a_damaged_file(users: Path, damage: Callable[[Path], None], reader: str) -> None:
    damage(users / "refine-00000.safetensors")
    with pytest.raises(BundleError, match=r"refine-00000\.safetensors"):
        READERS[reader](users)


@pytest.mark.parametrize("engine", ["native", "numpy"])
def test_a_row_that_is_not_finite_is_not_answered_from(users: Path, engine: str) -> None:
    shard = Table(users).layout.refinement
    assert shard is not None
    path = users / shard.shards[0].name
    raw = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    begin, end = json.loads(raw[8:start])["scales"]["data_offsets"]
    raw[start + begin : start + end] = np.full((end - begin) // 4, np.nan, np.float32).tobytes()
    path.write_bytes(raw)
    table = UserTable.open(users, engine=engine)
    with pytest.raises(BundleError, match="finite"):
        table.topk(ROWS[:1], 10)
    assert np.isfinite(table.topk(ROWS[:1], 10, refine=0).scores).all()
    with pytest.raises(BundleError, match="SHA-256"):
        Table(users).verify()
