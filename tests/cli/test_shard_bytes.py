"""``--shard-bytes``: tables are divided as requested, and forecasts and resumed builds know of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fllm_export.cli.main import main
from fllm_export.table.footprint import Footprint
from fllm_export.table.options import TableOptions
from fllm_export.table.table import Table

USERS, DIM = 2000, 16
MANY = TableOptions(shard_bytes=8 << 10)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def document(*arguments: object) -> dict:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("typed", ["8K", "8k", "8192"])
def test_a_table_is_divided_as_requested_and_as_planned(typed: str, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).standard_normal((USERS, DIM), dtype=np.float32))
    made = document("users", "create", tmp_path / "t", tmp_path / "rows.npy", "--shard-bytes", typed, "--sketch", "no")
    expected = Footprint.of(TableOptions(shard_bytes=8 << 10, sketch="no"), USERS, DIM)
    assert made["shards"] == len(expected.shard_rows) > 3
    layout = Table(tmp_path / "t").layout
    assert [shard.rows for shard in layout.shards] == list(expected.shard_rows)
    assert layout.shard_bytes == 8 << 10
    size = ["--rows", USERS, "--dim", DIM, "--folder", tmp_path, "--batch", 1]
    planned = document("estimate", *size, "--shard-bytes", typed, "--sketch", "no")
    assert planned["shards"] == made["shards"]
    assert planned["bytes"]["disk"]["value"] == sum(path.stat().st_size for path in (tmp_path / "t").iterdir())


def test_a_build_with_other_shards_is_another_build(
    tiny_checkpoint: object, item_texts: list[str], tmp_path: Path
) -> None:
    tiny_checkpoint("bert", users=USERS, dim=DIM).save(tmp_path / "checkpoint")
    (tmp_path / "items.txt").write_text("\n".join(item_texts))
    build = ["build", tmp_path / "checkpoint", "-o", tmp_path / "b", "--calibration", tmp_path / "items.txt"]
    build += ["--min-recall", 0, "-k", 10]
    assert run(*build).exit_code == 0
    assert len(Table(tmp_path / "b" / "users").layout.shards) == 1
    assert "up to date" not in run(*build, "--shard-bytes", "8K").stderr
    shards = Table(tmp_path / "b" / "users").layout.shards
    assert [shard.rows for shard in shards] == list(Footprint.of(MANY, USERS, DIM).shard_rows)
    assert len(shards) > 3
    assert "up to date" in run(*build, "--shard-bytes", "8192").stderr
    forecast = document(*build, "--shard-bytes", "8K", "--dry-run")
    most = Footprint.of(MANY, USERS, DIM).disk
    assert forecast["files"]["users/"]["value"] == most > Footprint.of(TableOptions(), USERS, DIM).disk


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("4095", "'4095' is 4,095 bytes; expected at least 4,096"),
        ("0", "'0' is 0 bytes; expected at least 4,096"),
        ("3K", "'3K' is 3,072 bytes"),
        ("-1", "'-1' is not a number of bytes; expected an integer, or one with K, M or G"),
        ("1.5M", "'1.5M' is not a number of bytes"),
        ("many", "'many' is not a number of bytes"),
        ("", "'' is not a number of bytes"),
    ],
)
def test_sizes_that_are_none_are_refused(typed: str, words: str, tmp_path: Path) -> None:
    refused = run("users", "create", tmp_path / "t", tmp_path / "rows.npy", f"--shard-bytes={typed}")
    assert refused.exit_code == 2
    assert words in refused.stderr
