"""A TensorRT that is missing, too old, or builds for other GPUs says so."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from fllm_export.engines.tensorrt.library import Library, current_architecture, open_library
from fllm_export.errors import HardwareError, UsageError

RTX = SimpleNamespace(__version__="1.7.1.116", ComputeCapability=SimpleNamespace(SM89=1, SM120=2, CURRENT=3))


def no_driver(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


def test_a_missing_library_is_told_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(HardwareError, match=r"pip install 'fllm-export\[tensorrt\]'"):
        open_library()
    with pytest.raises(UsageError, match="no library 'cudnn'"):
        open_library("cudnn")  # type: ignore[arg-type]


def test_the_full_library_comes_first_and_an_old_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.9.0.34"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", RTX)
    with pytest.raises(HardwareError, match=r"version 10\.9\.0\.34; expected 11 or later"):
        open_library()
    assert open_library("tensorrt_rtx").version == "1.7.1.116"


def test_targets_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    rtx = Library("tensorrt_rtx", RTX, "1.7.1.116")
    assert rtx.targets(("sm120", "sm89")) == ("sm120", "sm89")
    with pytest.raises(UsageError, match="does not build for sm90; expected one of sm89, sm120"):
        rtx.targets(("sm90",))
    monkeypatch.setattr("fllm_export.engines.tensorrt.library.current_architecture", lambda: "sm90")
    full = Library("tensorrt", None, "11.4.0.106")
    assert full.targets(()) == ("sm90",)
    with pytest.raises(UsageError, match="sm90: tensorrt builds for the GPU at hand alone"):
        full.targets(("sm89",))


def test_without_a_driver_there_is_no_gpu_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", no_driver)
    with pytest.raises(HardwareError, match="no CUDA driver"):
        current_architecture()


@pytest.mark.parametrize(("status", "answer"), [(0, "sm86"), (100, None)])
def test_the_driver_is_asked_for_the_architecture(
    monkeypatch: pytest.MonkeyPatch, status: int, answer: str | None
) -> None:
    def attribute(number: Any, which: int, device: Any) -> int:
        number._obj.value = {75: 8, 76: 6}[which]
        return 0

    driver = SimpleNamespace(
        cuInit=lambda flags: status, cuDeviceGet=lambda device, i: 0, cuDeviceGetAttribute=attribute
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    if answer:
        assert current_architecture() == answer
        return
    with pytest.raises(HardwareError, match="error 100"):
        current_architecture()
