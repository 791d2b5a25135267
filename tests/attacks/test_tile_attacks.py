"""Tables that lie about where their tiles end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import BundleError, UserTable
from fllm_export.files import sha256_file
from fllm_export.table import native
from fllm_export.table.layout import TableLayout
from fllm_export.table.shard import PAGE_BYTES
from fllm_export.table.table import Table

ENGINES = ("numpy", *(("native",) if native._core is not None else ()))


@pytest.fixture
def users(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((8, 16))[generator.integers(0, 8, 4_000)]
    rows = (rows + 0.05 * generator.standard_normal((4_000, 16))).astype(np.float32)
    UserTable.create(tmp_path / "users", rows, sketch="no", cluster="yes")
    assert json.loads((tmp_path / "users" / "table.json").read_text())["tile_ends"] is True
    return tmp_path / "users"


def shard(users: Path) -> Path:
    return users / "00000.safetensors"


def header_of(path: Path) -> tuple[dict[str, Any], int]:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), 8 + length


def ends_of(path: Path) -> np.ndarray:
    header, data = header_of(path)
    begin, end = header["tile_ends"]["data_offsets"]
    return np.frombuffer(path.read_bytes()[data + begin : data + end], np.int64).copy()


def put(path: Path, ends: np.ndarray) -> None:
    header, data = header_of(path)
    begin, end = header["tile_ends"]["data_offsets"]
    raw = bytearray(path.read_bytes())
    raw[data + begin : data + end] = ends.astype(np.int64).tobytes()
    path.write_bytes(raw)


def say(path: Path, name: str, **facts: Any) -> None:
    header, data = header_of(path)
    raw = path.read_bytes()
    header[name].update(facts)
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % PAGE_BYTES)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[data:])


def assert_refused(users: Path, message: str) -> None:
    for engine in ENGINES:
        with pytest.raises(BundleError, match=message):
            UserTable.open(users, engine=engine, threads=1)


LEAST, MOST = -(1 << 63), (1 << 63) - 1


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, 0, "tile 0 is rows 0 to 0; expected ends that ascend in multiples of 16, by at most 2048"),
        (0, -16, "tile 0 is rows 0 to -16"),
        (0, LEAST, "tile 0 is rows 0 to -9223372036854775808"),
        (0, MOST, "tile 0 is rows 0 to 9223372036854775807"),
        (1, MOST - 15, r"tile 1 is rows \d+ to 9223372036854775792"),
        (1, 17, r"tile \d is rows"),
        (2, 16, r"tile 2 is rows \d+ to 16"),
        (-1, 4_001, r"tiles? \d*.*400[01]"),
        (-1, 3_999, r"3999"),
        (-2, 5_000, "to 5000"),
        (-2, 4_000, r"tile \d+ is rows \d+ to 4000"),
    ],
)
def test_ends_that_lie(users: Path, place: int, value: int, message: str) -> None:
    ends = ends_of(shard(users))
    ends[place] = value
    put(shard(users), ends)
    assert_refused(users, message)


def test_a_tile_longer_than_the_table_says(users: Path) -> None:
    ends = ends_of(shard(users))
    ends[:-3] = np.arange(len(ends) - 3) * 16 + 16
    put(shard(users), ends)
    assert_refused(users, "by at most 2048")


def test_ends_of_another_number(users: Path) -> None:
    count = len(ends_of(shard(users)))
    raw = shard(users).read_bytes()
    for shape, message in (
        ([count - 1], "bytes|starts at data byte"),
        ([1 << 47], "spans"),
        ([0], "spans|bytes"),
        ([], "spans"),
        ([count, 1], r"tensor `tile_ends` is I64 \[\d+, 1\]; expected I64 \[n\]"),
    ):
        say(shard(users), "tile_ends", shape=shape)
        assert_refused(users, message)
        shard(users).write_bytes(raw)
    say(shard(users), "tile_ends", dtype="U16", shape=[count * 4])
    assert_refused(users, r"tensor `tile_ends` is U16 \[\d+\]; expected I64 \[n\]")


def test_bounds_of_another_number_than_tiles(users: Path) -> None:
    """The ends say two tiles more than there are bounds of."""
    path = shard(users)
    header, data = header_of(path)
    raw = path.read_bytes()
    begin, end = header["tile_ends"]["data_offsets"]
    count = (end - begin) // 8
    padding = next(name for name, entry in header.items() if entry.get("data_offsets", [0])[0] == end)
    header["tile_ends"].update(shape=[count + 2], data_offsets=[begin, end + 16])
    gap = header[padding]["shape"][0] - 16
    header[padding].update(shape=[gap], data_offsets=[end + 16, end + 16 + gap])
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % PAGE_BYTES)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[data:])
    assert_refused(users, rf"tensor `tile_directions` is F32 \[{count}, 16\]; expected F32 \[{count + 2}, 16\]")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile_ends": False}, "`tile_ends` is (False|false); expected true"),
        ({"tile_ends": 1}, "`tile_ends` is 1; expected true"),
        ({"tile_ends": None}, "`tile_ends` is (None|null); expected true"),
        ({"reader_features": []}, "`tile_ends` is not one of the reader features; expected both or neither"),
        ({"tile_bounds": False}, "`tile_bounds` is (False|false); expected true, as tiles have ends"),
        ({"tile_rows": 16}, "by at most 32"),
    ],
)
def test_a_layout_that_lies(users: Path, changes: dict[str, Any], message: str) -> None:
    path = users / "table.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    assert_refused(users, message)


def test_a_layout_that_forgets(users: Path) -> None:
    path = users / "table.json"
    document = json.loads(path.read_text())
    del document["tile_ends"]
    path.write_text(json.dumps(document))
    assert_refused(users, "`tile_ends` is missing; expected both or neither")
    document["reader_features"] = []
    path.write_text(json.dumps(document))  # as if all tiles but the last were full
    assert_refused(users, r"tensor `tile_directions` is F32 \[\d+, 16\]; expected F32 \[4, 16\]")


def test_verify_sees_tiles_of_other_rows(users: Path) -> None:
    """Ends that are good in themselves, but between other rows than the bounds were made of."""
    ends = ends_of(shard(users))
    ends[0] -= 16
    put(shard(users), ends)
    layout = TableLayout.load(users)
    replace(layout, shards=(replace(layout.shards[0], sha256=sha256_file(shard(users))),)).save(users)
    with pytest.raises(BundleError, match=r"tile [01]: user ids do not ascend|the bounds of tile [01] are not those"):
        Table(users).verify()
