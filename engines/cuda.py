"""The CUDA engine: libfllm on GPUs, with the same scores and the same order as on the CPU."""

from __future__ import annotations

from typing import ClassVar

from fllm_export.engines.core import CoreEngine
from fllm_export.environment import whole_number
from fllm_export.table.table import Table


class CudaEngine(CoreEngine):
    """Scans with libfllm on GPUs, which hold the table in their memory as far as it fits.

    ``FLLM_GPUS`` is how many share the table (default: one), ``FLLM_GPU_BYTES`` what each gives at most (default: what
    is free); rows beyond that stream from pinned memory of the host.

    Args:
        table: the open table, int8 or fp8.
        threads: threads of the host; opening uses them.

    Raises:
        BudgetError: neither the GPUs' memory nor the host's suffices.
        BundleError: libfllm finds the table unfit.
        HardwareError: libfllm_cuda or a GPU is missing.
        UsageError: the table's codec is one that GPUs do not scan.
    """

    name: ClassVar[str] = "cuda"

    def __init__(self, table: Table, threads: int) -> None:
        gpus, gpu_bytes = whole_number("FLLM_GPUS"), whole_number("FLLM_GPU_BYTES")
        super().__init__(table, threads, gpus=gpus or 0, gpu_bytes=gpu_bytes or 0)
