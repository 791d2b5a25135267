"""ONNX Runtime sessions, on the CPU or on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fllm_export.environment import silence_onnxruntime
from fllm_export.errors import BundleError, HardwareError

_CUDA = "CUDAExecutionProvider"


def cpu_session(model: Path, threads: int) -> Any:
    """Open an ONNX model on the CPU with that many threads inside one call, and telemetry off.

    Raises:
        BundleError: ONNX Runtime cannot read the model.
    """
    return _open(model, "CPUExecutionProvider", threads)


def cuda_session(model: Path) -> Any:
    """Open an ONNX model on the first GPU, and telemetry off.

    Raises:
        BundleError: ONNX Runtime cannot read the model.
        HardwareError: this ONNX Runtime knows no GPUs, or its CUDA provider does not start; no CPU is taken instead.
    """
    silence_onnxruntime()
    import onnxruntime

    if _CUDA not in onnxruntime.get_available_providers():
        raise HardwareError(
            f"this ONNX Runtime has no {_CUDA}",
            expected="the build for GPUs",
            fix="Run pip uninstall onnxruntime, then pip install 'fllm-export[gpu]'",
        )
    session = _open(model, _CUDA, 1)
    if _CUDA not in session.get_providers():
        raise HardwareError(
            f"ONNX Runtime's {_CUDA} does not start",
            expected="a GPU, its driver, CUDA and cuDNN of the versions that this ONNX Runtime is built for",
            fix="Read what ONNX Runtime wrote to stderr",
        )
    session.disable_fallback()
    return session


def _open(model: Path, provider: str, threads: int) -> Any:
    silence_onnxruntime()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=[provider])
    except Exception as error:  # onnxruntime's own exceptions share no narrower base
        raise BundleError(f"ONNX Runtime cannot open {model} ({error})", fix="Build the bundle again") from error
