"""Making the sketch of a table while it is written, shard by shard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.errors import UsageError
from fllm_export.table import sketch
from fllm_export.table.codecs import Codec
from fllm_export.table.options import Choice

Array = npt.NDArray[np.generic]

_AUTO_DIM = 64
_CHUNK_NUMBERS = 1 << 22
_SAMPLE_NUMBERS = 1 << 21
_SAMPLE_ROWS = 16_384


class SketchMaker:
    """Chooses a basis by the first shard's rows and encodes every shard with it.

    The sketch describes rows as the codec stored them, since it is their scores that it bounds.

    Args:
        choice: ``auto`` makes one for int8 tables of at least 64 dimensions that have more than one shard: on smaller
            ones a full pass takes no time worth saving.
        codec: the table's.
        dim: numbers in a row.
        items: item vectors [n, d] like those to come, some hundred of them, by which the basis is chosen too; they
            cannot change an exact answer.

    Raises:
        UsageError: the items are unfit.
    """

    def __init__(self, choice: Choice, codec: Codec, dim: int, items: npt.ArrayLike | None = None) -> None:
        self._always = choice == "yes"
        self._wanted = self._always or (choice == "auto" and codec.name == "int8" and dim >= _AUTO_DIM)
        self._codec = codec
        self._dim = dim
        self._items = None if items is None else _checked(items, dim)
        self._basis: npt.NDArray[np.float32] | None = None

    @property
    def dims(self) -> int:
        """Dimensions of the sketch; 0 as long as there is none."""
        return 0 if self._basis is None else len(self._basis)

    @property
    def row_bytes(self) -> int:
        """Bytes that the sketch may add to a row at most."""
        if not self._wanted:
            return 0
        whole = -(-self._dim // sketch.GROUP_DIMS) * sketch.GROUP_DIMS
        return whole // 2 + 2 * 3 * 2

    def take_up(self, stored: Mapping[str, Array]) -> None:
        """Go on with the basis of a shard that was written before."""
        self._basis = stored["sketch_basis"].view(np.float32)

    def tensors(self, stored: Mapping[str, Array], *, whole_table: bool) -> dict[str, Any]:
        """Return the sketch tensors of a shard's rows; none where no sketch is wanted.

        Args:
            stored: the shard's tensors.
            whole_table: whether this shard is the table's only one.
        """
        if not self._wanted or (whole_table and not self._always):
            return {}
        if self._basis is None:
            self._basis = self._choose(stored)
        step = max(1, _CHUNK_NUMBERS // self._dim // sketch.BLOCK_ROWS) * sketch.BLOCK_ROWS
        rows = len(stored["scales"])
        parts = [sketch.encode(self._decoded(stored, slice(at, at + step)), self._basis) for at in range(0, rows, step)]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {**joined, "sketch_basis": self._basis}

    def _choose(self, stored: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        rows = len(stored["scales"])
        sample = min(rows, _SAMPLE_ROWS, max(1024, _SAMPLE_NUMBERS // self._dim))
        rows_taken = self._decoded(stored, np.linspace(0, rows - 1, sample).astype(np.int64))
        dims = sketch.choose_dims(rows_taken, self._items)
        return sketch.make_basis(self._dim, dims, rows_taken, self._items)

    def _decoded(self, stored: Mapping[str, Array], rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        names = self._codec.tensors(self._dim)
        return self._codec.decode({name: stored[name][rows] for name in names}, self._dim)


def _checked(items: npt.ArrayLike, dim: int) -> npt.NDArray[np.float32]:
    vectors = np.asarray(items, np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dim or len(vectors) == 0:
        raise UsageError(f"items have shape {list(vectors.shape)}", expected=f"[n, {dim}] with n of at least 1")
    if not np.isfinite(vectors).all():
        raise UsageError("items hold numbers that are not finite", expected="finite item vectors")
    return vectors
