"""The user rows of a checkpoint: one float32 vector a user, read from disk a slice at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.checkpoint.tensors import FloatArray, IdArray, StoredTensor, open_tensors
from fllm_export.errors import BundleError, UsageError
from fllm_export.files import publish
from fllm_export.progress import Progress, silent

USER_FILES = "users-*.safetensors"
ROWS, BIAS, IDS = "user_embeddings", "bias", "ids"

_NUMBERED = re.compile(r"users-(\d+)-of-(\d+)\.safetensors")
_BYTES_PER_FILE = 1 << 30
_ROWS_AT_ONCE = 65_536


class RowSource(Protocol):
    """Consecutive user rows that can be read by slices."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        ...

    @property
    def dim(self) -> int:
        """Numbers in a row."""
        ...

    def read(self, first: int, count: int) -> FloatArray:
        """Return ``count`` finite rows from row ``first``, float32 [count, dim]."""
        ...


@dataclass(frozen=True)
class StoredRows:
    """Rows ``first`` to ``first + rows - 1`` of a tensor on disk."""

    tensor: StoredTensor
    first: int
    rows: int

    @property
    def dim(self) -> int:
        """Numbers in a row."""
        return self.tensor.shape[1]

    def read(self, first: int, count: int) -> FloatArray:
        """Return ``count`` rows from row ``first``, float32 [count, dim].

        Raises:
            BundleError: a NaN or infinite number, or a file that has become shorter.
        """
        return self.tensor.read(self.first + first, count)


@dataclass(frozen=True)
class ArrayRows:
    """The rows of an array [rows, dim] in memory (or mapped into it); ``source`` names it in messages."""

    array: npt.NDArray[np.generic]
    source: str

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.array.shape[0])

    @property
    def dim(self) -> int:
        """Numbers in a row."""
        return int(self.array.shape[1])

    def read(self, first: int, count: int) -> FloatArray:
        """Return ``count`` rows from row ``first``, float32 [count, dim].

        Raises:
            BundleError: a NaN or infinite number.
        """
        with np.errstate(over="ignore"):
            values = self.array[first : first + count].astype(np.float32)
        bad = ~np.isfinite(values)
        if bad.any():
            row = first + int(np.argwhere(bad)[0][0])
            raise BundleError(
                f"{self.source} has a NaN or infinite number in row {row}", expected="finite numbers only"
            )
        return values


