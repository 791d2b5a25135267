"""Which engines can run on this machine, found by trying them on a table of one user."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

from fllm_export.engines.registry import ENGINES, Source, open_engine
from fllm_export.environment import silence_onnxruntime
from fllm_export.errors import FllmError


def obstacles() -> dict[str, str | None]:
    """Return for each engine why it cannot run here; None where it can.

    ``onnxruntime`` and ``tensorrt`` need graphs and plans of a bundle: only what these stand on is looked for.
    """
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "users"
        _write(table)
        return {name: _obstacle(name, table) for name in ENGINES}


def _obstacle(name: str, table: Path) -> str | None:
    try:
        if name == "tensorrt":
            from fllm_export.engines.tensorrt.gpu import Gpu
            from fllm_export.engines.tensorrt.library import open_library

            open_library()
            Gpu()
        elif name == "onnxruntime":
            silence_onnxruntime()
            importlib.import_module("onnxruntime")
        else:
            open_engine(name, Source(table, head=None, threads=1, native={}))
    except (FllmError, ImportError) as error:
        return str(error)
    return None


def _write(table: Path) -> None:
    from fllm_export.table.options import TableOptions
    from fllm_export.table.writer import TableWriter

    writer = TableWriter(table, TableOptions(), dim=4)
    writer.add([[1.0, 0.0, 0.0, 0.0]])
    writer.finish()
