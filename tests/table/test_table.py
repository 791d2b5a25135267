from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fllm_export import BundleError, UsageError
from fllm_export.files import sha256_file
from fllm_export.table.codecs import CODECS
from fllm_export.table.layout import TableLayout
from fllm_export.table.options import TableOptions
from fllm_export.table.shard import PAGE_BYTES
from fllm_export.table.table import Table
from fllm_export.table.writer import TableWriter, write_table

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.standard_normal((5000, 48)).astype(np.float32)
IDS = GENERATOR.permutation(20_000)[:5000]
SMALL_SHARD = 1024 * 60


def write(directory: Path, quant: str = "int8", chunk: int = 700, **options: object) -> Table:
    writer = TableWriter(directory, TableOptions(quant, SMALL_SHARD), dim=48, **options)
    chunks = ((ROWS[i : i + chunk], IDS[i : i + chunk], None) for i in range(0, len(ROWS), chunk))
    write_table(writer, chunks)
    return Table(directory)


@pytest.mark.parametrize("quant", CODECS)
def test_every_row_comes_back_under_its_id(tmp_path: Path, quant: str) -> None:
    table = write(tmp_path / "users", quant)
    table.verify()
    assert len(table.shards) > 1
    found = {int(i): row for ids, rows in table.decoded() for i, row in zip(ids, rows, strict=True)}
    expected = CODECS[quant].decode(CODECS[quant].encode(ROWS), 48)
    assert len(found) == len(ROWS)
    for i, row in zip(IDS, expected, strict=True):
        np.testing.assert_array_equal(found[int(i)], row)


def test_the_cut_into_chunks_does_not_change_a_byte(tmp_path: Path) -> None:
    digests = set()
    for chunk in (1, 333, 5000):
        write(tmp_path / str(chunk), chunk=chunk)
        digests.add(tuple(sha256_file(path) for path in sorted((tmp_path / str(chunk)).iterdir())))
    assert len(digests) == 1


def test_a_shard_is_plain_safetensors_on_page_boundaries(tmp_path: Path) -> None:
    table = write(tmp_path / "users")
    path = table.shards[0].path
    tensors = load_file(path)
    restored = tensors["codes"].astype(np.float32) * tensors["scales"][:, None]
    np.testing.assert_array_equal(restored, next(table.decoded())[1][: len(restored)])
    assert (np.diff(tensors["ids"]) > 0).all()
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    for name in ("codes", "scales", "ids"):
        assert (8 + length + header[name]["data_offsets"][0]) % PAGE_BYTES == 0


def test_an_interrupted_writer_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", resume_key="k")
    first = TableWriter(tmp_path / "cut", TableOptions(shard_bytes=SMALL_SHARD), dim=48, resume_key="k")
    first.add(ROWS[:3000], IDS[:3000])
    second = TableWriter(tmp_path / "cut", TableOptions(shard_bytes=SMALL_SHARD), dim=48, resume_key="k")
    assert 0 < second.rows_done < 3000
    write_table(second, [(ROWS, IDS, None)])
    assert (tmp_path / "cut" / "table.json").read_bytes() == (whole.directory / "table.json").read_bytes()
    Table(tmp_path / "cut").verify()


def test_a_writer_of_other_rows_starts_afresh(tmp_path: Path) -> None:
    first = TableWriter(tmp_path / "t", TableOptions(shard_bytes=SMALL_SHARD), dim=48, resume_key="a")
    first.add(ROWS[:3000], IDS[:3000])
    second = TableWriter(tmp_path / "t", TableOptions(shard_bytes=SMALL_SHARD), dim=48, resume_key="b")
    assert second.rows_done == 0
    assert not list((tmp_path / "t").glob("*.safetensors"))


def test_a_finished_table_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "users")
    with pytest.raises(UsageError, match="holds a table already"):
        TableWriter(tmp_path / "users", TableOptions(), dim=48)


def test_files_of_other_origin_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"someone's weights")
    with pytest.raises(UsageError, match="is not empty; expected a new or empty directory"):
        TableWriter(tmp_path, TableOptions(), dim=48)
    assert (tmp_path / "model.safetensors").read_bytes() == b"someone's weights"


