"""A table that many processes write: each makes its shards, and the manifest is published once.

The first shard decides what all shards share: the directions of the sketch, and whether tiles are clustered. So it is
written first. Every other shard depends on it and on its own rows alone, because clusters and bounds are made shard by
shard. Hence the table is bit-identical to the one that :func:`fllm_export.table.writer.write_table` writes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy.typing as npt

from fllm_export.files import publish_name
from fllm_export.progress import Progress, silent
from fllm_export.table import refinement
from fllm_export.table.file_names import shard_name
from fllm_export.table.layout import ShardEntry, TableLayout
from fllm_export.table.options import TableOptions
from fllm_export.table.writer import Chunk, TableWriter

_FOLDER = ".shards"

T = TypeVar("T")
R = TypeVar("R")


class Rows(Protocol):
    """User rows that any process can read, from any row on.

    Attributes:
        rows: number of rows.
        dim: dimension of a row.
        bias: whether each row has a bias.
        key: a hash of all of them.
    """

    rows: int
    dim: int
    bias: bool
    key: str

    def chunks(self, first: int, count: int) -> Iterator[Chunk]:
        """Yield rows ``first`` to ``first + count - 1`` as (rows [n, d], ids [n], biases [n] or None)."""
        ...


class Run(Protocol):
    """What calls a function with each of some arguments, in this process or in many, and yields what it returns."""

    def __call__(self, function: Callable[[T], R], arguments: Sequence[T]) -> Iterator[R]:
        """Yield the results in the order of the arguments."""
        ...


def run_here(function: Callable[[T], R], arguments: Sequence[T]) -> Iterator[R]:
    """Call a function in this process."""
    return map(function, arguments)


@dataclass(frozen=True)
class ShardTask:
    """A shard that some process writes, with no other's help once the first is there.

    Attributes:
        folder: its own directory, seeded with the first shard.
        options: of the table.
        rows: of the table.
        key: of the table's rows and options.
        first: number of the shard's first row.
        count: its rows.
    """

    folder: Path
    options: TableOptions
    rows: Rows
    key: str
    first: int
    count: int

    def writer(self) -> TableWriter:
        """Return a writer that goes on after the first shard, or after this one if it is finished."""
        return TableWriter(self.folder, self.options, dim=self.rows.dim, bias=self.rows.bias, resume_key=self.key)


def write_shard(task: ShardTask) -> tuple[ShardEntry, ShardEntry | None]:
    """Write a shard, unless an interrupted call has, and return its files, named as in the task's directory.

    Raises:
        UsageError: a row, a bias or an id is invalid.
    """
    writer = task.writer()
    if len(writer.shards) == 1:
        for rows, ids, bias in task.rows.chunks(task.first, task.count):
            writer.add(rows, ids, bias)
        writer.flush()
    return writer.shards[1]


def write_in_parts(
    directory: Path,
    rows: Rows,
    options: TableOptions,
    *,
    items: npt.ArrayLike | None = None,
    run: Run = run_here,
    generation: int = 1,
    progress: Progress = silent,
) -> TableLayout:
    """Write a table of which each shard is a task of its own. The same call goes on with what an interrupted one left.

    Args:
        directory: new, empty, or left by an interrupted call. All processes reach it by the same path.
        rows: of all users.
        options: how they are stored.
        items: item vectors [n, d] like those to come, by which the sketch is chosen.
        run: what carries out the tasks; :class:`fllm_export.scale.ray_tasks.RayTasks` does on a cluster.
        generation: version number of the table.
        progress: counts users.

    Raises:
        UsageError: the directory holds something else, or a row, a bias or an id is invalid.
    """
    directory = directory.absolute()  # other processes have other working directories
    key = hashlib.sha256(f"{rows.key} {json.dumps(asdict(options), sort_keys=True)}".encode()).hexdigest()
    writer = TableWriter(directory, options, dim=rows.dim, bias=rows.bias, items=items, resume_key=key)
    if not writer.shards:
        for chunk in rows.chunks(0, min(writer.shard_rows, rows.rows)):
            writer.add(*chunk)
    progress("user table", min(writer.shard_rows, rows.rows), rows.rows)
    done = writer.rows_done or writer.shard_rows
    if done < rows.rows:
        _write_others(directory, writer, _tasks(directory, writer, rows, options, key, done), run, progress)
    layout = writer.finish(generation=generation)
    shutil.rmtree(directory / _FOLDER, ignore_errors=True)
    return layout


def _tasks(
    directory: Path, writer: TableWriter, rows: Rows, options: TableOptions, key: str, done: int
) -> list[ShardTask]:
    tasks = []
    for first in range(done, rows.rows, writer.shard_rows):
        folder = directory / _FOLDER / f"{first // writer.shard_rows:05d}"
        count = min(writer.shard_rows, rows.rows - first)
        tasks.append(ShardTask(folder, options, rows, key, first, count))
    return tasks


def _write_others(directory: Path, writer: TableWriter, tasks: list[ShardTask], run: Run, progress: Progress) -> None:
    for task in tasks:
        if not task.folder.is_dir():
            writer.seed(task.folder)
    for task, files in zip(tasks, run(write_shard, tasks), strict=True):
        number = len(writer.shards)
        shard = _moved(task.folder, directory, files[0], shard_name(number))
        finer = files[1] and _moved(task.folder, directory, files[1], refinement.shard_name(number))
        writer.adopt(shard, finer)
        progress("user table", task.first + task.count, task.rows.rows)


def _moved(source: Path, target: Path, entry: ShardEntry, name: str) -> ShardEntry:
    """Give a file of a task its name in the table. The task keeps its own until the table is finished."""
    publish_name(source / entry.name, target / name)
    return ShardEntry(name, entry.rows, entry.bytes, entry.sha256)
