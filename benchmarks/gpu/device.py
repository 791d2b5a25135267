"""Where torch works, how times are taken there, and the ceilings of the hardware."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.gpu.encoder import LLAMA_1B, TINY, Shape


class Device:
    """A GPU, or a CPU in its place, on which cases run and nothing is learnt from their times.

    Attributes:
        torch: the device's name in torch.
        shape: of the encoder that goes before a search.
        most_items: of a batch.
    """

    def __init__(self, *, emulated: bool) -> None:
        self.torch = torch.device("cpu" if emulated else "cuda")
        self.shape: Shape = TINY if emulated else LLAMA_1B
        self.most_items = 4 if emulated else 128
        self._emulated = emulated
        self._repeats = 1 if emulated else 10

    def synchronise(self) -> None:
        """Wait for the GPU."""
        if not self._emulated:
            torch.cuda.synchronize()

    def empty_cache(self) -> None:
        """Give back the memory that torch keeps."""
        if not self._emulated:
            torch.cuda.empty_cache()

    def call_seconds(self, work: Callable[[], object], repeats: int | None = None) -> float:
        """Return the median wall-clock time of a call, in seconds."""
        work()
        times = []
        for _ in range(min(self._repeats, repeats or self._repeats)):
            self.synchronise()
            began = time.perf_counter()
            work()
            self.synchronise()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    def event_seconds(self, work: Callable[[], object]) -> float:
        """Return the median time of a GPU's work by CUDA events, in seconds."""
        if self._emulated:
            return self.call_seconds(work)
        work()
        times = []
        for _ in range(self._repeats):
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            work()
            ended.record()
            ended.synchronize()
            times.append(began.elapsed_time(ended) / 1e3)
        return statistics.median(times)

    def ceilings(self) -> dict[str, float]:
        """Measure bandwidths in GB/s and the matrix rates in 10^12 operations a second."""
        size, n = (1 << 20, 64) if self._emulated else (4 << 30, 8192)
        source = torch.ones(size // 4, dtype=torch.float32, device=self.torch)
        target = torch.empty_like(source)
        copied = 2 * size / self.event_seconds(lambda: target.copy_(source)) / 1e9
        reads = (lambda: source.sum(), lambda: source.max())
        read = max(size / self.event_seconds(work) / 1e9 for work in reads)
        there = torch.empty(size // 4, dtype=torch.uint8, device=self.torch)
        host = torch.empty(size // 4, dtype=torch.uint8)
        here = host if self._emulated else host.pin_memory()
        to_device = len(here) / self.event_seconds(lambda: there.copy_(here, non_blocking=True)) / 1e9
        a, b = (torch.randint(-127, 128, (n, n), dtype=torch.int8, device=self.torch) for _ in range(2))
        rate = 2 * n**3 / self.event_seconds(lambda: torch._int_mm(a, b.t())) / 1e12
        halves = torch.randn(n, n, device=self.torch).half()
        half_rate = 2 * n**3 / self.event_seconds(lambda: halves @ halves.t()) / 1e12
        return {
            "device_read_gb_s": max(read, copied),
            "device_copy_gb_s": copied,
            "host_to_device_gb_s": to_device,
            "int8_tops": rate,
            "fp16_tops": half_rate,
        }
