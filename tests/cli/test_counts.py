"""What commands print of one thing and of many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result

from fllm_export.cli.main import main
from fllm_export.counted import counted


def run(*arguments: object) -> Result:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done


def vectors(folder: Path, name: str, users: int) -> Path:
    path = folder / name
    np.save(path, np.random.default_rng(users).standard_normal((users, 8)).astype(np.float32))
    return path


def test_numbers_have_a_plural_and_separators() -> None:
    assert [counted(number, "user") for number in (0, 1, 2, 6040)] == ["0 users", "1 user", "2 users", "6,040 users"]


def test_one_user_and_one_item_are_singular(tmp_path: Path) -> None:
    one, table = vectors(tmp_path, "one.npy", 1), tmp_path / "table"
    assert "table: 1 user x 8, int8" in run("users", "create", table, one).stdout
    assert "1 item: scan" in run("query", table, "--file", one, "-k", 1).stderr
    two = vectors(tmp_path, "two.npy", 2)
    assert "2 items: scan" in run("query", table, "--file", two, "-k", 1).stderr


def test_the_list_of_shards_is_a_table(tmp_path: Path) -> None:
    table, ids = tmp_path / "table", tmp_path / "ids.npy"
    run("users", "create", table, vectors(tmp_path, "many.npy", 1200))
    np.save(ids, np.array([5000]))
    run("users", "append", table, vectors(tmp_path, "one.npy", 1), "--ids", ids)
    run("users", "delete", table, 17)
    first, blank, header, rule, *shards = run("users", "list", table).stdout.splitlines()
    assert "generation 3, 1,200 users" in first
    assert blank == ""
    assert header.split() == ["shard", "rows", "deleted", "size"]
    assert [shard.split()[1:3] for shard in shards] == [["1,200", "1"], ["1", "0"]]
    assert len({len(line) for line in (header, rule, *shards)}) == 1
