"""From an engine's name to the engine. What was asked for is opened, or an error says why not."""

from __future__ import annotations

from pathlib import Path

from fllm_export.engines.base import Engine
from fllm_export.engines.names import ENGINES
from fllm_export.environment import default_engine
from fllm_export.errors import UsageError
from fllm_export.table.table import Table

DEFAULT = "native"


def engine_name(asked: str | None) -> str:
    """Return the engine to open: the caller's, or else the environment's, or else the default."""
    return asked or default_engine() or DEFAULT


def open_engine(name: str, table: Table, *, head: Path, threads: int) -> Engine:
    """Return an engine on ``table``.

    Args:
        name: one of :data:`fllm_export.engines.names.ENGINES`.
        table: the open table.
        head: where the head graph would be, and ``plans`` beside it; ONNX Runtime and TensorRT need them.
        threads: threads inside one call, where the engine can choose.

    Raises:
        UsageError: there is no engine of that name.
        HardwareError: the engine cannot run here.
    """
    if name == "native":
        from fllm_export.engines.native import NativeEngine

        return NativeEngine(table, threads)
    if name == "cuda":
        from fllm_export.engines.cuda import CudaEngine

        return CudaEngine(table, threads)
    if name == "tensorrt":
        from fllm_export.engines.tensorrt.engine import TensorRtEngine

        return TensorRtEngine(table, head.parent / "plans")
    if name == "numpy":
        from fllm_export.engines.reference import NumpyEngine

        return NumpyEngine(table)
    if name == "onnxruntime":
        from fllm_export.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(table, head, threads)
    raise UsageError(f"there is no engine {name!r}", expected="one of " + ", ".join(ENGINES))
