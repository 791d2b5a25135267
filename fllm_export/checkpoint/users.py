"""The user rows of a checkpoint: one float32 vector a user, read from disk a slice at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.checkpoint.row_sources import ArrayRows, RowSource
from fllm_export.checkpoint.tensors import FloatArray, IdArray
from fllm_export.checkpoint.user_files import BIAS, IDS, ROWS, USER_FILES, open_user_files, write_user_files
from fllm_export.errors import BundleError, UsageError
from fllm_export.progress import Progress, silent

_ROWS_AT_ONCE = 65_536
_BYTES_AT_ONCE = 64 << 20


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
        return cls([ArrayRows(array, "the array of user rows")]).with_labels(ids, bias)

    @classmethod
    def open(cls, directory: Path) -> UserRows:
        """Open the files ``users-*.safetensors`` of a directory, in name order; rows stay on disk.

        Raises:
            BundleError: a file or tensor is missing, damaged, or of the wrong shape or dtype.
        """
        stored = open_user_files(directory)
        return cls(stored.parts, ids=stored.ids, bias=stored.bias, source=str(directory / USER_FILES))

    def with_labels(self, ids: npt.ArrayLike | None, bias: npt.ArrayLike | None) -> UserRows:
        """Return the same rows with other ids and biases; what is None stays as it is.

        Raises:
            UsageError: the ids are not one integer per row, each of them once, or the biases not one number per row.
            BundleError: a bias is not finite.
        """
        biases = None if bias is None else arguments.array(bias, "bias")
        if biases is not None and (biases.dtype.kind not in "fiu" or biases.shape != (self.rows,)):
            found = f"bias is an array of {biases.dtype} with the shape {list(biases.shape)}"
            raise UsageError(found, expected=f"numbers [{self.rows}], one per row")
        return UserRows(
            self._sources,
            ids=self.ids if ids is None else arguments.unique_ids(ids, "ids", self.rows),
            bias=self.bias if biases is None else biases.astype(np.float32),
        )

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

    def chunks(self, rows_per_chunk: int | None = None) -> Iterator[FloatArray]:
        """Yield all rows in order, float32 [n, d]; every chunk but the last has ``rows_per_chunk`` rows.

        Without a number a chunk has at most 65,536 rows and 64 MiB.

        Raises:
            BundleError: a NaN or infinite number, naming file, tensor and row.
        """
        step = self._step if rows_per_chunk is None else rows_per_chunk
        for first in range(0, self.rows, step):
            yield self.read(first, step)

    def labelled_chunks(self) -> Iterator[tuple[IdArray, FloatArray, FloatArray | None]]:
        """Yield user ids int64 [n], rows float32 [n, d] and biases float32 [n] (or None) in row order.

        Raises:
            BundleError: a NaN or infinite number, naming file, tensor and row.
        """
        for first in range(0, self.rows, self._step):
            yield self._labelled(first)

    def spread_chunks(self, most: int) -> Iterator[tuple[IdArray, FloatArray, FloatArray | None]]:
        """Yield chunks as :meth:`labelled_chunks` does, evenly spread over the table, of about ``most`` rows in all.

        Raises:
            BundleError: a NaN or infinite number, naming file, tensor and row.
        """
        starts = np.arange(0, self.rows, self._step)
        count = max(1, min(len(starts), most // self._step))
        for place in np.linspace(0, len(starts) - 1, count).astype(np.int64):
            yield self._labelled(int(starts[place]))

    def sample(self, most: int) -> tuple[IdArray, FloatArray]:
        """Return the numbers, int64 [n], and the rows, float32 [n, d], of at most ``most`` evenly spaced users."""
        if self.rows <= most:
            return np.arange(self.rows), self.read(0, self.rows)
        chosen = np.linspace(0, self.rows - 1, most).astype(np.int64)
        return chosen, np.concatenate([self.read(int(row), 1) for row in chosen])

    @property
    def _step(self) -> int:
        return max(1, min(_ROWS_AT_ONCE, _BYTES_AT_ONCE // (4 * self.dim)))

    def _labelled(self, first: int) -> tuple[IdArray, FloatArray, FloatArray | None]:
        rows = self.read(first, self._step)
        window = slice(first, first + len(rows))
        ids = np.arange(window.start, window.stop) if self.ids is None else self.ids[window]
        return ids, rows, None if self.bias is None else self.bias[window]

    def write(self, directory: Path, progress: Progress = silent) -> None:
        """Write ``users-00001-of-0000N.safetensors``, float32, 1 GiB each at most, a chunk of rows at a time."""
        write_user_files(directory, self, self.ids, self.bias, progress)


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
