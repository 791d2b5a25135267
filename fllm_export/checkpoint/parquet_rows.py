"""Vectors in a column of a Parquet file, read a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fllm_export.checkpoint.tensors import FloatArray
from fllm_export.errors import BundleError, HardwareError

if TYPE_CHECKING:
    import pyarrow

_BATCH_ROWS = 65_536


class ParquetRows:
    """The vectors in the one column of lists of floats. Reading goes forward; going back begins at the file's start.

    Attributes:
        path: the file.
        rows: number of vectors.
        dim: dimension of a vector.
        columns: names of all columns.

    Raises:
        BundleError: the file is damaged, or does not have one column of lists of floats.
        HardwareError: pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise HardwareError(
                "reading Parquet needs pyarrow, which is not installed", fix="Run pip install pyarrow"
            ) from error
        self.path = path
        with _damage(path):
            file = parquet.ParquetFile(path)
            schema = file.schema_arrow
        self.columns: list[str] = schema.names
        self._column = _vector_column(path, schema)
        self._file: Any = file
        self.rows: int = file.metadata.num_rows
        first = next(self._decoded(), None)
        self.dim = 0 if first is None else first.shape[1]
        self._begin, self._batch, self._batches = self._start()

    def read(self, first: int, count: int) -> FloatArray:
        """Return ``count`` vectors, at least 1, from number ``first``, float32 [count, dim].

        Raises:
            BundleError: a vector is missing, of another dimension, or not finite.
        """
        if first < self._begin:
            self._begin, self._batch, self._batches = self._start()
        pieces = []
        while count > 0:
            while first >= self._begin + len(self._batch):
                self._begin += len(self._batch)
                self._batch = next(self._batches)
            piece = self._batch[first - self._begin : first - self._begin + count]
            pieces.append(piece)
            first, count = first + len(piece), count - len(piece)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _start(self) -> tuple[int, FloatArray, Iterator[FloatArray]]:
        """Return the place before the first batch: rows passed, the batch at hand, and those to come."""
        return 0, np.empty((0, self.dim), np.float32), self._decoded()

    def _decoded(self) -> Iterator[FloatArray]:
        row, dim = 0, None
        with _damage(self.path):
            for batch in self._file.iter_batches(batch_size=_BATCH_ROWS, columns=[self._column]):
                if len(batch):
                    vectors = self._vectors(batch.column(0), row, dim)
                    row, dim = row + len(vectors), vectors.shape[1]
                    yield vectors

    def _vectors(self, lists: pyarrow.Array, row: int, dim: int | None) -> FloatArray:
        lengths = lists.value_lengths().to_numpy(zero_copy_only=False)  # NaN where the list is null
        wanted = lengths[0] if dim is None else dim
        odd = np.flatnonzero(lengths != wanted)
        if len(odd) or not wanted > 0:
            at = int(odd[0]) if len(odd) else 0
            length = lengths[at]
            found = "no vector" if np.isnan(length) else f"{int(length)} numbers"
            raise BundleError(
                f"{self.path}: {self._column!r} has {found} in row {row + at}",
                expected=f"{int(wanted)}" if wanted > 0 else "vectors of one dimension",
            )
        numbers = lists.flatten().to_numpy(zero_copy_only=False)  # NaN where a number is null
        with np.errstate(over="ignore"):
            vectors: FloatArray = numbers.reshape(len(lists), int(wanted)).astype(np.float32)
        bad = ~np.isfinite(vectors).all(1)
        if bad.any():
            raise BundleError(
                f"{self.path}: {self._column!r} has a NaN, infinite or missing number in row {row + int(bad.argmax())}",
                expected="finite numbers only",
            )
        return vectors


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises into an error that names the file."""
    import pyarrow as pa

    try:
        yield
    except MemoryError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise BundleError(f"{path} cannot be read as Parquet ({error})", fix="Copy the file again") from error


def _vector_column(path: Path, schema: pyarrow.Schema) -> str:
    import pyarrow.types as kinds

    def is_vectors(kind: pyarrow.DataType) -> bool:
        is_list = kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)
        return bool(is_list and kinds.is_floating(kind.value_type))

    found = [field.name for field in schema if is_vectors(field.type)]
    if len(found) != 1:
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise BundleError(f"{path} has the columns {columns or 'none'}", expected="one column of lists of floats")
    return str(found[0])
