"""Making the refinement rows of a table while it is written, shard by shard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fllm_export.errors import UsageError
from fllm_export.files import Later, sha256_file
from fllm_export.table.codec_names import RefineName
from fllm_export.table.codecs import Codec, codec
from fllm_export.table.layout import RefinementLayout, ShardEntry
from fllm_export.table.refinement import RefinementShape, row_bytes, shard_name
from fllm_export.table.shard import Array, write_shard

_PREFIX = "refine_"


class RefinementMaker:
    """Encodes whole rows beside those that are scanned, and publishes them in files of their own.

    Between the two, its tensors travel with those of the rows that are scanned, under names of their own, so that
    whatever orders the ones orders the others.

    Attributes:
        entries: the files that are published.
        shape: what decides their tensors; None without refinement.

    Args:
        refine: codec of refinement rows, or ``no``.
        dim: dimension of whole rows.
        scanned: codec of the rows that are scanned.
        scan_dim: their dimension.

    Raises:
        UsageError: refinement rows would take no more bytes than the rows that are scanned, or there are none and
            the rows that are scanned are not whole.
    """

    def __init__(self, refine: RefineName, dim: int, scanned: Codec, scan_dim: int) -> None:
        self.entries: list[ShardEntry] = []
        self.shape = None if refine == "no" else RefinementShape(codec(refine), dim)
        if self.shape is None:
            if scan_dim != dim:
                raise UsageError(f"{scan_dim} of {dim} dimensions are kept", expected="all, without refinement rows")
        elif row_bytes(refine, dim) <= scanned.row_bytes(scan_dim):
            raise UsageError(
                f"refine is {refine} and the rows are {scanned.name} of {scan_dim} dimensions",
                expected="refinement rows of more bytes than the rows: others cannot rank better",
                fix="Choose a smaller quant, or omit refine",
            )

    @property
    def makes(self) -> bool:
        """Whether the table gets refinement rows."""
        return self.shape is not None

    def encode(self, rows: npt.NDArray[np.float32]) -> dict[str, Array]:
        """Return the tensors of finite whole rows [n, d], by names that no other tensor has; none without refinement.

        Numbers are rounded to the nearest, which costs no ranking in so many bits.
        """
        if self.shape is None:
            return {}
        return self.give(self.shape.codec.encode(rows))

    def take(self, tensors: dict[str, Array]) -> dict[str, Array]:
        """Remove its own tensors from those of a shard, and return them."""
        names = [name for name in tensors if name.startswith(_PREFIX)]
        return {name.removeprefix(_PREFIX): tensors.pop(name) for name in names}

    def give(self, stored: dict[str, Array]) -> dict[str, Array]:
        """Return stored tensors of refinement rows under the names that :meth:`take` looks for."""
        return {_PREFIX + name: array for name, array in stored.items()}

    def write(self, path: Path, tensors: dict[str, Array], later: Later | None = None) -> ShardEntry | None:
        """Publish a file of what :meth:`take` returned, synced now or later, and return its entry; None without any."""
        if self.shape is None:
            return None
        size = write_shard(path, self.shape, tensors, later)
        return ShardEntry(path.name, len(tensors["scales"]), size, sha256_file(path))

    def publish(self, directory: Path, tensors: dict[str, Array]) -> None:
        """Publish the next file from what :meth:`take` returned; nothing without refinement."""
        entry = self.write(directory / shard_name(len(self.entries)), tensors)
        if entry is not None:
            self.entries.append(entry)

    @property
    def layout(self) -> RefinementLayout | None:
        """What the table says of the files."""
        if self.shape is None:
            return None
        return RefinementLayout(self.shape.codec.name, self.shape.dim, tuple(self.entries))
