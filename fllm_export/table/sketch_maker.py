"""Making the sketch of a table while it is written, shard by shard."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fllm_export import arguments
from fllm_export.table import sketch
from fllm_export.table.bit_planes import BLOCK_ROWS, whole_groups
from fllm_export.table.codec_names import CodecName
from fllm_export.table.options import Choice
from fllm_export.table.shard_rows import ShardRows

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
        quant: name of the table's codec.
        dim: dimension of a row.
        items: item vectors [n, d] like those to come, some hundred of them, by which the basis is chosen too; they
            cannot change an exact answer.

    Raises:
        UsageError: the items are invalid.
    """

    def __init__(self, choice: Choice, quant: CodecName, dim: int, items: npt.ArrayLike | None = None) -> None:
        self._always = choice == "yes"
        self._wanted = self._always or (choice == "auto" and quant == "int8" and dim >= _AUTO_DIM)
        self._dim = dim
        self._items = None if items is None else arguments.vectors(items, "items", dim)
        self._encoder: sketch.Encoder | None = None

    @property
    def dims(self) -> int:
        """Dimensions of the sketch; 0 as long as there is none."""
        return 0 if self._encoder is None else len(self._encoder.basis)

    @property
    def row_bytes(self) -> int:
        """Bytes that the sketch may add to a row at most."""
        if not self._wanted:
            return 0
        return whole_groups(self._dim) // 2 + 2 * 3 * 2

    def take_up(self, stored: Mapping[str, Array]) -> None:
        """Go on with the basis of a shard that was written before."""
        self._encoder = sketch.Encoder(stored["sketch_basis"].view(np.float32))

    def makes(self, *, whole_table: bool) -> bool:
        """Return whether a shard gets a sketch; ``whole_table`` tells that it is the table's only one."""
        return self._wanted and (self._always or not whole_table)

    def tensors(self, rows: ShardRows) -> dict[str, Array]:
        """Return the sketch tensors of a shard's rows; the first shard's rows choose the basis."""
        if self._encoder is None:
            self._encoder = sketch.Encoder(self._choose(rows))
        step = max(1, _CHUNK_NUMBERS // self._dim // BLOCK_ROWS) * BLOCK_ROWS
        made = self._encoder.room(len(rows))
        for at in range(0, len(rows), step):
            blocks = slice(at // BLOCK_ROWS, (at + step) // BLOCK_ROWS)
            self._encoder.encode(rows.part(at, at + step), {name: array[blocks] for name, array in made.items()})
        return {**made, "sketch_basis": self._encoder.basis}

    def _choose(self, rows: ShardRows) -> npt.NDArray[np.float32]:
        sample = rows.sample(sample_rows(self._dim))
        dims = sketch.choose_dims(sample, self._items)
        return sketch.make_basis(self._dim, dims, sample, self._items)


def sample_rows(dim: int) -> int:
    """Return how many rows of that dimension the sketch's dimensions are chosen by, if there are as many."""
    return min(_SAMPLE_ROWS, max(1024, _SAMPLE_NUMBERS // dim))
