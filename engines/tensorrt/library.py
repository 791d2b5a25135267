"""The installed TensorRT: the full library or TensorRT-RTX, which share one Python interface."""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from typing import Any, Literal

from fllm_export.errors import HardwareError, UsageError

LibraryName = Literal["tensorrt", "tensorrt_rtx"]
LIBRARIES: tuple[LibraryName, ...] = ("tensorrt", "tensorrt_rtx")

_EXTRAS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
_OLDEST = {"tensorrt": 11, "tensorrt_rtx": 1}

# CUdevice_attribute of cuda.h
_MAJOR, _MINOR = 75, 76


@dataclass(frozen=True)
class Library:
    """An imported TensorRT.

    Attributes:
        name: ``tensorrt`` or ``tensorrt_rtx``.
        module: the Python module.
        version: such as ``1.7.1.116``.
    """

    name: LibraryName
    module: Any
    version: str

    @property
    def builds_ahead(self) -> bool:
        """Whether it builds for GPUs other than the one at hand, and without any."""
        return self.name == "tensorrt_rtx"

    def targets(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """Return the GPU architectures to build for, such as ``sm89``; none wanted means the GPU at hand.

        Raises:
            UsageError: this library does not build for one of them.
            HardwareError: the GPU at hand was meant and there is none.
        """
        if not self.builds_ahead or not wanted:
            here = current_architecture()
            if any(target != here for target in wanted):
                raise UsageError(
                    f"plans for {', '.join(wanted)} were asked for",
                    expected=f"{here}: {self.name} builds for the GPU at hand alone",
                    fix="Build on the target, or use --library tensorrt_rtx",
                )
            wanted = (here,)
        if self.builds_ahead:
            known = [name.lower() for name in dir(self.module.ComputeCapability) if name.startswith("SM")]
            for target in wanted:
                if target not in known:
                    raise UsageError(
                        f"{self.name} {self.version} does not build for {target}",
                        expected="one of " + ", ".join(sorted(known, key=lambda name: int(name[2:]))),
                    )
        return wanted


def open_library(name: LibraryName | None = None) -> Library:
    """Import TensorRT: the named library, or the first of :data:`LIBRARIES` that is installed.

    Raises:
        UsageError: there is no library of that name.
        HardwareError: it is not installed, cannot be loaded, or is too old.
    """
    if name is not None and name not in LIBRARIES:
        raise UsageError(f"there is no library {name!r}", expected="one of " + ", ".join(LIBRARIES))
    reasons = []
    for candidate in (name,) if name else LIBRARIES:
        try:
            module = importlib.import_module(candidate)
        except (ImportError, OSError) as error:
            reasons.append(f"{candidate}: {error}")
            continue
        return _checked(candidate, module)
    raise HardwareError(
        "TensorRT cannot be loaded (" + "; ".join(reasons) + ")",
        fix="Run pip install 'fllm-export[tensorrt]' (data-centre GPUs; its libraries come from NVIDIA's index) or "
        "'fllm-export[tensorrt-rtx]' (RTX GPUs; builds on machines without one)",
    )


def _checked(name: LibraryName, module: Any) -> Library:
    version = str(module.__version__)
    if int(version.split(".")[0]) < _OLDEST[name]:
        raise HardwareError(
            f"{name} is version {version}",
            expected=f"{_OLDEST[name]} or later, which is strongly typed",
            fix=f"Run pip install --upgrade 'fllm-export[{_EXTRAS[name]}]'",
        )
    return Library(name, module, version)


def current_architecture() -> str:
    """Return the architecture of the first GPU, such as ``sm90``, from the CUDA driver.

    Raises:
        HardwareError: there is no driver or no GPU.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise HardwareError(
            f"there is no CUDA driver ({error})",
            fix="Run on a machine with an NVIDIA GPU; build plans for one elsewhere by its name (--target sm89)",
        ) from None
    numbers = []
    device = ctypes.c_int()
    status = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0)
    for attribute in (_MAJOR, _MINOR):
        number = ctypes.c_int()
        status = status or driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        numbers.append(number.value)
    if status:
        raise HardwareError(f"the CUDA driver finds no usable GPU (error {status})", fix="Read what nvidia-smi says")
    return f"sm{numbers[0]}{numbers[1]}"
