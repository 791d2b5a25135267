"""What is emulated has the names and the parameters of the real thing, where that is installed."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from .emulated_cuda import EmulatedCuda

FUNCTIONS = sorted(name for name, _ in inspect.getmembers(EmulatedCuda, inspect.isfunction) if name.startswith("cuda"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_the_cuda_runtime(name: str) -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    signature = re.match(rf"{name}\((?P<parameters>.*?)\)", getattr(runtime, name).__doc__ or "")
    assert signature is not None
    real = [part for part in signature["parameters"].split(",") if part.strip()]
    emulated = list(inspect.signature(getattr(EmulatedCuda, name)).parameters)[1:]
    assert len(real) == len(emulated)


def test_names_of_the_cuda_runtime() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    assert runtime.cudaMemcpyKind.cudaMemcpyDefault is not None
    assert runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal is not None
    assert int(runtime.cudaError_t.cudaErrorMemoryAllocation) == EmulatedCuda.cudaError_t.cudaErrorMemoryAllocation


@pytest.mark.parametrize(
    ("emulated", "real"),
    [
        ("Context", "IExecutionContext"),
        ("Engine", "ICudaEngine"),
        ("RuntimeConfig", "IRuntimeConfig"),
        ("Runtime", "Runtime"),
        ("Builder", "Builder"),
        ("Parser", "OnnxParser"),
    ],
)
def test_members_of_tensorrt(emulated: str, real: str) -> None:
    trt: Any = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    from . import emulated_tensorrt

    members = [name for name in vars(getattr(emulated_tensorrt, emulated)) if not name.startswith("_")]
    assert members
    assert [name for name in members if not hasattr(getattr(trt, real), name)] == []


def test_names_of_tensorrt() -> None:
    trt: Any = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    for path in (
        "TensorIOMode.INPUT",
        "TensorIOMode.OUTPUT",
        "TensorLocation.HOST",
        "ExecutionContextAllocationStrategy.USER_MANAGED",
        "DynamicShapesKernelSpecializationStrategy.EAGER",
        "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
        "IRuntimeCache.serialize",
        "IRuntimeCache.deserialize",
        "ILogger.ERROR",
    ):
        found = trt
        for name in path.split("."):
            found = getattr(found, name)
