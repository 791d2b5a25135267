"""Refinement rows on disk: files of their own, whose rows are in the order of the rows that are scanned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fllm_export import BundleError, UsageError
from fllm_export.table.codecs import CODECS
from fllm_export.table.footprint import Footprint
from fllm_export.table.layout import FILE_NAME, TableLayout
from fllm_export.table.options import TableOptions
from fllm_export.table.table import Table
from fllm_export.table.writer import TableWriter, write_table

GENERATOR = np.random.default_rng(0)
DIM, SCAN_DIM = 48, 20
ROWS = GENERATOR.standard_normal((5000, DIM)).astype(np.float32)
BIAS = GENERATOR.standard_normal(5000).astype(np.float32)
IDS = GENERATOR.permutation(20_000)[:5000]


def write(
    directory: Path,
    quant: str = "int2",
    refine: str = "int8",
    cluster: str = "yes",
    scan_dim: int | None = SCAN_DIM,
    **more: object,
) -> Table:
    options = TableOptions(quant, 1 << 17, cluster=cluster, refine=refine)
    writer = TableWriter(directory, options, dim=DIM, scan_dim=scan_dim, bias=True, **more)
    write_table(writer, ((ROWS[i : i + 700], IDS[i : i + 700], BIAS[i : i + 700]) for i in range(0, 5000, 700)))
    return Table(directory)


@pytest.mark.parametrize("cluster", ["yes", "no"])
@pytest.mark.parametrize("refine", ["int8", "fp16"])
def test_every_row_comes_back_under_its_id(tmp_path: Path, refine: str, cluster: str) -> None:
    table = write(tmp_path / "t", refine=refine, cluster=cluster)
    assert len(table.shards) > 1
    assert table.layout.tile_bounds == (cluster == "yes")
    assert table.verify() == sum(path.stat().st_size for path in (tmp_path / "t").iterdir())
    codec = CODECS[refine]
    expected = dict(zip(IDS.tolist(), codec.decode(codec.encode(ROWS), DIM), strict=True))
    found = {int(i): row for ids, rows in table.decoded() for i, row in zip(ids, rows, strict=True)}
    assert found.keys() == expected.keys()
    for user, row in found.items():
        np.testing.assert_array_equal(row, expected[user])


def test_rows_that_are_scanned_are_the_leading_dimensions(tmp_path: Path) -> None:
    refined = write(tmp_path / "refined", "int8", "fp16")
    plain = TableWriter(tmp_path / "plain", TableOptions("int8"), dim=SCAN_DIM, bias=True)
    write_table(plain, [(ROWS[:, :SCAN_DIM], IDS, BIAS)])
    rows = [
        {
            int(user): row.tobytes()
            for tile in table.tiles()
            for user, row in zip(tile.ids, tile.stored["codes"], strict=True)
        }
        for table in (refined, Table(tmp_path / "plain"))
    ]
    assert rows[0] == rows[1]


def test_gathered_rows_are_those_of_the_tiles(tmp_path: Path) -> None:
    table = write(tmp_path / "t")
    assert table.refinement is not None
    whole = np.concatenate([table.refinement.part(i, 0, shard.rows)["codes"] for i, shard in enumerate(table.shards)])
    numbers = GENERATOR.integers(0, 5000, 300)
    np.testing.assert_array_equal(table.refinement.gather(numbers)["codes"], whole[numbers])


def test_a_file_of_refinement_rows_is_plain_safetensors(tmp_path: Path) -> None:
    write(tmp_path / "t", scan_dim=None)
    tensors = load_file(tmp_path / "t" / "refine-00000.safetensors")
    users = load_file(tmp_path / "t" / "00000.safetensors")["ids"]
    rows = tensors["codes"].astype(np.float32) * tensors["scales"][:, None]
    place = {int(user): row for row, user in enumerate(IDS)}
    given = ROWS[[place[int(user)] for user in users]]
    assert np.abs(rows - given).max() <= tensors["scales"].max() / 2 * 1.001


def test_older_readers_are_told(tmp_path: Path) -> None:
    write(tmp_path / "t")
    assert json.loads((tmp_path / "t" / FILE_NAME).read_text())["reader_features"] == ["refinement"]
    plain = TableWriter(tmp_path / "plain", TableOptions("int8"), dim=DIM)
    write_table(plain, [(ROWS, IDS, None)])
    document = json.loads((tmp_path / "plain" / FILE_NAME).read_text())
    assert document["reader_features"] == []
    assert "refinement" not in document


def test_the_layout_comes_back(tmp_path: Path) -> None:
    layout = write(tmp_path / "t").layout
    assert TableLayout.load(tmp_path / "t") == layout
    assert layout.item_dim == DIM
    assert layout.dim == SCAN_DIM
    assert len(layout.files) == 2 * len(layout.shards)


@pytest.mark.parametrize(
    ("quant", "refine", "scan_dim"), [("int2", "int8", 20), ("int8", "fp16", 48), ("int4", "int8", 48)]
)
@pytest.mark.parametrize("cluster", ["yes", "no"])
def test_the_footprint_is_that_of_the_files(
    tmp_path: Path, quant: str, refine: str, scan_dim: int, cluster: str
) -> None:
    write(tmp_path / "t", quant, refine, cluster, scan_dim)
    options = TableOptions(quant, 1 << 17, cluster=cluster, refine=refine)
    footprint = Footprint.of(options, 5000, DIM, scan_dim=scan_dim, bias=True)
    assert footprint.disk == sum(path.stat().st_size for path in (tmp_path / "t").iterdir())
    assert footprint.parts["refinement"] == 5000 * CODECS[refine].row_bytes(DIM)
    assert footprint.read == 5000 * (CODECS[quant].row_bytes(scan_dim) + 4) or quant == "int2"


def test_a_killed_writer_goes_on(tmp_path: Path) -> None:
    def writer() -> TableWriter:
        options = TableOptions("int2", 1 << 17, refine="int8")
        return TableWriter(tmp_path / "t", options, dim=DIM, scan_dim=SCAN_DIM, resume_key="a")

    first = writer()
    first.add(ROWS, IDS)
    files = sorted(path.name for path in (tmp_path / "t").glob("*.safetensors"))
    assert "refine-00001.safetensors" in files
    again = writer()
    assert again.rows_done > 0
    write_table(again, [(ROWS, IDS, None)])
    table = Table(tmp_path / "t")
    table.verify()
    whole = TableWriter(tmp_path / "whole", TableOptions("int2", 1 << 17, refine="int8"), dim=DIM, scan_dim=SCAN_DIM)
    write_table(whole, [(ROWS, IDS, None)])
    assert table.layout == TableLayout.load(tmp_path / "whole")


def test_a_killed_writer_that_lost_refinement_rows_writes_them_again(tmp_path: Path) -> None:
    def writer() -> TableWriter:
        return TableWriter(tmp_path / "t", TableOptions("int2", 1 << 17, refine="int8"), dim=DIM, resume_key="a")

    writer().add(ROWS, IDS)
    (tmp_path / "t" / "refine-00001.safetensors").write_bytes(b"")
    again = writer()
    assert 0 < again.rows_done < 5000
    write_table(again, [(ROWS, IDS, None)])
    Table(tmp_path / "t").verify()


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    table = write(tmp_path / "t")
    path = tmp_path / "t" / "refine-00001.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(BundleError, match=r"refine-00001\.safetensors has SHA-256"):
        table.verify()


@pytest.mark.parametrize(("quant", "refine"), [("int8", "int8"), ("fp16", "int8"), ("fp32", "fp16"), ("fp8", "int8")])
def test_refinement_rows_that_refine_nothing_are_refused(tmp_path: Path, quant: str, refine: str) -> None:
    with pytest.raises(UsageError, match=f"refine is {refine} and the rows are {quant} of 48 dimensions"):
        TableWriter(tmp_path / "t", TableOptions(quant, refine=refine), dim=DIM)


def test_dimensions_that_nothing_keeps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="20 of 48 dimensions are kept; expected all, without refinement rows"):
        TableWriter(tmp_path / "t", TableOptions("int8"), dim=DIM, scan_dim=SCAN_DIM)
    with pytest.raises(UsageError, match="scan_dim is 49"):
        TableWriter(tmp_path / "t", TableOptions("int8", refine="fp16"), dim=DIM, scan_dim=49)


def test_no_other_codec_refines() -> None:
    with pytest.raises(UsageError, match="refine is 'fp8'; expected one of no, int8, fp16"):
        TableOptions("int2", refine="fp8")  # type: ignore[arg-type]
