"""The shape of what is planned, read from a bundle, a user table or a checkpoint; headers alone are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from fllm_export.checkpoint.checkpoint import Checkpoint
from fllm_export.directory_kinds import BUNDLE, CHECKPOINT, KINDS, USER_TABLE, kind_of
from fllm_export.errors import UsageError
from fllm_export.manifest import TABLE_FOLDER, Manifest
from fllm_export.table.layout import TableLayout

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Shape:
    """What a table shall hold, and the encoder beside it.

    Attributes:
        rows: users.
        dim: dimension of a user row.
        bias: whether rows have a bias.
        sketch_dims: dimensions of the sketch of rows like these; None where they are not known.
        encoder_bytes: bytes of the encoder's graphs, or 0 without one.
        scan_dim: dimension of the rows that are scanned, where refinement rows have more; else None.
    """

    rows: int
    dim: int
    bias: bool = False
    sketch_dims: int | None = None
    encoder_bytes: int = 0
    scan_dim: int | None = None

    @classmethod
    def of(cls, directory: Path) -> Shape:
        """Read a bundle, a user table or a checkpoint.

        Raises:
            UsageError: it is none of them.
            BundleError: it is damaged.
        """
        kind = kind_of(directory)
        if kind is BUNDLE:
            files = Manifest.load(directory).files
            encoder = sum(entry.bytes for name, entry in files.items() if name.startswith("encoder/"))
            return cls._of_table(TableLayout.load(directory / TABLE_FOLDER), encoder)
        if kind is USER_TABLE:
            return cls._of_table(TableLayout.load(directory), 0)
        if kind is CHECKPOINT:
            checkpoint = Checkpoint.load(directory)
            users = checkpoint.users
            size = parameters(checkpoint) * FLOAT_BYTES
            return cls(users.rows, users.dim, users.bias is not None, None, size)
        raise UsageError(
            f"{directory} is not a bundle, a user table or a checkpoint",
            expected=f"a directory that contains one of {', '.join(kind.marker for kind in KINDS)}",
            fix="Specify such a directory, or --rows and --dim without one",
        )

    @classmethod
    def _of_table(cls, layout: TableLayout, encoder_bytes: int) -> Shape:
        scan_dim = None if layout.dim == layout.item_dim else layout.dim
        return cls(layout.rows, layout.item_dim, layout.bias, layout.sketch_dims or None, encoder_bytes, scan_dim)


def parameters(checkpoint: Checkpoint) -> int:
    """Count what the exported encoder holds: the base model without a language-model head, features and mapper."""
    tensors = checkpoint.base_model.tensors()
    base = sum(math.prod(tensor.shape) for name, tensor in tensors.items() if not name.startswith("lm_head."))
    behind = [*checkpoint.features.tensors.values(), *checkpoint.mapper.weights.values()]
    return base + sum(weight.size for weight in behind)
