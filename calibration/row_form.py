"""How rows are stored, as far as calibration texts can choose it: codec, dimension and rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fllm_export.table.codec_names import CodecName

FLOATS: tuple[CodecName, ...] = ("fp32", "fp16")
"""Codecs with nothing to gain by another rounding."""

ROTATED: tuple[CodecName, ...] = ("int4row", "int2", "int1")
"""Codecs with few values and one scale per row: rows are rotated for them in any case."""

BY_DATA: tuple[CodecName, ...] = ("int4", "int4row", "int2", "int1")
"""Codecs whose rows are rounded by data wherever there are enough texts: the gain is worth encoding them."""


@dataclass(frozen=True)
class RowForm:
    """A way to store the rows of a checkpoint.

    Attributes:
        quant: the codec.
        dim: dimension that rows are cut to, at most that of the checkpoint's rows.
        rounding: ``nearest``, or ``data``: by what item vectors have in common.
    """

    quant: CodecName
    dim: int
    rounding: Literal["nearest", "data"]

    def __str__(self) -> str:
        rounded = {"data": ", rounded by data", "nearest": ""}[self.rounding]
        return f"{self.quant} x {self.dim}{rounded}"

    def by_directions(self, whole: int) -> bool:
        """Whether rows of ``whole`` dimensions pass the directions of :mod:`fllm_export.calibration.directions`."""
        return self.dim < whole or self.rounding == "data"


def gains_by_data(quant: CodecName, *, cut: bool) -> bool:
    """Return whether rows are rounded by data where nothing else is requested and there are enough texts.

    Args:
        quant: the codec.
        cut: whether the rows are cut to fewer dimensions, for which the texts are encoded anyway.
    """
    return (quant in BY_DATA or cut) and quant not in FLOATS
