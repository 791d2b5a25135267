"""The table of a build: by its own options, or by the operating point that a sweep picked."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from fllm_export.bundle.choices import Dim
from fllm_export.errors import UsageError
from fllm_export.operating_point import OperatingPoint
from fllm_export.table.codec_names import CodecName, RefineName
from fllm_export.table.options import TableChoices, TableOptions


def chosen_table(
    point: OperatingPoint | str | Path | None, given: int, dim: Dim | None, table: TableChoices
) -> tuple[TableOptions, Dim | None]:
    """Return how the table is written, and the dimension that rows are cut to.

    Args:
        point: an operating point, its file, or None.
        given: dimension of the checkpoint's user rows.
        dim: what the caller requests.
        table: options that the caller names.

    Raises:
        UsageError: an option is named beside an operating point that sets it, or a value is invalid.
        BundleError: the file is missing or damaged.
    """
    if point is None:
        return TableOptions(**table), dim
    named = [name for name in ("quant", "sketch", "cluster", "refine") if name in table] + ["dim"] * (dim is not None)
    if named:
        raise UsageError(
            f"{', '.join(named)} given beside an operating point",
            expected="one or the other, because the operating point sets them",
        )
    found = OperatingPoint.of(point)
    choices = TableChoices(
        **table,
        quant=cast(CodecName, found.quant),
        sketch="yes" if found.sketch else "no",
        cluster="yes" if found.cluster else "no",
        refine=cast(RefineName, found.refine),
    )
    return TableOptions(**choices), None if found.dim == given else found.dim