@pytest.mark.parametrize(
    ("rows", "ids", "message"),
    [
        (ROWS[:2, :5], None, r"rows \(one per user\) is float32 \[2, 5\]; expected numbers \[n, 48\]"),
        ([["a"] * 48], None, r"rows \(one per user\) is <U1 \[1, 48\]; expected numbers"),
        (ROWS[:2] * 1j, None, r"rows \(one per user\) is complex64"),
        (ROWS[:2], [1], r"ids are int64 \[1\]"),
        (ROWS[:2], [0.5, 1.5], "ids are float64"),
        (ROWS[:2], [4, -1], "row 1 has the user id -1; expected ids from 0"),
        (ROWS[:2], np.array([1, 1 << 63], np.uint64), "row 1 has the user id 9223372036854775808"),
    ],
)
def test_unfit_rows_and_ids_are_refused(tmp_path: Path, rows: np.ndarray, ids: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TableWriter(tmp_path / "users", TableOptions(), dim=48).add(rows, ids)


@pytest.mark.parametrize("spoilt", ["rows", "large rows", "bias", "ids"])
def test_what_is_not_finite_or_out_of_range_is_named_with_its_row(tmp_path: Path, spoilt: str) -> None:
    rows, ids, bias = ROWS[:200].astype(np.float64), np.arange(200), np.zeros(200)
    if spoilt == "ids":
        ids[150] = -7
    elif spoilt == "bias":
        bias[150] = np.inf
    else:
        rows[150, 3] = 1e39 if spoilt == "large rows" else np.nan
    writer = TableWriter(tmp_path / "users", TableOptions(), dim=48, bias=True)
    with pytest.raises(UsageError, match="row 150 "):
        write_table(writer, [(rows[i : i + 70], ids[i : i + 70], bias[i : i + 70]) for i in range(0, 200, 70)])
    assert not (tmp_path / "users" / "table.json").exists()


def test_an_id_that_occurs_twice_is_found_across_shards(tmp_path: Path) -> None:
    ids = IDS.copy()
    ids[4900] = ids[10]
    writer = TableWriter(tmp_path / "users", TableOptions(shard_bytes=SMALL_SHARD), dim=48)
    with pytest.raises(UsageError, match=f"user id {ids[10]} occurs more than once"):
        write_table(writer, [(ROWS, ids, None)])
    assert not (tmp_path / "users" / "table.json").exists()
    with pytest.raises(BundleError, match=r"holds no table\.json"):
        Table(tmp_path / "users")


def test_bias_is_stored_and_must_be_given_for_all_rows(tmp_path: Path) -> None:
    bias = np.arange(100, dtype=np.float32)
    writer = TableWriter(tmp_path / "users", TableOptions(), dim=48, bias=True)
    writer.add(ROWS[:100], IDS[:100], bias)
    with pytest.raises(UsageError, match="no bias was given"):
        writer.add(ROWS[100:200], IDS[100:200])
    writer.finish()
    tile = next(Table(tmp_path / "users").tiles())
    assert dict(zip(tile.ids.tolist(), tile.bias.tolist(), strict=True)) == dict(
        zip(IDS[:100].tolist(), bias.tolist(), strict=True)
    )


WRITE_IN_CHUNKS = """
import resource, sys
from pathlib import Path
import numpy as np
from fllm_export import UserTable

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def chunks(count):
    generator = np.random.default_rng(0)
    for _ in range(count):
        yield generator.standard_normal((8192, 256), dtype=np.float32)

UserTable.create(Path(sys.argv[1]) / "warm", chunks(2), shard_bytes=8 << 20)
before = peak()
table = UserTable.create(Path(sys.argv[1]) / "large", chunks(64), shard_bytes=8 << 20)
print(len(table), peak() - before)
"""


def test_writing_from_chunks_takes_bounded_memory(tmp_path: Path) -> None:
    """64 chunks are 512 MiB of rows and a table of 136 MiB; the writer may hold a few shards of 8 MiB."""
    done = subprocess.run([sys.executable, "-c", WRITE_IN_CHUNKS, tmp_path], capture_output=True, text=True, check=True)
    rows, growth = map(int, done.stdout.split())
    assert rows == 64 * 8192
    assert growth < 64 << 20


@pytest.mark.parametrize("quant", CODECS)
def test_a_clustered_table_holds_the_same_rows_and_bounds_that_are_true(tmp_path: Path, quant: str) -> None:
    bias = GENERATOR.standard_normal(len(ROWS)).astype(np.float32)
    writer = TableWriter(tmp_path / "t", TableOptions(quant, 1 << 20, cluster="yes"), dim=48, bias=True)
    write_table(writer, [(ROWS, IDS, bias)])
    table = Table(tmp_path / "t")
    table.verify()
    assert table.layout.tile_bounds
    assert table.layout.tile_rows == 1024
    found = {int(i): row for ids, rows in table.decoded() for i, row in zip(ids, rows, strict=True)}
    expected = CODECS[quant].decode(CODECS[quant].encode(ROWS), 48)
    for i, row in zip(IDS, expected, strict=True):
        np.testing.assert_array_equal(found[int(i)], row)


def test_small_tables_are_not_clustered_unless_asked(tmp_path: Path) -> None:
    for choice, clustered in (("auto", False), ("yes", True), ("no", False)):
        writer = TableWriter(tmp_path / choice, TableOptions(cluster=choice), dim=48)
        assert write_table(writer, [(ROWS, IDS, None)]).tile_bounds is clustered
    with pytest.raises(UsageError, match="cluster is 'maybe'"):
        TableOptions(cluster="maybe")


def test_verify_sees_bounds_that_are_not_true(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path / "t", TableOptions(cluster="yes"), dim=48)
    write_table(writer, [(ROWS, IDS, None)])
    shard = Table(tmp_path / "t").shards[0]
    raw = bytearray(shard.path.read_bytes())
    extents = shard.beside["tile_extents"].copy()
    place = raw.find(extents.tobytes())
    extents.view(np.float32)[2, 2] *= 0.5
    raw[place : place + extents.nbytes] = extents.tobytes()
    shard.path.write_bytes(raw)
    layout = TableLayout.load(tmp_path / "t")
    replace(layout, shards=(replace(layout.shards[0], sha256=sha256_file(shard.path)),)).save(tmp_path / "t")
    with pytest.raises(BundleError, match="bounds of tile 2"):
        Table(tmp_path / "t").verify()


@pytest.mark.parametrize("quant", CODECS)
def test_rows_are_fetched_by_their_numbers(tmp_path: Path, quant: str) -> None:
    table = write(tmp_path / "users", quant)
    ids, rows = (np.concatenate(parts) for parts in zip(*table.decoded(), strict=True))
    wanted = GENERATOR.integers(0, 5000, 300)
    found = table.gather(wanted)
    np.testing.assert_array_equal(found.ids, ids[wanted])
    np.testing.assert_array_equal(table.codec.decode(found.stored, 48), rows[wanted])
    assert found.bias is None
    assert found.rows == 300


@pytest.mark.parametrize("change", [{"bias": True}, {"generation": 9}, {"tile_rows": 2048}, {"sha256": None}])
def test_verify_reads_every_byte_of_the_layout(tmp_path: Path, change: dict[str, object]) -> None:
    write(tmp_path / "users", bias=False)
    path = tmp_path / "users" / "table.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BundleError, match=r"table\.json is not as it was written"):
        TableLayout.verify(tmp_path / "users")


def test_a_table_keeps_its_identity_and_other_rows_have_another(tmp_path: Path) -> None:
    first, same = (write(tmp_path / name).layout for name in ("first", "same"))
    other = write_table(TableWriter(tmp_path / "other", TableOptions(), dim=48), [(ROWS[:99], None, None)])
    assert first.identity == same.identity != other.identity
    replace(first, generation=2).save(tmp_path / "first")
    assert TableLayout.load(tmp_path / "first").identity == first.identity
