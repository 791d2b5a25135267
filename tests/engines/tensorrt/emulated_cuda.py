"""``cuda.bindings.runtime`` on the CPU, as far as the engine uses it.

What is put on a stream runs as late as it may: when a stream or an event is waited for; or, on streams that are
``eager``, as early as it may. So a wait that is missing shows in the answers. Every copy and every tensor must lie
inside memory that was allocated and not given back.
"""

from __future__ import annotations

import ctypes
import enum
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Work = Callable[[], None]
Bytes = npt.NDArray[np.uint8]


class Status(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorDevicesUnavailable = 46


class Stream:
    def __init__(self, number: int) -> None:
        self.number = number
        self.work: deque[Work] = deque()
        self.captured: list[Work] | None = None
        self.eager = False

    def __int__(self) -> int:
        return self.number

    def put(self, work: Work) -> None:
        (self.work if self.captured is None else self.captured).append(work)
        if self.eager:
            self.work.popleft()()


class Event:
    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.wanted = self.reached = 0


class EmulatedCuda:
    """The module. ``failing`` names functions that fail from now on; ``launches`` counts launches of graphs."""

    cudaError_t = Status
    cudaMemcpyKind = enum.Enum("cudaMemcpyKind", ["cudaMemcpyDefault"])
    cudaStreamCaptureMode = enum.Enum("cudaStreamCaptureMode", ["cudaStreamCaptureModeThreadLocal"])

    def __init__(self, free_bytes: int = 1 << 30) -> None:
        self.free_bytes = free_bytes
        self.failing: dict[str, Status] = {}
        self.launches = 0
        self.memory: dict[int, Bytes] = {}
        self.pinned: dict[int, Bytes] = {}
        self.streams: dict[int, Stream] = {}

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cuda") and name in object.__getattribute__(self, "failing"):
            status = object.__getattribute__(self, "failing")[name]
            return lambda *arguments: (status, None)
        return object.__getattribute__(self, name)

    def view(self, address: int, size: int) -> Bytes:
        """Return bytes that lie inside one allocation."""
        for start, block in (*self.memory.items(), *self.pinned.items()):
            if start <= address and address + size <= start + len(block):
                return block[address - start : address - start + size]
        raise AssertionError(f"{size} bytes at {address:#x} are outside of all memory")

    def is_on_gpu(self, address: int) -> bool:
        return any(start <= address < start + len(block) for start, block in self.memory.items())

    def run(self, stream: Stream, until: Callable[[], bool] = lambda: False) -> None:
        while stream.work and not until():
            stream.work.popleft()()

    # Everything below is the runtime's.

    def cudaGetDeviceCount(self) -> tuple[Status, int]:
        return Status.cudaSuccess, 1

    def cudaGetLastError(self) -> tuple[Status]:
        return (Status.cudaSuccess,)

    def cudaGetErrorName(self, status: Status) -> tuple[Status, bytes]:
        return Status.cudaSuccess, status.name.encode()

    def cudaGetErrorString(self, status: Status) -> tuple[Status, bytes]:
        return Status.cudaSuccess, b"what it means"

    def cudaMemGetInfo(self) -> tuple[Status, int, int]:
        used = sum(map(len, self.memory.values()))
        return Status.cudaSuccess, self.free_bytes - used, self.free_bytes

    def cudaMalloc(self, size: int) -> tuple[Status, int | None]:
        if self.cudaMemGetInfo()[1] < size:
            return Status.cudaErrorMemoryAllocation, None
        return Status.cudaSuccess, self._allocate(self.memory, size)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Status, int]:
        return Status.cudaSuccess, self._allocate(self.pinned, size)

    def _allocate(self, pool: dict[int, Bytes], size: int) -> int:
        # On a boundary of 256 bytes, as the real ones are, and full of something.
        raw = np.full(size + 256, 0xA5, np.uint8)
        skip = -raw.ctypes.data % 256
        block = raw[skip : skip + size]
        pool[block.ctypes.data] = block
        return int(block.ctypes.data)

    def cudaFree(self, address: int) -> tuple[Status]:
        for stream in self.streams.values():
            self.run(stream)
        del self.memory[address]
        return (Status.cudaSuccess,)

    def cudaFreeHost(self, address: int) -> tuple[Status]:
        for stream in self.streams.values():
            self.run(stream)
        del self.pinned[address]
        return (Status.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Status, Stream]:
        stream = Stream(1000 + len(self.streams))
        self.streams[stream.number] = stream
        return Status.cudaSuccess, stream

    def cudaStreamDestroy(self, stream: Stream) -> tuple[Status]:
        return (Status.cudaSuccess,)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Status, Event]:
        return Status.cudaSuccess, Event()

    def cudaEventDestroy(self, event: Event) -> tuple[Status]:
        return (Status.cudaSuccess,)

    def cudaEventRecord(self, event: Event, stream: Stream) -> tuple[Status]:
        event.stream, event.wanted = stream, event.wanted + 1
        number = event.wanted

        def reach() -> None:
            event.reached = number

        stream.put(reach)
        return (Status.cudaSuccess,)

    def cudaStreamWaitEvent(self, stream: Stream, event: Event, flags: int) -> tuple[Status]:
        number, marked = event.wanted, event.stream
        if marked is not None:
            stream.put(lambda: self.run(marked, lambda: event.reached >= number))
        return (Status.cudaSuccess,)

    def cudaEventSynchronize(self, event: Event) -> tuple[Status]:
        number = event.wanted
        if event.stream is not None:
            self.run(event.stream, lambda: event.reached >= number)
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: Stream) -> tuple[Status]:
        assert stream.captured is None
        self.run(stream)
        return (Status.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: Any, stream: Stream) -> tuple[Status]:
        if not self.is_on_gpu(source) and not any(a <= source < a + len(b) for a, b in self.pinned.items()):
            # Memory that is not pinned has been read when the call returns.
            taken = np.frombuffer(ctypes.string_at(source, size), np.uint8)
            stream.put(lambda: np.copyto(self.view(to, size), taken))
        else:
            stream.put(lambda: np.copyto(self.view(to, size), self.view(source, size)))
        return (Status.cudaSuccess,)

    def cudaMemsetAsync(self, address: int, value: int, size: int, stream: Stream) -> tuple[Status]:
        stream.put(lambda: self.view(address, size).fill(value))
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: Stream, mode: Any) -> tuple[Status]:
        stream.captured = []
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: Stream) -> tuple[Status, list[Work]]:
        captured, stream.captured = stream.captured, None
        assert captured is not None
        return Status.cudaSuccess, captured

    def cudaGraphInstantiate(self, graph: list[Work], flags: int) -> tuple[Status, list[Work]]:
        return Status.cudaSuccess, list(graph)

    def cudaGraphLaunch(self, graph: list[Work], stream: Stream) -> tuple[Status]:
        self.launches += 1
        for work in graph:
            stream.put(work)
        return (Status.cudaSuccess,)

    def cudaGraphDestroy(self, graph: list[Work]) -> tuple[Status]:
        return (Status.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: list[Work]) -> tuple[Status]:
        return (Status.cudaSuccess,)
