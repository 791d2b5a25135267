"""Refinement rows: each row of a table once more, in more bits, for the candidates that a search ranks again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.table.codecs import Codec, codec
from fllm_export.table.layout import RefinementLayout
from fllm_export.table.shard import Array, map_tensors

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RefinementShape:
    """What a table says of each file of its refinement rows.

    Attributes:
        codec: of all rows.
        dim: dimension of a row.
    """

    codec: Codec
    dim: int

    def tensors(self, rows: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the safetensors dtype and the shape of each tensor of so many rows, in file order."""
        return {name: (dtype, (rows, *shape)) for name, (dtype, shape) in self.codec.tensors(self.dim).items()}

    @classmethod
    def of(cls, layout: RefinementLayout) -> RefinementShape:
        """Return what the layout of a table says."""
        return cls(codec(layout.codec), layout.dim)


class Refinement:
    """The files of refinement rows, mapped into memory, read-only: pages come in when a row of them is read.

    Attributes:
        codec: of the rows.
        dim: of the rows and of item vectors.

    Args:
        directory: of the table.
        layout: what the table says of the files.

    Raises:
        BundleError: a file is missing, damaged or not as the table describes it.
    """

    def __init__(self, directory: Path, layout: RefinementLayout) -> None:
        shape = RefinementShape.of(layout)
        self.codec, self.dim = shape.codec, shape.dim
        self._shards = [map_tensors(directory / entry.name, shape, entry.rows) for entry in layout.shards]
        self._ends = np.cumsum([entry.rows for entry in layout.shards])

    def part(self, shard: int, start: int, stop: int) -> dict[str, Array]:
        """Return the stored tensors of rows ``start`` to ``stop`` of a shard, as views."""
        return {name: array[start:stop] for name, array in self._shards[shard].items()}

    def gather(self, rows: I64) -> dict[str, Array]:
        """Return copies of the stored tensors of some rows, given by their numbers in scan order."""
        owners = np.searchsorted(self._ends, rows, side="right")
        found = _empty(self._shards[0], len(rows))
        for number in np.unique(owners):
            at = np.flatnonzero(owners == number)
            inside = rows[at] - (self._ends[number - 1] if number else 0)
            for name, array in self._shards[number].items():
                found[name][at] = array[inside]
        return found


def _empty(like: dict[str, Array], rows: int) -> dict[str, Array]:
    return {name: np.empty((rows, *array.shape[1:]), array.dtype) for name, array in like.items()}


def shard_name(number: int) -> str:
    """Return the name of the file of that number, counted from 0."""
    return f"refine-{number:05d}.safetensors"


def row_bytes(name: str, dim: int) -> int:
    """Return the bytes that a codec, or ``no``, adds to each row."""
    return 0 if name == "no" else codec(name).row_bytes(dim)
