"""User rows that are trained on disk: float32, mapped into memory, with 12 bytes per user beside the row.

The optimiser is Adagrad (Duchi, Hazan and Singer, JMLR 12, 2011) with one accumulator per row instead of one per
number, as large embedding tables use it:

    a_u <- a_u + mean over the d numbers of g_u^2
    e_u <- e_u - rate g_u / sqrt(a_u)

The bias of a user has its own accumulator. A user costs 4 d + 12 bytes: the row, its accumulator, the bias and its
accumulator. Adam needs 12 (d + 1), and keeps what is not on disk in memory.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from fllm_export import arguments
from fllm_export.errors import BundleError, UsageError
from fllm_export.files import publish, publish_json
from fllm_export.strict_json import read_object
from fllm_export.system_errors import check_place
from fllm_export.training.user_sums import FloatArray, Positions

_STATE = "store.json"
_DENSE = "dense.safetensors"
_ROWS = "rows"
_NUMBERS = ("row_sums", "bias", "bias_sums")
_CHUNK_ROWS = 65_536
_LEAST_SUM = 1e-30
"""An accumulator without any gradient: its row does not move, and nothing is divided by zero."""


class UserStore:
    """The rows of all users, in a directory that is opened by one process at a time.

    Only whole epochs survive. :meth:`begin` copies the files of the last finished epoch, :meth:`step` changes the
    copy, and :meth:`commit` makes it the finished one in one rename, together with the weights that are not per user.
    A process that dies in between loses its epoch and nothing else. While an epoch runs, the directory therefore
    takes twice the bytes of the rows.

    Attributes:
        directory: where the files are.
        users: number of users U.
        dim: dimension d of a row.
        epochs: finished epochs.

    Raises:
        BundleError: a file of the store is missing or damaged.
    """

    def __init__(self, directory: Path, users: int, dim: int, epochs: int) -> None:
        self.directory, self.users, self.dim, self.epochs = directory, users, dim, epochs
        self._map(self._folder(epochs), writable=False)

    @classmethod
    def create(cls, directory: str | Path, chunks: Iterable[FloatArray], users: int, dim: int) -> UserStore:
        """Write the initial rows; biases and accumulators begin at 0.

        Args:
            directory: new or empty.
            chunks: the rows in order, float32 [n, d] each.
            users: number of rows in all.
            dim: d.

        Raises:
            UsageError: the directory holds something, or there are not so many rows of this dimension.
        """
        place = arguments.path(directory, "directory")
        check_place(place, "directory")
        if place.is_dir() and any(place.iterdir()):
            fix = "Choose another directory, or delete what is in it"
            raise UsageError(f"{place} is not empty", expected="a new directory", fix=fix)
        folder = _folder(place, 0)
        folder.mkdir(parents=True)
        done = 0
        with (folder / _ROWS).open("wb") as file:
            for chunk in chunks:
                if chunk.ndim != 2 or chunk.shape[1] != dim:
                    raise UsageError(f"the user rows have the shape {list(chunk.shape)}", expected=f"[n, {dim}]")
                file.write(np.ascontiguousarray(chunk, np.float32).data)
                done += len(chunk)
            file.flush()
            os.fsync(file.fileno())
        if done != users:
            raise UsageError(f"{done} rows were given", expected=f"{users}")
        for name in _NUMBERS:
            with (folder / name).open("wb") as file:
                file.truncate(4 * users)
        _write_dense(folder, {})
        _write_state(place, users, dim, 0)
        return cls(place, users, dim, 0)

    @classmethod
    def open(cls, directory: str | Path) -> UserStore:
        """Open the last finished epoch; what an interrupted one has left is removed.

        Raises:
            BundleError: the directory holds no store, or a file is missing or damaged.
        """
        place = arguments.path(directory, "directory")
        again = f"Delete {place} to start again"
        content = read_object(place / _STATE, fix=again)
        try:
            users, dim, epochs = (int(content[name]) for name in ("users", "dim", "epochs"))
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{place / _STATE} is damaged: {error}", expected="a user store", fix=again) from error
        _remove_others(place, epochs)
        return cls(place, users, dim, epochs)

    def gather(self, users: Positions) -> tuple[Tensor, Tensor]:
        """Return copies of some rows, float32 [n, d], and biases, float32 [n].

        Args:
            users: positions, int64 [n]; ascending ones are read fastest.
        """
        at = torch.from_numpy(users)
        return self._rows.index_select(0, at), self._numbers["bias"].index_select(0, at)

    def step(self, users: Positions, rows: Tensor, bias: Tensor, rates: tuple[float, float]) -> None:
        """Move some rows and biases against their gradients.

        Args:
            users: positions, int64 [n], each once.
            rows: gradients, float32 [n, d].
            bias: gradients, float32 [n].
            rates: learning rates of rows and biases. The first step of a row has a root mean square of its rate.

        Raises:
            UsageError: no epoch was begun.
        """
        if not self._writable:
            raise UsageError("the store is not in an epoch", expected="begin() before step()")
        at = torch.from_numpy(users)
        for name, gradient, rate in (("row_sums", rows, rates[0]), ("bias_sums", bias[:, None], rates[1])):
            sums = self._numbers[name]
            found = sums.index_select(0, at) + gradient.square().mean(1)
            sums.index_copy_(0, at, found)
            gradient = gradient * (-rate * found.clamp(min=_LEAST_SUM).rsqrt())[:, None]
            target = self._rows if name == "row_sums" else self._numbers["bias"][:, None]
            target.index_add_(0, at, gradient)

    def chunks(self) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Yield all rows in order, float32 [n, d], with their biases, float32 [n]; in an epoch, as they are now."""
        for first in range(0, self.users, _CHUNK_ROWS):
            part = slice(first, first + _CHUNK_ROWS)
            yield self._rows[part].numpy(), self._numbers["bias"][part].numpy()

    def dense(self) -> dict[str, Tensor]:
        """Return the weights that the last finished epoch committed beside the rows; none before the first.

        Raises:
            BundleError: their file is damaged.
        """
        path = self._folder(self.epochs) / _DENSE
        try:
            found: dict[str, Tensor] = load_file(path)
        except (SafetensorError, FileNotFoundError) as error:
            raise BundleError(f"{path} cannot be read: {error}", expected="tensors") from error
        return found

    def begin(self) -> None:
        """Begin the next epoch on a copy of the files."""
        source, target = self._folder(self.epochs), self._folder(self.epochs + 1)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for name in (_ROWS, *_NUMBERS):
            shutil.copyfile(source / name, target / name)
        self._map(target, writable=True)

    def commit(self, dense: Mapping[str, Tensor]) -> None:
        """Finish the epoch: rows and weights reach the disk, then the store names them, then the old files go.

        Args:
            dense: weights and optimiser state that are not per user; :meth:`dense` returns them.
        """
        folder = self._folder(self.epochs + 1)
        for mapped in self._files.values():
            mapped.flush()
        _write_dense(folder, dense)
        _write_state(self.directory, self.users, self.dim, self.epochs + 1)
        self.epochs += 1
        self._map(folder, writable=False)
        _remove_others(self.directory, self.epochs)

    def _folder(self, epoch: int) -> Path:
        return _folder(self.directory, epoch)

    def _map(self, folder: Path, *, writable: bool) -> None:
        shapes = {_ROWS: (self.users, self.dim), **dict.fromkeys(_NUMBERS, (self.users,))}
        self._files: dict[str, np.memmap[tuple[int, ...], np.dtype[np.float32]]] = {}
        for name, shape in shapes.items():
            path = folder / name
            size = path.stat().st_size if path.is_file() else 0
            if size != 4 * int(np.prod(shape)):
                raise BundleError(
                    f"{path} has {size} bytes",
                    expected=f"{4 * int(np.prod(shape))}",
                    fix=f"Delete {self.directory} to start again",
                )
            self._files[name] = np.memmap(path, np.float32, "r+", shape=shape)
        # Rows are read at random: the kernel must not read what stands beside them.
        self._files[_ROWS]._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
        self._writable = writable
        tensors = {name: torch.from_numpy(_plain(mapped)) for name, mapped in self._files.items()}
        self._rows = tensors.pop(_ROWS)
        self._numbers = tensors


def _plain(mapped: npt.NDArray[np.float32]) -> FloatArray:
    return mapped.view(np.ndarray)


def _folder(directory: Path, epoch: int) -> Path:
    return directory / f"epoch-{epoch:04d}"


def _remove_others(directory: Path, epoch: int) -> None:
    for folder in directory.glob("epoch-*"):
        if folder != _folder(directory, epoch):
            shutil.rmtree(folder)


def _write_dense(folder: Path, dense: Mapping[str, Tensor]) -> None:
    with publish(folder / _DENSE) as file:
        file.write(save({name: value.detach().contiguous() for name, value in dense.items()}))


def _write_state(directory: Path, users: int, dim: int, epochs: int) -> None:
    publish_json(directory / _STATE, {"users": users, "dim": dim, "epochs": epochs})
