"""Every environment variable that fllm-export reads, in one table."""

from __future__ import annotations

import os
from pathlib import Path

from fllm_export import arguments
from fllm_export.errors import UsageError

THREADS_MAX = 1024
"""Threads of one call at most, which is libfllm's limit."""

GPUS_MAX = 1024
"""GPUs of one table at most, which is libfllm's limit."""

BYTES_MAX = (1 << 63) - 1
"""The largest size that is accepted."""

VARIABLES: dict[str, str] = {
    "FLLM_ENGINE": "engine to use when none is named: native, cuda, tensorrt, onnxruntime or numpy (default: native)",
    "FLLM_ENCODER": "what encodes texts if nothing is named: cpu, cpu-fp32, cuda, tensorrt, tensorrt-fp16, -bf16, -fp8",
    "FLLM_CUDA_LIBRARY": "libfllm_cuda.so that the engine cuda loads (default: beside libfllm)",
    "FLLM_TENSORRT_LIBRARY": "libfllm_tensorrt.so that C and C++'s engine tensorrt loads (default: beside libfllm)",
    "FLLM_GPUS": "number of GPUs that share a table, engine cuda (default: 1)",
    "FLLM_GPU_BYTES": "bytes of each GPU that a table takes at most, engines cuda and tensorrt (default: all free)",
    "FLLM_TENSORRT_CACHE": "folder that keeps kernels that TensorRT-RTX compiles where a plan runs (default: none)",
    "FLLM_ISA": "instruction set of native, one of those that `fllm-export info` lists (default: best)",
    "FLLM_ONNXRUNTIME": "libonnxruntime.so that the C++ encoder loads (default: libonnxruntime.so.1)",
    "FLLM_NUM_THREADS": "threads to use when no number is named (default: the CPUs that this process may use)",
    "FLLM_SERVER_TOKEN": "bearer token that requests to `fllm-export serve` need (default: none)",
    "NO_COLOR": "when set, no colours on the terminal",
}


def thread_count(threads: int | None) -> int:
    """Return the number of threads to use: the caller's, or else the environment's.

    Raises:
        UsageError: it is not an integer, or is less than 1.
    """
    if threads is None:
        return default_threads()
    return arguments.integer(threads, "threads", least=1, most=THREADS_MAX)


def default_threads() -> int:
    """Return the number of threads to use when the caller names none."""
    return positive_integer("FLLM_NUM_THREADS", THREADS_MAX) or min(len(os.sched_getaffinity(0)), THREADS_MAX)


def positive_integer(name: str, most: int) -> int | None:
    """Return the number that an environment variable holds, if it is set.

    Raises:
        UsageError: it is not an integer from 1 to ``most``.
    """
    text = os.environ.get(name)
    if text is None:
        return None
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(most)) else 0
    if not 1 <= number <= most:
        raise UsageError(f"{name} is {text[:60]!r}", expected=f"an integer from 1 to {most}")
    return number


def default_engine() -> str | None:
    """Return the engine that the environment asks for, if it names one."""
    return os.environ.get("FLLM_ENGINE") or None


def chosen_encoder() -> str | None:
    """Return the encoder that the environment asks for, if it names one."""
    return os.environ.get("FLLM_ENCODER") or None


def tensorrt_cache() -> Path | None:
    """Return the folder that keeps kernels compiled by TensorRT-RTX, if the environment names one."""
    folder = os.environ.get("FLLM_TENSORRT_CACHE")
    return Path(folder) if folder else None


def silence_onnxruntime() -> None:
    """Switch ONNX Runtime's telemetry off; called before each place that imports it."""
    for name in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
        os.environ[name] = "1"
