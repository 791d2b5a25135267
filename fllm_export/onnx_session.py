"""ONNX Runtime sessions on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fllm_export.environment import silence_onnxruntime
from fllm_export.errors import BundleError


def cpu_session(model: Path, threads: int) -> Any:
    """Open an ONNX model on the CPU with that many threads inside one call, and telemetry off.

    Raises:
        BundleError: ONNX Runtime cannot read the model.
    """
    silence_onnxruntime()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no narrower base
        raise BundleError(f"ONNX Runtime cannot open {model} ({error})", fix="Build the bundle again") from error
