"""Tables written shard by shard in tasks of their own: the bytes of one writer's table."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import UsageError
from fllm_export.scale.building import run_here, write_in_parts
from fllm_export.table.options import TableOptions
from fllm_export.table.table import Table
from fllm_export.table.writer import TableWriter, write_table

GENERATOR = np.random.default_rng(4)
ROWS = GENERATOR.standard_normal((3000, 64)).astype(np.float32)
IDS = GENERATOR.permutation(5000)[:3000]
BIAS = GENERATOR.standard_normal(3000).astype(np.float32)
ITEMS = GENERATOR.standard_normal((50, 64)).astype(np.float32)


class ArrayRows:
    """Rows in memory."""

    def __init__(self, count: int = 3000, bias: bool = False, ids: np.ndarray = IDS) -> None:
        self.rows, self.dim, self.bias, self.key, self._ids = count, 64, bias, f"rows {count} {bias}", ids

    def chunks(self, first: int, count: int) -> Iterator[tuple[Any, Any, Any]]:
        for start in range(first, first + count, 101):
            part = slice(start, min(start + 101, first + count))
            yield ROWS[part], self._ids[part], BIAS[part] if self.bias else None


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def one_writer(directory: Path, rows: ArrayRows, options: TableOptions) -> dict[str, bytes]:
    writer = TableWriter(directory, options, dim=64, bias=rows.bias, items=ITEMS)
    write_table(writer, rows.chunks(0, rows.rows))
    return files(directory)


@pytest.mark.parametrize(
    "options",
    [
        TableOptions(quant="int8", shard_bytes=1 << 15, sketch="yes", cluster="yes"),
        TableOptions(quant="fp16", shard_bytes=1 << 15),
        TableOptions(quant="int2", shard_bytes=1 << 15, refine="int8"),
        TableOptions(quant="int8"),
    ],
    ids=["sketch", "fp16", "refined", "one shard"],
)
@pytest.mark.parametrize("bias", [False, True])
def test_the_bytes_are_those_of_one_writer(tmp_path: Path, options: TableOptions, bias: bool) -> None:
    expected = one_writer(tmp_path / "one", ArrayRows(bias=bias), options)
    order: list[int] = []

    def backwards(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        found = {}
        for task in reversed(tasks):  # no task waits for another
            order.append(task.first)
            found[task.first] = function(task)
        return (found[task.first] for task in tasks)

    write_in_parts(tmp_path / "many", ArrayRows(bias=bias), options, items=ITEMS, run=backwards)
    assert files(tmp_path / "many") == expected
    assert len(order) == len([name for name in expected if name[0] == "0"]) - 1
    Table(tmp_path / "many").verify()


def test_an_interrupted_table_goes_on(tmp_path: Path) -> None:
    options = TableOptions(quant="int8", shard_bytes=1 << 15, sketch="yes")
    expected = one_writer(tmp_path / "one", ArrayRows(), options)
    written: list[int] = []

    def dies(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        for task in tasks[:5]:
            yield function(task)
        tasks[6].writer()  # another task has begun
        function(tasks[7])  # and one has ended, of which the driver does not know
        raise KeyboardInterrupt

    def counts(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        for task in tasks:
            written.append(task.first)
            yield function(task)

    with pytest.raises(KeyboardInterrupt):
        write_in_parts(tmp_path / "many", ArrayRows(), options, items=ITEMS, run=dies)
    assert not (tmp_path / "many" / "table.json").exists()
    write_in_parts(tmp_path / "many", ArrayRows(), options, items=ITEMS, run=counts)
    assert files(tmp_path / "many") == expected
    assert len(written) == len([name for name in expected if name[0] == "0"]) - 6


def test_an_id_that_occurs_in_two_shards_is_refused(tmp_path: Path) -> None:
    ids = IDS.copy()
    ids[2999] = ids[0]
    with pytest.raises(UsageError, match=r"twice|unique|once"):
        write_in_parts(
            tmp_path / "t", ArrayRows(ids=ids), TableOptions(quant="int8", shard_bytes=1 << 15), run=run_here
        )
    assert not (tmp_path / "t" / "table.json").exists()


def test_tasks_that_run_in_another_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = TableOptions(quant="int8", shard_bytes=1 << 15)
    expected = one_writer(tmp_path / "one", ArrayRows(), options)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    def elsewhere(function: Callable[[Any], Any], arguments: Sequence[Any]) -> Iterator[Any]:
        for argument in arguments:
            with contextlib.chdir(tmp_path / "elsewhere"):
                found = function(argument)
            yield found

    write_in_parts(Path("parts"), ArrayRows(), options, items=ITEMS, run=elsewhere)
    assert files(tmp_path / "parts") == expected
