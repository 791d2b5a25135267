"""Tombstones and layouts that lie: each is refused, by the readers in Python and in C++ alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import BundleError, UsageError, UserTable
from fllm_export.table.layout import FILE_NAME
from fllm_export.table.table import Table

ROWS = np.random.default_rng(3).standard_normal((100, 16)).astype(np.float32)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    UserTable.create(tmp_path / "t", ROWS).delete([5, 99])
    return tmp_path / "t"


def tombstones(table: Path) -> Path:
    return table / json.loads((table / FILE_NAME).read_text())["tombstones"]["name"]


def refused(table: Path, match: str) -> None:
    for engine in ("native", "numpy"):
        with pytest.raises(BundleError, match=match):
            UserTable.open(table, engine=engine, threads=1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"name": "../t/x.safetensors"}, "name '../t/x.safetensors'; expected a file name without folders"),
        ({"name": "nowhere.safetensors"}, "nowhere.safetensors is missing|nowhere.safetensors cannot be opened"),
        ({"name": "00000.safetensors"}, "tensor `deleted`( is missing)?; expected U8"),
        ({"rows": 101}, "2 of 101 rows are deleted; expected at most the 100 rows"),
        ({"rows": 92}, r"`deleted` is U8 \[13\]; expected U8 \[12\]"),
        ({"rows": -1}, "rows"),
        ({"deleted": 0}, "deleted"),
        ({"deleted": 3}, "the shards hold 97 rows; expected 98"),
        ({"deleted": True}, "`deleted` is True"),
        ({"sha256": None}, "`sha256` is None"),
    ],
)
def test_an_entry_that_lies_is_refused(table: Path, change: dict[str, Any], match: str) -> None:
    document = json.loads((table / FILE_NAME).read_text())
    document["tombstones"] |= change
    (table / FILE_NAME).write_text(json.dumps(document))
    refused(table, match)


def test_rows_that_do_not_agree_with_the_bits_are_refused(table: Path) -> None:
    document = json.loads((table / FILE_NAME).read_text())
    document["tombstones"]["deleted"], document["rows"] = 3, 97
    (table / FILE_NAME).write_text(json.dumps(document))
    refused(table, "marks 2 rows as deleted; expected 3, as table.json says")


@pytest.mark.parametrize("features", [[], ["tombstones", "wings"]])
def test_the_feature_and_the_entry_go_together(table: Path, features: list[str]) -> None:
    document = json.loads((table / FILE_NAME).read_text())
    document["reader_features"] = features
    (table / FILE_NAME).write_text(json.dumps(document))
    refused(table, "reader features? " if features else "tombstones")


def test_bits_beyond_the_last_row_are_refused(table: Path) -> None:
    data = bytearray(tombstones(table).read_bytes())
    data[-1] |= 0x80
    tombstones(table).write_bytes(data)
    refused(table, "marks rows beyond 100; expected zero bits after the last row")


@pytest.mark.parametrize("length", [0, 7, 4000, 4096, 4100])
def test_a_file_that_was_cut_short_is_refused(table: Path, length: int) -> None:
    tombstones(table).write_bytes(tombstones(table).read_bytes()[:length])
    refused(table, "tombstones.safetensors")


def test_other_bits_of_the_same_number_are_found_by_verify(table: Path) -> None:
    data = bytearray(tombstones(table).read_bytes())
    data[4096], data[4097] = data[4097], data[4096] | 0x20
    data[4096 + 0] = 0x10
    data[4097] = 0
    tombstones(table).write_bytes(data)
    assert len(UserTable.open(table, threads=1)) == 98
    with pytest.raises(BundleError, match="has SHA-256"):
        Table(table).verify()


@pytest.mark.parametrize("engine", ["cuda", "tensorrt"])
def test_engines_that_cannot_leave_rows_out_refuse_the_table(table: Path, engine: str) -> None:
    if engine == "tensorrt":
        pytest.importorskip("fllm_export.engines.tensorrt.engine")
        from fllm_export.engines.tensorrt.engine import TensorRtEngine

        with pytest.raises(UsageError, match=r"`tensorrt` cannot scan a table with deleted rows.*users compact"):
            TensorRtEngine(Table(table), table)
        return
    with pytest.raises(UsageError, match=r"'cuda' cannot scan a table with deleted rows.*users compact.*'native'"):
        UserTable.open(table, engine=engine)
