"""The files ``users-*.safetensors`` of a checkpoint: their names, their tensors, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fllm_export.checkpoint.row_sources import RowSource, StoredRows
from fllm_export.checkpoint.tensors import FloatArray, IdArray, StoredTensor, open_tensors
from fllm_export.errors import BundleError
from fllm_export.files import publish
from fllm_export.progress import Progress
from fllm_export.safetensors_layout import TensorFacts, lay_out

USER_FILES = "users-*.safetensors"
ROWS, BIAS, IDS = "user_embeddings", "bias", "ids"

_NUMBERED = re.compile(r"users-(\d+)-of-(\d+)\.safetensors")
_BYTES_PER_FILE = 1 << 30
_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class StoredUsers:
    """What the user files of a directory hold; rows stay on disk.

    Attributes:
        parts: the rows of each file, in order.
        ids: int64 [rows], or None.
        bias: float32 [rows], or None.
    """

    parts: list[StoredRows]
    ids: IdArray | None
    bias: FloatArray | None


def open_user_files(directory: Path) -> StoredUsers:
    """Open the files of a directory in the order of their numbers.

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
    return StoredUsers(parts, _read_ids(files), _read_bias(files))


def rows_per_file(dim: int) -> int:
    """Return how many float32 rows of ``dim`` numbers a file holds at most: 1 GiB of them."""
    return max(1, _BYTES_PER_FILE // (4 * dim))


def user_file(number: int, total: int) -> str:
    """Return the name of file ``number``, counted from 0, of ``total``."""
    return f"users-{number + 1:05d}-of-{total:05d}.safetensors"


def write_user_files(
    directory: Path, users: RowSource, ids: IdArray | None, bias: FloatArray | None, progress: Progress
) -> None:
    """Write ``users-00001-of-0000N.safetensors``, float32, at most 1 GiB each, a chunk of rows at a time."""
    step = rows_per_file(users.dim)
    total = -(-users.rows // step)
    for number in range(total):
        first = number * step
        last = min(first + step, users.rows)
        # int64 comes first, so that every tensor is aligned.
        whole = {name: values[first:last] for name, values in ((IDS, ids), (BIAS, bias)) if values is not None}
        with publish(directory / user_file(number, total)) as file:
            _write_file(file, users, first, last, whole)
        progress("users", last, users.rows)


def _write_file(
    file: BinaryIO, users: RowSource, first: int, last: int, whole: Mapping[str, IdArray | FloatArray]
) -> None:
    rows = last - first
    facts = {
        name: TensorFacts("I64" if name == IDS else "F32", [rows], values.nbytes) for name, values in whole.items()
    }
    facts[ROWS] = TensorFacts("F32", [rows, users.dim], 4 * rows * users.dim)
    file.write(lay_out(facts).header)
    for values in whole.values():
        file.write(values.tobytes())
    for start in range(first, last, _ROWS_AT_ONCE):
        file.write(users.read(start, min(_ROWS_AT_ONCE, last - start)).tobytes())


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
