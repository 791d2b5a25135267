"""The native engine: libfllm on the CPU, one pass over the users at the speed of memory."""

from __future__ import annotations

from typing import ClassVar

from fllm_export.engines.core import CoreEngine
from fllm_export.table.table import Table


class NativeEngine(CoreEngine):
    """Scans with libfllm on this machine's CPUs.

    Args:
        table: the open table.
        threads: threads of one search.

    Raises:
        BundleError: libfllm finds the table unfit.
        HardwareError: the instruction set that ``FLLM_ISA`` asks for is not to be had here.
    """

    name: ClassVar[str] = "native"

    def __init__(self, table: Table, threads: int) -> None:
        super().__init__(table, threads)
