"""Pairs of a user id and an item id, read from a file or from arrays a batch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.errors import BundleError, HardwareError, UsageError
from fllm_export.system_errors import limit_error
from fllm_export.text_file import read_columns

Ids = npt.NDArray[np.int64]
RawPairs = tuple[Ids, Ids]
"""User ids and item ids, int64 [n] each."""

USER, ITEM, SPLIT = "user_id", "item_id", "split"
PAIRS_AT_ONCE = 1 << 20


class PairSource(Protocol):
    """Pairs that can be read again and again, in the same order each time."""

    name: str

    @property
    def pairs(self) -> int:
        """Number of pairs at most; a split may leave some out."""
        ...

    def identity(self) -> str:
        """Return what tells these pairs from others."""
        ...

    def batches(self) -> Iterator[RawPairs]:
        """Yield all pairs in order, about a million at a time."""
        ...


class PairArrays:
    """Pairs in memory.

    Args:
        users: user ids, integers [P].
        items: item ids, integers [P].
        name: names them in messages.

    Raises:
        UsageError: they are not integers from 0 to 2^63 - 1, or not of one length.
    """

    def __init__(self, users: npt.ArrayLike, items: npt.ArrayLike, name: str = "the pairs") -> None:
        self.name = name
        self._users = arguments.ids(users, "users")
        self._items = arguments.ids(items, "items", len(self._users))

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self._users)

    def identity(self) -> str:
        """Return a SHA-256 of the ids."""
        digest = hashlib.sha256(self._users.tobytes())
        digest.update(self._items.tobytes())
        return digest.hexdigest()

    def batches(self) -> Iterator[RawPairs]:
        """Yield all pairs in order."""
        for first in range(0, len(self._users), PAIRS_AT_ONCE):
            window = slice(first, first + PAIRS_AT_ONCE)
            yield self._users[window], self._items[window]


class PairFile:
    """The columns ``user_id`` and ``item_id`` of a file that is read a batch at a time.

    Parquet, CSV and TSV are streamed, at any size. Other endings of :mod:`fllm_export.text_file` are read whole, as
    are files with ``.gz``.

    Args:
        path: the file.
        split: only rows whose column ``split`` holds this; all rows when not given.

    Raises:
        UsageError: the file is missing, or of an unknown ending.
        BundleError: it is damaged, lacks a column, or an id is not an integer.
        HardwareError: pyarrow is not installed.
    """

    def __init__(self, path: str | Path, split: str | None = None) -> None:
        self._path = arguments.path(path, "path")
        self.name = str(self._path)
        self._split = split
        self._columns = [USER, ITEM] if split is None else [USER, ITEM, SPLIT]
        self._whole: PairArrays | None = None
        if not self._path.is_file():
            raise UsageError(f"{self._path} is not a file", expected=f"a file with the columns {USER} and {ITEM}")
        self._ending = self._path.suffix.lower()
        if self._ending not in (".parquet", ".csv", ".tsv"):
            self._whole = self._read_whole()
        elif self._ending == ".parquet":
            self._check_schema()

    @property
    def pairs(self) -> int:
        """Number of rows; for CSV and TSV a bound by the file's size."""
        if self._whole is not None:
            return self._whole.pairs
        if self._ending == ".parquet":
            with _damage(self._path), _parquet(self._path) as file:
                return int(file.metadata.num_rows)
        # The shortest record is a digit, a separator, a digit and a line end.
        return self._path.stat().st_size // 4 + 1

    def identity(self) -> str:
        """Return path, size, time of the last change, and split."""
        found = self._path.stat()
        return f"{self._path.resolve()} {found.st_size} {found.st_mtime_ns} {self._split}"

    def batches(self) -> Iterator[RawPairs]:
        """Yield all pairs in the file's order.

        Raises:
            BundleError: the file is damaged, or an id is missing, negative or not an integer.
        """
        if self._whole is not None:
            yield from self._whole.batches()
            return
        first = 0
        with _damage(self._path):
            for batch in self._arrow_batches():
                yield self._decoded(batch, first)
                first += len(batch)

    def _arrow_batches(self) -> Iterator[Any]:
        if self._ending == ".parquet":
            with _parquet(self._path) as file:
                yield from file.iter_batches(batch_size=PAIRS_AT_ONCE, columns=self._columns)
            return
        import pyarrow as pa
        from pyarrow import csv

        types = {USER: pa.int64(), ITEM: pa.int64(), SPLIT: pa.string()}
        reader = csv.open_csv(
            self._path,
            read_options=csv.ReadOptions(block_size=16 << 20),
            parse_options=csv.ParseOptions(delimiter="," if self._ending == ".csv" else "\t"),
            convert_options=csv.ConvertOptions(
                include_columns=self._columns, column_types={name: types[name] for name in self._columns}
            ),
        )
        yield from reader

    def _check_schema(self) -> None:
        import pyarrow as pa

        with _damage(self._path), _parquet(self._path) as file:
            schema = file.schema_arrow
        for name in self._columns:
            if schema.names.count(name) != 1:
                raise BundleError(
                    f"{self._path} has the columns {', '.join(schema.names)}", expected=f"a column {name!r}, once"
                )
            kind = schema.field(name).type
            if name != SPLIT and not pa.types.is_integer(kind):
                raise BundleError(f"{self._path}: `{name}` is of type {kind}", expected="integers")

    def _decoded(self, batch: Any, first: int) -> RawPairs:
        import pyarrow as pa
        from pyarrow import compute

        if self._split is not None:
            batch = batch.filter(compute.equal(batch.column(SPLIT).cast(pa.string()), self._split))
        found = []
        for name in (USER, ITEM):
            column = batch.column(name)
            if column.null_count:
                where = f"between row {first} and {first + len(batch)}"
                raise BundleError(f"{self._path}: `{name}` has a null {where}", expected="an integer in every row")
            found.append(column.cast(pa.int64()).to_numpy(zero_copy_only=False))
        return found[0], found[1]

    def _read_whole(self) -> PairArrays:
        columns = read_columns(self._path, self._columns)
        users, items = columns.integers(USER), columns.integers(ITEM)
        if self._split is not None:
            kept = np.array([name == self._split for name in columns.objects(SPLIT)], bool)
            users, items = users[kept], items[kept]
        return PairArrays(users, items, self.name)


def _parquet(path: Path) -> Any:
    from pyarrow import parquet

    return parquet.ParquetFile(path)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises into an error that names the file."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise HardwareError(
            "reading pairs needs pyarrow, which is not installed", fix="Run pip install 'fllm-export[build]'"
        ) from error
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        damaged = BundleError(f"{path} cannot be read ({error})", expected=f"integers {USER} and {ITEM} in every row")
        raise limit_error(error, path) or damaged from error