class UserRows:
    """The rows e_u, with the optional user ids and biases b_u of the score s_u = e_u . z + b_u.

    Args:
        sources: where the rows lie, in row order; all of one dimension.
        ids: int64 [rows], unique and not negative; None when user number i has the id i.
        bias: float32 [rows], or None.
        source: the file or argument that the ids and biases came from, named in messages.

    Raises:
        BundleError: the parts do not fit together.
    """

    def __init__(
        self,
        sources: Sequence[RowSource],
        *,
        ids: IdArray | None = None,
        bias: FloatArray | None = None,
        source: str = "the user rows",
    ) -> None:
        self._sources = tuple(sources)
        self.dim = self._sources[0].dim
        self.rows = sum(part.rows for part in self._sources)
        self.ids = ids
        self.bias = bias
        for name, values in ((IDS, ids), (BIAS, bias)):
            if values is not None and values.shape != (self.rows,):
                raise BundleError(
                    f"{source}: {name!r} has the shape {list(values.shape)}",
                    expected=f"[{self.rows}], one for each row of {ROWS!r}",
                )
        if bias is not None and not np.isfinite(bias).all():
            row = int(np.argmin(np.isfinite(bias)))
            raise BundleError(
                f"{source}: {BIAS!r} has a NaN or infinite number in row {row}", expected="finite numbers only"
            )
        if ids is not None:
            _check_ids(ids, source)

    @classmethod
    def from_array(
        cls, rows: npt.ArrayLike, ids: npt.ArrayLike | None = None, bias: npt.ArrayLike | None = None
    ) -> UserRows:
        """Return user rows that lie in memory.

        Args:
            rows: [N, d], any float type; kept as it is and turned into float32 a chunk at a time.
            ids: int64 [N], or None for 0 to N - 1.
            bias: float32 [N], or None.

        Raises:
            UsageError: the array does not have two dimensions or is empty, the ids are not one integer per row, each
                of them once, or the biases are not one number per row.
            BundleError: a bias is not finite.
        """
        array = arguments.array(rows, "rows")
        if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
            raise UsageError(
                f"the user rows are an array of {array.dtype} with the shape {list(array.shape)}",
                expected="a float array [users, dim] that is not empty",
            )
        biases = None if bias is None else arguments.array(bias, "bias")
        if biases is not None and (biases.dtype.kind not in "fiu" or biases.shape != array.shape[:1]):
            found = f"bias is an array of {biases.dtype} with the shape {list(biases.shape)}"
            raise UsageError(found, expected=f"numbers [{len(array)}], one per row")
        return cls(
            [ArrayRows(array, "the array of user rows")],
            ids=None if ids is None else arguments.unique_ids(ids, "ids", len(array)),
            bias=None if biases is None else biases.astype(np.float32),
        )

    @classmethod
    def open(cls, directory: Path) -> UserRows:
        """Open the files ``users-*.safetensors`` of a directory, in name order; rows stay on disk.

        Raises:
            BundleError: a file or tensor is missing, damaged, or of the wrong shape or dtype.
        """
        paths = numbered_files(directory)
        files = [open_tensors(path) for path in paths]
        parts: list[StoredRows] = []
        for path, tensors in zip(paths, files, strict=True):
            _check_names(path, tensors, like=files[0])
            tensors[ROWS].expect((None, parts[0].dim if parts else None))
            parts.append(StoredRows(tensors[ROWS], 0, tensors[ROWS].shape[0]))
        return cls(parts, ids=_read_ids(files), bias=_read_bias(files), source=str(directory / USER_FILES))

    def read(self, first: int, count: int) -> FloatArray:
        """Return rows ``first`` to ``first + count - 1`` (fewer at the end), float32 [n, d].

        Raises:
            BundleError: a NaN or infinite number, naming file, tensor and row.
        """
        pieces = []
        start = 0
        for part in self._sources:
            low, high = max(first, start), min(first + count, start + part.rows)
            if low < high:
                pieces.append(part.read(low - start, high - low))
            start += part.rows
        if not pieces:
            return np.empty((0, self.dim), np.float32)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def chunks(self, rows_per_chunk: int = _ROWS_AT_ONCE) -> Iterator[FloatArray]:
        """Yield all rows in order, float32 [n, d]; every chunk but the last has ``rows_per_chunk`` rows.

        Raises:
            BundleError: a NaN or infinite number, naming file, tensor and row.
        """
        for first in range(0, self.rows, rows_per_chunk):
            yield self.read(first, rows_per_chunk)

    def labelled_chunks(self) -> Iterator[tuple[IdArray, FloatArray, FloatArray | None]]:
        """Yield user ids int64 [n], rows float32 [n, d] and biases float32 [n] (or None) in row order.

        Raises:
            BundleError: a NaN or infinite number, naming file, tensor and row.
        """
        first = 0
        for rows in self.chunks():
            window = slice(first, first + len(rows))
            ids = np.arange(window.start, window.stop) if self.ids is None else self.ids[window]
            yield ids, rows, None if self.bias is None else self.bias[window]
            first = window.stop

    def sample(self, most: int) -> tuple[IdArray, FloatArray]:
        """Return the numbers, int64 [n], and the rows, float32 [n, d], of at most ``most`` evenly spaced users."""
        if self.rows <= most:
            return np.arange(self.rows), self.read(0, self.rows)
        chosen = np.linspace(0, self.rows - 1, most).astype(np.int64)
        return chosen, np.concatenate([self.read(int(row), 1) for row in chosen])

    def write(self, directory: Path, progress: Progress = silent) -> None:
        """Write ``users-00001-of-0000N.safetensors``, float32, 1 GiB each at most, a chunk of rows at a time."""
        rows_per_file = max(1, _BYTES_PER_FILE // (4 * self.dim))
        total = -(-self.rows // rows_per_file)
        for number in range(total):
            first = number * rows_per_file
            last = min(first + rows_per_file, self.rows)
            with publish(directory / f"users-{number + 1:05d}-of-{total:05d}.safetensors") as file:
                self._write_rows(file, first, last)
            progress("users", last, self.rows)

    def _write_rows(self, file: BinaryIO, first: int, last: int) -> None:
        # The safetensors package wants whole tensors in memory; the format is a length, a JSON header and the bytes.
        # int64 comes first, so that every tensor is aligned.
        whole: dict[str, IdArray | FloatArray] = {}
        if self.ids is not None:
            whole[IDS] = self.ids[first:last]
        if self.bias is not None:
            whole[BIAS] = self.bias[first:last]
        file.write(_header(whole, rows=last - first, dim=self.dim))
        for values in whole.values():
            file.write(values.tobytes())
        for start in range(first, last, _ROWS_AT_ONCE):
            file.write(self.read(start, min(_ROWS_AT_ONCE, last - start)).tobytes())


def _header(whole: Mapping[str, IdArray | FloatArray], *, rows: int, dim: int) -> bytes:
    entries = {name: ("I64" if name == IDS else "F32", [rows], values.nbytes) for name, values in whole.items()}
    entries[ROWS] = ("F32", [rows, dim], 4 * rows * dim)
    fields, offset = {}, 0
    for name, (dtype, shape, size) in entries.items():
        fields[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(fields).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def numbered_files(directory: Path) -> list[Path]:
    """Return the files ``users-*.safetensors`` of a checkpoint in order, after checking that none is missing.

    Raises:
        BundleError: there is none, a name does not carry a number and a total, or a number is missing.
    """
    paths = sorted(directory.glob(USER_FILES))
    if not paths:
        raise BundleError(f"{directory} has no file {USER_FILES}", expected="users-00001-of-00001.safetensors or more")
    numbers = {}
    for path in paths:
        match = _NUMBERED.fullmatch(path.name)
        if match is None:
            raise BundleError(f"{path} has an unknown name", expected="a name such as users-00001-of-00003.safetensors")
        numbers[path] = (int(match[1]), int(match[2]))
    total = numbers[paths[0]][1]
    for path, (_, claimed) in numbers.items():
        if claimed != total:
            raise BundleError(
                f"{directory} holds {paths[0].name} and {path.name}",
                expected="one total in all names",
                fix="Remove the files of the older set",
            )
    held = sorted(number for number, _ in numbers.values())
    if held != list(range(1, total + 1)):
        raise BundleError(
            f"{directory} holds the user files numbered {_short(held)}",
            expected=f"the {total} files numbered 1 to {total}",
            fix="Copy the checkpoint again, with all its files",
        )
    return sorted(paths, key=lambda path: numbers[path])


def _short(numbers: Sequence[int]) -> str:
    words = [str(number) for number in numbers]
    return ", ".join(words if len(words) <= 8 else [*words[:8], "..."])


def _check_names(path: Path, tensors: Mapping[str, StoredTensor], like: Mapping[str, StoredTensor]) -> None:
    if ROWS not in tensors:
        held = ", ".join(sorted(tensors)) or "no tensor"
        raise BundleError(f"{path} lacks the tensor {ROWS!r} and holds {held}", expected=f"{ROWS!r} [users, dim]")
    unknown = sorted(set(tensors) - {ROWS, BIAS, IDS})
    if unknown:
        raise BundleError(f"{path} has the unknown tensor {unknown[0]!r}", expected=f"{ROWS!r}, {BIAS!r} and {IDS!r}")
    if set(tensors) != set(like):
        odd = sorted(set(tensors) ^ set(like))[0]
        raise BundleError(
            f"{path}: the tensor {odd!r} is in some user files and not in others", expected="it in all files or in none"
        )
    tensors[ROWS].expect((None, None))
    for name in (BIAS, IDS):
        if name in tensors:
            tensors[name].expect((tensors[ROWS].shape[0],), ids=name == IDS)


def _read_bias(files: Sequence[Mapping[str, StoredTensor]]) -> FloatArray | None:
    return np.concatenate([tensors[BIAS].read() for tensors in files]) if BIAS in files[0] else None


def _read_ids(files: Sequence[Mapping[str, StoredTensor]]) -> IdArray | None:
    return np.concatenate([tensors[IDS].read_ids() for tensors in files]) if IDS in files[0] else None


def _check_ids(ids: IdArray, source: str) -> None:
    if (ids < 0).any():
        row = int(np.argmax(ids < 0))
        raise BundleError(f"{source}: {IDS!r} has {ids[row]} in row {row}", expected="ids of 0 or more")
    order = np.argsort(ids, kind="stable")
    same = ids[order[1:]] == ids[order[:-1]]
    if same.any():
        at = int(np.argmax(same))
        raise BundleError(
            f"{source}: {IDS!r} has {ids[order[at]]} in row {order[at]} and again in row {order[at + 1]}",
            expected="each user id once",
        )
