"""A GPU's memory, streams, events and graphs, by NVIDIA's own Python binding of the CUDA runtime."""

from __future__ import annotations

import ctypes
import importlib
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from fllm_export.errors import BudgetError, HardwareError

BOUNDARY = 256
"""Arrays in GPU memory begin at multiples of so many bytes."""


def rounded(size: int) -> int:
    """Return so many bytes, up to the next boundary."""
    return -(-size // BOUNDARY) * BOUNDARY


# Of cuda_runtime_api.h.
_NON_BLOCKING = 1
_PORTABLE = 1
_NO_TIMING = 2


class Gpu:
    """The first GPU that the process sees.

    Raises:
        HardwareError: the binding, a driver or a GPU is missing.
    """

    def __init__(self) -> None:
        try:
            self._cudart = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise HardwareError(
                f"the CUDA runtime's Python binding is missing ({error})",
                fix="Run pip install 'fllm-export[tensorrt]' or 'fllm-export[tensorrt-rtx]'",
            ) from None
        if self.call("cudaGetDeviceCount", doing="looking for GPUs") == 0:
            raise HardwareError("there is no GPU that this process may use", fix="Read what nvidia-smi says")

    def call(self, function: str, *arguments: Any, doing: str) -> Any:
        """Call a function of the CUDA runtime and return its one result, if it has one.

        Raises:
            BudgetError: memory does not suffice.
            HardwareError: it fails for another reason.
        """
        status, *results = getattr(self._cudart, function)(*arguments)
        errors = self._cudart.cudaError_t
        if status == errors.cudaSuccess:
            return results[0] if results else None
        self._cudart.cudaGetLastError()  # what the GPU recovers from shall not be found again by the next call
        _, name = self._cudart.cudaGetErrorName(status)
        _, text = self._cudart.cudaGetErrorString(status)
        found = f"the GPU failed at {doing} ({name.decode()}: {text.decode()})"
        if status == errors.cudaErrorMemoryAllocation:
            raise BudgetError(found, fix="Free some memory, or set FLLM_GPU_BYTES lower")
        raise HardwareError(found, fix="Read what nvidia-smi says, and open the bundle again")

    def release(self, function: str, *arguments: Any) -> None:
        """Call a function that gives something back; that it fails is of no interest any more."""
        getattr(self._cudart, function)(*arguments)

    def give_back_with(self, owner: object, function: str, *arguments: Any) -> None:
        """Call such a function when nothing refers to ``owner`` any more; at exit the driver does all of it."""
        weakref.finalize(owner, self.release, function, *arguments).atexit = False

    @property
    def free_bytes(self) -> int:
        """Memory that is free."""
        status, free, _ = self._cudart.cudaMemGetInfo()
        if status != self._cudart.cudaError_t.cudaSuccess:
            raise HardwareError("the GPU does not tell how much memory is free", fix="Read what nvidia-smi says")
        return int(free)

    @property
    def memory_kind(self) -> Any:
        """The kind of copy that finds out by itself where addresses are."""
        return self._cudart.cudaMemcpyKind.cudaMemcpyDefault

    @property
    def capture_mode(self) -> Any:
        """The mode of capture in which other threads may go on as they like."""
        return self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal


class Memory:
    """Memory of the GPU, given back when nothing refers to it any more."""

    def __init__(self, gpu: Gpu, size: int) -> None:
        self.size = size
        self.address = int(gpu.call("cudaMalloc", size, doing=f"allocating {size} bytes"))
        gpu.give_back_with(self, "cudaFree", self.address)


class Pinned:
    """Memory of the host that copies need not be staged for.

    Attributes:
        address: where it begins.
        bytes: the same as uint8 [size]; valid as long as this object.
    """

    def __init__(self, gpu: Gpu, size: int) -> None:
        doing = f"allocating {size} bytes of pinned memory"
        self.address = int(gpu.call("cudaHostAlloc", size, _PORTABLE, doing=doing))
        self.bytes: npt.NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.address))
        gpu.give_back_with(self, "cudaFreeHost", self.address)

    def array(self, dtype: npt.DTypeLike, shape: tuple[int, ...], offset: int = 0) -> npt.NDArray[Any]:
        """Return a view of a part of it."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.bytes[offset : offset + size].view(dtype).reshape(shape)


class Event:
    """A mark on a stream."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.handle = gpu.call("cudaEventCreateWithFlags", _NO_TIMING, doing="making an event")
        gpu.give_back_with(self, "cudaEventDestroy", self.handle)

    def finish(self) -> None:
        """Wait until all that was put on the stream before the mark has ended."""
        self._gpu.call("cudaEventSynchronize", self.handle, doing="waiting for the GPU")


class Graph:
    """What was captured from a stream."""

    def __init__(self, gpu: Gpu, captured: Any) -> None:
        self.handle = gpu.call("cudaGraphInstantiate", captured, 0, doing="making a graph")
        gpu.give_back_with(self, "cudaGraphExecDestroy", self.handle)


class Stream:
    """Work for the GPU, done in order; calls return before it is done."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._stream = gpu.call("cudaStreamCreateWithFlags", _NON_BLOCKING, doing="making a stream")
        self.handle = int(self._stream)
        gpu.give_back_with(self, "cudaStreamDestroy", self._stream)

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy bytes, between GPU and host or within either."""
        self._gpu.call("cudaMemcpyAsync", to, source, size, self._gpu.memory_kind, self._stream, doing="copying")

    def clear(self, address: int, size: int) -> None:
        """Fill GPU memory with zeros."""
        self._gpu.call("cudaMemsetAsync", address, 0, size, self._stream, doing="clearing memory")

    def record(self, event: Event) -> None:
        """Put a mark on the stream."""
        self._gpu.call("cudaEventRecord", event.handle, self._stream, doing="marking a stream")

    def wait(self, event: Event) -> None:
        """Let what follows on this stream come after the event's last mark."""
        self._gpu.call("cudaStreamWaitEvent", self._stream, event.handle, 0, doing="joining streams")

    def finish(self) -> None:
        """Wait until all has ended."""
        self._gpu.call("cudaStreamSynchronize", self._stream, doing="waiting for the GPU")

    def begin_capture(self) -> None:
        """From now on collect what is put on the stream, and do nothing of it."""
        self._gpu.call("cudaStreamBeginCapture", self._stream, self._gpu.capture_mode, doing="capturing a graph")

    def end_capture(self) -> Graph:
        """Return what was collected."""
        captured = self._gpu.call("cudaStreamEndCapture", self._stream, doing="capturing a graph")
        try:
            return Graph(self._gpu, captured)
        finally:
            self._gpu.release("cudaGraphDestroy", captured)

    def launch(self, graph: Graph) -> None:
        """Do all that a graph holds."""
        self._gpu.call("cudaGraphLaunch", graph.handle, self._stream, doing="launching a graph")
