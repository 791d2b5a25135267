"""What a build chooses before it measures: whether rows are cut and rotated, and how they are rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from fllm_export import arguments
from fllm_export.calibration.row_form import FLOATS, ROTATED, gains_by_data
from fllm_export.errors import UsageError
from fllm_export.table.codec_names import CodecName

Dim = int | Literal["auto"]

RoundingName = Literal["auto", "nearest", "data"]
ROUNDINGS: tuple[RoundingName, ...] = get_args(RoundingName)


@dataclass(frozen=True)
class Choices:
    """What the options of a build come to for one checkpoint and its texts.

    Attributes:
        quant: the codec.
        dim: the requested dimension, ``auto`` or None.
        rounding: ``nearest`` or ``data``.
        too_few: the number of texts beyond those of parity, where ``auto`` would have rounded by data if they were
            enough; else None.
        rows: dimension of the checkpoint's rows.
    """

    quant: CodecName
    dim: Dim | None
    rounding: Literal["nearest", "data"]
    too_few: int | None
    rows: int

    @classmethod
    def of(cls, quant: CodecName, dim: Dim | None, rounding: RoundingName, rows: int, texts: int) -> Choices:
        """Resolve what is ``auto`` about the rounding.

        Args:
            quant: the codec.
            dim: as the caller gave it.
            rounding: as the caller gave it.
            rows: dimension of the checkpoint's rows.
            texts: number of texts beyond those of parity.

        Raises:
            UsageError: a choice changes nothing, or there are too few texts for it.
        """
        if isinstance(dim, int) and dim >= rows:
            raise UsageError(
                f"dim is {dim} and the checkpoint's user rows have {rows} dimensions",
                expected=f"a dimension below {rows}: no other changes anything",
                fix="Choose a smaller --dim, or omit it",
            )
        if rounding == "data" and quant in FLOATS:
            raise UsageError(
                f"rounding is data and quant is {quant}",
                expected="a codec of few bits: rounding by data changes nothing here",
                fix="Omit --rounding, or choose another --quant",
            )
        least = dim if isinstance(dim, int) else rows
        if (dim is not None or rounding == "data") and texts < least:
            raise UsageError(
                f"{texts} texts are left beyond those that are kept for parity",
                expected=f"at least {least}, one for each dimension of the rows to be measured",
                fix="Give more item texts to --calibration, for example those of the whole catalogue",
            )
        gains = gains_by_data(quant, cut=dim is not None)
        by_data = rounding == "data" or (rounding == "auto" and gains and texts >= least)
        too_few = texts if rounding == "auto" and gains and texts < least else None
        return cls(quant, dim, "data" if by_data else "nearest", too_few, rows)

    @property
    def measured(self) -> bool:
        """Whether item vectors and rows have to be measured."""
        return self.dim is not None or self.rounding == "data"

    @property
    def transformed(self) -> bool:
        """Whether rows pass a transform."""
        return self.measured or self.quant in ROTATED

    @property
    def key(self) -> tuple[Any, ...]:
        """What of this decides the transform, JSON-ready; empty where there is none."""
        return (self.quant, self.dim, self.rounding) if self.transformed else ()


def checked_dim(value: Any) -> Dim | None:
    """Return a dimension as a caller may give it.

    Raises:
        UsageError: it is not None, ``auto`` or an integer of at least 1.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if value != "auto":
            raise UsageError(f"dim is {value!r:.60}", expected="an integer of 1 or more, or auto")
        return "auto"
    return arguments.integer(value, "dim", least=1)
