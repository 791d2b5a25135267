"""An emulated GPU with an emulated TensorRT."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from .emulated_cuda import EmulatedCuda

if TYPE_CHECKING:
    from .emulated_tensorrt import EmulatedTensorRt


@pytest.fixture
def emulate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[EmulatedCuda, EmulatedTensorRt]]:
    """Return a function that puts both in the place of the real ones."""
    pytest.importorskip("onnx", reason="the graphs that plans are made of need onnx")
    from .emulated_tensorrt import EmulatedTensorRt

    def install(
        *, rtx: bool = False, on_host: tuple[str, ...] = (), free_bytes: int = 1 << 30
    ) -> tuple[EmulatedCuda, EmulatedTensorRt]:
        cuda = EmulatedCuda(free_bytes)
        trt = EmulatedTensorRt(cuda, rtx=rtx, on_host=on_host)
        monkeypatch.setitem(sys.modules, "tensorrt", None if rtx else trt)
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt if rtx else None)
        monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(__path__=[]))
        monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(__path__=[]))
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
        architecture = "sm89" if rtx else "sm90"
        monkeypatch.setattr("fllm_export.engines.tensorrt.library.current_architecture", lambda: architecture)
        return cuda, trt

    return install
