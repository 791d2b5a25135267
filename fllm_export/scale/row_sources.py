"""User rows that the tasks of a sharded table read: files of vectors, or the closed form of interactions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fllm_export.checkpoint.users import UserRows
from fllm_export.checkpoint.vector_files import open_vectors
from fllm_export.files import sha256_file
from fllm_export.table.writer import Chunk
from fllm_export.training.user_stream import UserStream

_CHUNK_ROWS = 65_536


@dataclass(frozen=True)
class VectorRows:
    """Rows in files, which every process opens by itself.

    Attributes:
        paths: as :func:`fllm_export.checkpoint.vector_files.open_vectors` takes them.
        ids: likewise.

    Raises:
        FllmError: as opening raises it.
    """

    paths: tuple[Path, ...]
    ids: Path | None = None

    @cached_property
    def _opened(self) -> UserRows:
        return open_vectors(self.paths, self.ids)

    def __reduce__(self) -> tuple[type[VectorRows], tuple[tuple[Path, ...], Path | None]]:
        """Pickle as paths."""
        absolute = tuple(path.absolute() for path in self.paths)
        return VectorRows, (absolute, None if self.ids is None else self.ids.absolute())

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self._opened.rows

    @property
    def dim(self) -> int:
        """Dimension of a row."""
        return self._opened.dim

    @property
    def bias(self) -> bool:
        """Whether each row has a bias."""
        return self._opened.bias is not None

    @cached_property
    def key(self) -> str:
        """A hash of the files."""
        files = [*self.paths, *([] if self.ids is None else [self.ids])]
        return hashlib.sha256(" ".join(map(sha256_file, files)).encode()).hexdigest()

    def chunks(self, first: int, count: int) -> Iterator[Chunk]:
        """Yield rows ``first`` to ``first + count - 1``."""
        opened = self._opened
        for start in range(first, first + count, _CHUNK_ROWS):
            rows = opened.read(start, min(_CHUNK_ROWS, first + count - start))
            inside = slice(start, start + len(rows))
            ids = np.arange(start, start + len(rows)) if opened.ids is None else opened.ids[inside]
            yield rows, ids, None if opened.bias is None else opened.bias[inside]


class ClosedFormRows:
    """The closed form's row of every user: no training, and each row by itself.

    What all rows share is computed once, before the tasks: M and the features of the items, hence the contributions
    C_i. A task then adds up the contributions of the items of its own users, so rows do not depend on the division.

    Args:
        stream: of the users of some interactions. It travels to every task, so its parts must be small or in files.
    """

    def __init__(self, stream: UserStream) -> None:
        self._stream = stream
        self.rows, self.dim, self.bias = stream.users, stream.dim, stream.bias is not None
        self.key = stream.key

    def chunks(self, first: int, count: int) -> Iterator[Chunk]:
        """Yield rows ``first`` to ``first + count - 1``, users in ascending order."""
        at, last = first, first + count
        for ids, rows in self._stream.chunks(first):
            taken = min(len(ids), last - at)
            bias = None if self._stream.bias is None else self._stream.bias[at : at + taken]
            yield rows[:taken], ids[:taken], bias
            at += taken
            if at == last:
                return
