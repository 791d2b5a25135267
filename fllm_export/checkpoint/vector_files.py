"""Vectors and their ids from files that other tools write: ``.npy``, ``.parquet``, ``.safetensors`` and ``.fbin``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tokenize import TokenError

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.checkpoint.parquet_rows import ParquetRows
from fllm_export.checkpoint.row_sources import ArrayRows, RowSource, StoredRows
from fllm_export.checkpoint.tensors import FloatArray, IdArray, StoredTensor, open_tensors
from fllm_export.checkpoint.user_files import BIAS, IDS, ROWS
from fllm_export.checkpoint.users import UserRows
from fllm_export.errors import BundleError, UsageError
from fllm_export.text_file import read_columns

ID_COLUMN = "user_id"

_FBIN_HEADER_BYTES = 8
_NOT_NPY = (ValueError, TypeError, OverflowError, EOFError, SyntaxError, TokenError, RecursionError)
"""What NumPy raises for headers that are none."""


@dataclass(frozen=True)
class VectorFile:
    """One file of vectors.

    Attributes:
        path: the file.
        rows: its vectors, read by slices.
        ids: reads int64 [rows]; None where the file holds none.
        bias: reads float32 [rows]; None where the file holds none.
    """

    path: Path
    rows: RowSource
    ids: Callable[[], IdArray] | None = None
    bias: Callable[[], FloatArray] | None = None


def open_vectors(paths: Sequence[Path], ids: Path | None = None) -> UserRows:
    """Open files of vectors as user rows, one file after the other; vectors stay on disk.

    Args:
        paths: ``.npy`` (an array [n, d] of floats), ``.parquet`` (one column of lists of d floats, and maybe a column
            ``user_id``), ``.safetensors`` (a tensor [n, d], and maybe ``ids`` and ``bias``) or ``.fbin`` (big-ann:
            n and d as uint32, then float32 [n, d]).
        ids: ``.npy`` (integers [n]), or a text file or Parquet file with a column ``user_id``. Without it the ids are
            those in the files, or else 0 to n - 1.

    Raises:
        UsageError: a file is missing or of another kind, or ids are given twice or are no integers.
        BundleError: a file is damaged, the files differ in dimension, or an id is negative or occurs twice.
        HardwareError: Parquet is to be read and pyarrow is not installed.
    """
    if not paths:
        raise UsageError("no file of vectors was given", expected="at least one")
    files = [_open(path) for path in paths]
    for file in files:
        if file.rows.dim != files[0].rows.dim:
            raise BundleError(
                f"{file.path} holds vectors of dimension {file.rows.dim}",
                expected=f"{files[0].rows.dim}, as in {files[0].path}",
            )
    bias = [part() for part in _in_all(files, "bias")]
    found = [part() for part in _in_all(files, "ids")]
    if found and ids is not None:
        raise UsageError(f"{files[0].path} holds ids, and {ids} was given", expected="ids in one place")
    rows = sum(file.rows.rows for file in files)
    return UserRows(
        [file.rows for file in files],
        ids=read_ids(ids, rows) if ids is not None else np.concatenate(found) if found else None,
        bias=np.concatenate(bias) if bias else None,
        source=str(ids or files[0].path),
    )


def user_rows(
    users: npt.ArrayLike | str | Path, ids: npt.ArrayLike | str | Path | None, bias: npt.ArrayLike | None
) -> UserRows:
    """Return user rows from an array or from a file of vectors, which stays on disk.

    Args:
        users: floats [N, d], or a file as :func:`open_vectors` reads it.
        ids: integers [N], or a file of them; None for those in the file of vectors, or else 0 to N - 1.
        bias: numbers [N]; None for those in the file of vectors, or else none.

    Raises:
        UsageError: an argument is of another type or shape, or what is given is in the file already.
        BundleError: as :func:`open_vectors`.
        HardwareError: as :func:`open_vectors`.
    """
    number_file = Path(ids) if isinstance(ids, str | Path) else None
    numbers = None if isinstance(ids, str | Path) else ids
    if not isinstance(users, str | Path):
        rows = UserRows.from_array(users)
        return rows.with_labels(numbers if number_file is None else read_ids(number_file, rows.rows), bias)
    rows = open_vectors([Path(users)], number_file)
    for name, given, held in (("ids", numbers, rows.ids), ("bias", bias, rows.bias)):
        if given is not None and held is not None:
            raise UsageError(f"{str(users)!r} holds {name}, and {name} was given", expected=f"{name} in one place")
    return rows.with_labels(numbers, bias)


def _in_all(files: Sequence[VectorFile], name: str) -> list[Callable[[], npt.NDArray[np.generic]]]:
    """Return the readers of what all files hold or none."""
    readers = [getattr(file, name) for file in files]
    held = [reader for reader in readers if reader is not None]
    if held and len(held) < len(files):
        raise BundleError(
            f"{files[readers.index(None)].path} holds no {name}, and other files do",
            expected="them in all files or in none",
        )
    return held


def _open(path: Path) -> VectorFile:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path} ends in {path.suffix!r}", expected="one of " + ", ".join(_READERS))
    if not path.is_file():
        raise UsageError(f"{path} is {'a directory' if path.is_dir() else 'missing'}", expected="a file of vectors")
    file = reader(path)
    if file.rows.rows < 1 or file.rows.dim < 1:
        raise BundleError(f"{path} has the shape [{file.rows.rows}, {file.rows.dim}]", expected="at least one vector")
    return file


def _npy(path: Path) -> VectorFile:
    array = _mapped(path)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise BundleError(
            f"{path} is an array of {array.dtype} with the shape {list(array.shape)}",
            expected="float16, float32 or float64 [n, d]",
            fix="Save a single vector as array[None], of the shape [1, d]" if array.ndim == 1 else None,
        )
    return VectorFile(path, ArrayRows(array, str(path)))


def _mapped(path: Path) -> npt.NDArray[np.generic]:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except _NOT_NPY as error:
        raise BundleError(f"{path} is not a NumPy array of numbers ({error})", fix="Write it with numpy.save") from None


def _fbin(path: Path) -> VectorFile:
    size = path.stat().st_size
    header = np.fromfile(path, "<u4", 2)
    rows, dim = map(int, header) if len(header) == 2 else (0, 0)
    expected = _FBIN_HEADER_BYTES + 4 * rows * dim
    if rows == 0 or dim == 0 or size != expected:
        raise BundleError(
            f"{path} has {size} bytes and claims {rows} vectors of dimension {dim}",
            expected=f"{expected} bytes: two uint32, then float32" if rows and dim else "at least one vector",
            fix="Copy the file again",
        )
    array = np.memmap(path, "<f4", "r", _FBIN_HEADER_BYTES, (rows, dim))
    return VectorFile(path, ArrayRows(array, str(path)))


def _safetensors(path: Path) -> VectorFile:
    tensors = open_tensors(path)
    matrices = [name for name, tensor in tensors.items() if len(tensor.shape) == 2]
    name = ROWS if ROWS in tensors else matrices[0] if len(matrices) == 1 else None
    if name is None:
        raise BundleError(
            f"{path} holds {len(matrices)} matrices: {', '.join(sorted(tensors)) or 'no tensor'}",
            expected=f"one, or one of the name {ROWS!r}",
        )
    rows = tensors[name]
    rows.expect((None, None))

    def beside(other: str) -> StoredTensor | None:
        found = tensors.get(other)
        if found is not None:
            found.expect((rows.shape[0],), ids=other == IDS)
        return found

    ids, bias = beside(IDS), beside(BIAS)
    return VectorFile(
        path,
        StoredRows(rows, 0, rows.shape[0]),
        None if ids is None else ids.read_ids,
        None if bias is None else bias.read,
    )


def _parquet(path: Path) -> VectorFile:
    rows = ParquetRows(path)
    has_ids = ID_COLUMN in rows.columns
    return VectorFile(path, rows, partial(_column, path) if has_ids else None)


def read_ids(path: Path, rows: int | None = None) -> IdArray:
    """Return the ids in a file of them: ``.npy``, or text or Parquet with a column ``user_id``.

    Args:
        path: the file.
        rows: how many there must be; any number when not given.

    Raises:
        UsageError: the file is missing or of another kind, or they are not integers or not as many.
        BundleError: the file is damaged.
        HardwareError: Parquet is to be read and pyarrow is not installed.
    """
    if path.suffix.lower() != ".npy":
        return arguments.ids(_column(path), str(path), rows)
    if not path.is_file():
        raise UsageError(f"{path} is missing", expected="a file of ids")
    return arguments.ids(_mapped(path), str(path), rows)


def _column(path: Path) -> IdArray:
    return read_columns(path, [ID_COLUMN]).integers(ID_COLUMN)


_READERS: dict[str, Callable[[Path], VectorFile]] = {
    ".npy": _npy,
    ".parquet": _parquet,
    ".safetensors": _safetensors,
    ".fbin": _fbin,
}
