"""Attempts to make the reader of user tables crash, read outside its file or believe a lie."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fllm_export import BundleError, UserTable
from fllm_export.files import sha256_file
from fllm_export.table.layout import TableLayout
from fllm_export.table.shard import PAGE_BYTES
from fllm_export.table.table import Table

ROWS = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    UserTable.create(tmp_path / "users", ROWS)
    return tmp_path / "users"


def shard(users: Path) -> Path:
    return users / "00000.safetensors"


def rewrite_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % PAGE_BYTES)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def rewrite_layout(users: Path, **changes: Any) -> None:
    path = users / "table.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_shard_cut_short(users: Path) -> None:
    shard(users).write_bytes(shard(users).read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"00000\.safetensors holds \d+ bytes of data; expected \d+, as the header"):
        Table(users)


def test_a_shard_that_is_a_directory(users: Path) -> None:
    shard(users).unlink()
    shard(users).mkdir()
    with pytest.raises(BundleError, match=r"00000\.safetensors cannot be read \(Is a directory\)"):
        Table(users)


def test_a_shard_that_is_a_pipe(users: Path) -> None:
    """Opening one waits for its other end."""
    shard(users).unlink()
    os.mkfifo(shard(users))
    for engine in ("numpy", "native"):
        with pytest.raises(BundleError, match=r"Not a regular file|is not a file"):
            UserTable.open(users, engine=engine, threads=1)


def test_numbers_beyond_64_bits(users: Path) -> None:
    for name in ("generation", "tile_rows"):
        document = json.loads((users / "table.json").read_text())
        for engine in ("numpy", "native"):
            rewrite_layout(users, **{name: 1 << 63})
            with pytest.raises(BundleError, match=name):
                UserTable.open(users, engine=engine, threads=1)
        rewrite_layout(users, **{name: document[name]})


def test_names_that_stand_twice(users: Path) -> None:
    path = users / "table.json"
    text = path.read_text()
    path.write_text(text.replace('"dim": 16', '"dim": 16, "dim": 8'))
    with pytest.raises(BundleError, match=r"not JSON \(the name 'dim' stands twice in one object\)"):
        Table(users)
    path.write_text(text)
    raw = shard(users).read_bytes()
    twice = b'"ids":{"dtype":"I64","shape":[0],"data_offsets":[0,0]},"ids"'
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length].replace(b'"ids"', twice, 1)[:length]
    shard(users).write_bytes(raw[:8] + header + raw[8 + length :])
    with pytest.raises(BundleError, match="'ids' stands twice"):
        Table(users)


def test_a_layout_without_end(users: Path) -> None:
    with (users / "table.json").open("r+b") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(BundleError, match=r"has 67108865 bytes; expected at most 67108864"):
        Table(users)


@pytest.mark.parametrize("size", [0, 3, 8, 100])
def test_a_shard_cut_within_its_header(users: Path, size: int) -> None:
    shard(users).write_bytes(shard(users).read_bytes()[:size])
    with pytest.raises(BundleError, match=r"has \d+ bytes and its header claims \d+.*cut short"):
        Table(users)


def test_a_shard_with_something_added(users: Path) -> None:
    with shard(users).open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="or something was added to it"):
        Table(users)


def test_a_missing_shard(users: Path) -> None:
    shard(users).unlink()
    with pytest.raises(BundleError, match=r"00000\.safetensors is missing"):
        Table(users)


def test_a_header_that_claims_to_be_huge(users: Path) -> None:
    raw = bytearray(shard(users).read_bytes())
    raw[:8] = (2**63).to_bytes(8, "little")
    shard(users).write_bytes(raw)
    with pytest.raises(BundleError, match="its header claims 9223372036854775808"):
        Table(users)


@pytest.mark.parametrize("text", [b"{" * 4088, b"[" * 4088, b'"a"' + b" " * 4085, b"\xff" * 4088, b" " * 4088])
def test_a_header_that_is_no_object(users: Path, text: bytes) -> None:
    raw = shard(users).read_bytes()
    shard(users).write_bytes((4088).to_bytes(8, "little") + text + raw[4096:])
    with pytest.raises(BundleError, match="header is"):
        Table(users)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("codes"), "starts at data byte|has no tensor `codes`"),
        (lambda h: h["codes"].update(dtype="F64"), "entry of `codes` is unreadable"),
        (lambda h: h["codes"].update(dtype="U8"), r"tensor `codes` is U8 \[200, 16\]; expected I8 \[200, 16\]"),
        (lambda h: h["codes"].update(shape=[16, 200]), r"`codes` is I8 \[16, 200\]; expected I8 \[200, 16\]"),
        (lambda h: h["codes"].update(shape=[-200, -16]), r"expected integers from 0 to 2\^48 - 1"),
        (lambda h: h["codes"].update(shape=[2**40, 2**40]), "spans 3200 bytes"),
        (lambda h: h["codes"].update(shape=[True, 3200]), r"expected integers from 0 to 2\^48 - 1"),
        (lambda h: h["codes"].update(shape={}), r"tensor `codes` is \{\} at 0..3200; expected integers"),
        (lambda h: h["codes"].update(data_offsets=[0, 2**62]), r"expected integers from 0 to 2\^48 - 1"),
        (lambda h: h["codes"].update(data_offsets=[4096, 7296]), "starts at data byte"),
        (lambda h: h["codes"].update(data_offsets=[0]), "entry of `codes` is unreadable"),
        (lambda h: h.update(codes=7), "entry of `codes` is unreadable"),
        (lambda h: h["scales"].update(h["ids"] | {"dtype": "F32", "shape": [400]}), "starts at data byte"),
    ],
)
def test_a_header_that_lies(users: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    rewrite_header(shard(users), change)
    with pytest.raises(BundleError, match=message):
        Table(users)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, r"has format version 2; expected at most 1.*Upgrade"),
        ({"format_version": "1"}, "format_version is '1'"),
        ({"codec": "int3"}, "codec is 'int3'; expected one of"),
        ({"codec": "fp16"}, r"tensor `codes` is I8 \[200, 16\]; expected F16"),
        ({"dim": 0}, "dim is 0; expected at least 1"),
        ({"dim": 2.5}, "`dim` is 2.5; expected a value of type int"),
        ({"rows": 7}, "the shards hold 200 rows; expected 7"),
        ({"tile_rows": -1}, "tile_rows is -1"),
        ({"bias": True}, "has no tensor `bias`"),
        ({"reader_features": ["segments"]}, "needs the reader features segments; .*Upgrade fllm-export"),
        ({"reader_features": "tombstones"}, "reader_features is 'tombstones'; expected a list of names"),
        ({"reader_features": [None]}, "expected a list of names"),
        ({"identity": 5}, "`identity` is 5; expected a value of type str"),
        ({"shards": "none"}, "`shards` is 'none'"),
        ({"shards": [5]}, r"shards\[0\] is 5"),
    ],
)
def test_a_layout_that_lies(users: Path, changes: dict[str, Any], message: str) -> None:
    rewrite_layout(users, **changes)
    with pytest.raises(BundleError, match=message):
        Table(users)


@pytest.mark.parametrize(("quant", "inner"), [("int1", "1, "), ("int2", "1, "), ("int4row", "2, 1, ")])
def test_a_table_in_blocks_that_lies(tmp_path: Path, quant: str, inner: str) -> None:
    UserTable.create(tmp_path / "users", ROWS, quant=quant)
    users = tmp_path / "users"
    whole, raw = (users / "table.json").read_text(), shard(users).read_bytes()
    for changes, message in (
        ({"tile_rows": 100}, "tile_rows is 100; expected a multiple of 16"),
        ({"sketch_dims": 16}, f"sketch_dims is 16; expected 0, as codec is {quant}"),
        (
            {"dim": 33 if quant == "int1" else 17},
            rf"`codes` is U8 \[13, {inner}64\]; expected U8 \[13, {inner.replace('1', '2', 1)}64\]",
        ),
        ({"codec": "int8"}, rf"`codes` is U8 \[13, {inner}64\]; expected I8 \[200, 16\]"),
    ):
        rewrite_layout(users, **changes)
        for engine in ("numpy", "native"):
            with pytest.raises(BundleError, match=message):
                UserTable.open(users, engine=engine)
        (users / "table.json").write_text(whole)
    # As if every row lay by itself: 13 blocks of 16 rows are 208 rows.
    rewrite_header(shard(users), lambda header: header["codes"].update(shape=[208, 8 if quant == "int4row" else 4]))
    for engine in ("numpy", "native"):
        with pytest.raises(BundleError, match="tensor `codes` "):
            UserTable.open(users, engine=engine)
    shard(users).write_bytes(raw)
    assert len(UserTable.open(users)) == 200


@pytest.mark.parametrize("quant", ["int2", "int4row"])
def test_what_fills_blocks_up_changes_no_answer(tmp_path: Path, quant: str) -> None:
    rows = ROWS[:21, :13]
    UserTable.create(tmp_path / "users", rows, quant=quant)
    before = [UserTable.open(tmp_path / "users", engine=engine).topk(rows, 21) for engine in ("numpy", "native")]
    path = shard(tmp_path / "users")
    raw = bytearray(path.read_bytes())
    begin = data_offset(path, "codes")
    planes = 1 if quant == "int2" else 2
    for plane in range(planes):
        # Row 5 of the second block is the first of none; dimension 13 is bits 6 and 7 of a lane's second byte.
        raw[begin + (planes + plane) * 64 + 4 * 5] = 0xFF
        raw[begin + plane * 64 + 1] |= 0xC0
    path.write_bytes(raw)
    for found, engine in zip(before, ("numpy", "native"), strict=True):
        after = UserTable.open(tmp_path / "users", engine=engine).topk(rows, 21)
        np.testing.assert_array_equal(after.user_ids, found.user_ids)
        np.testing.assert_array_equal(after.scores, found.scores)


def test_a_shard_name_with_a_zero_byte(users: Path) -> None:
    entry = json.loads((users / "table.json").read_text())["shards"][0]
    rewrite_layout(users, shards=[{**entry, "name": "00000.safetensors\0"}])
    with pytest.raises(BundleError, match="a file name without folders"):
        Table(users)


def test_a_shard_name_that_leaves_the_directory(users: Path) -> None:
    layout = json.loads((users / "table.json").read_text())
    layout["shards"][0]["name"] = "../users/00000.safetensors"
    rewrite_layout(users, shards=layout["shards"])
    with pytest.raises(BundleError, match="expected a file name without folders"):
        Table(users)


def test_a_layout_that_is_not_json(users: Path) -> None:
    (users / "table.json").write_text("{")
    with pytest.raises(BundleError, match=r"table\.json is not JSON"):
        Table(users)


def data_offset(path: Path, tensor: str) -> int:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return 8 + length + int(json.loads(raw[8 : 8 + length])[tensor]["data_offsets"][0])


@pytest.mark.parametrize(
    ("tensor", "value", "message"),
    [
        ("scales", np.float32(np.nan).tobytes(), "the row of user 0 holds a number that is not finite"),
        ("ids", np.int64(5000).tobytes(), "user ids do not ascend"),
        ("ids", np.int64(-3).tobytes(), "user ids do not ascend"),
    ],
)
def test_verify_reads_what_opening_does_not(users: Path, tensor: str, value: bytes, message: str) -> None:
    path = shard(users)
    raw = bytearray(path.read_bytes())
    offset = data_offset(path, tensor)
    raw[offset : offset + len(value)] = value
    path.write_bytes(raw)
    with pytest.raises(BundleError, match=r"has SHA-256 \w+; expected \w+"):
        Table(users).verify()
    layout = TableLayout.load(users)
    vouched = replace(layout.shards[0], sha256=sha256_file(path))
    replace(layout, shards=(vouched,)).save(users)
    with pytest.raises(BundleError, match=message):
        Table(users).verify()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_bytes_flipped_in_the_header_never_crash_the_reader(users: Path, data: st.DataObject) -> None:
    """Whatever is written there, the answer is a table of the declared shape or a BundleError."""
    path = shard(users)
    original = path.read_bytes()
    raw = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 700))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        tiles = list(Table(users).tiles())
        assert sum(tile.rows for tile in tiles) == 200
        assert all(tile.stored["codes"].shape == (tile.rows, 16) for tile in tiles)
    except BundleError:
        pass
    finally:
        path.write_bytes(original)
