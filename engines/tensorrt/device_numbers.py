"""Whole numbers in GPU memory, for inputs that are a single one."""

from __future__ import annotations

import threading

import numpy as np

from fllm_export.engines.tensorrt.gpu import Gpu, Memory, Pinned, Stream

_NUMBERS = 512


class DeviceNumbers:
    """Whole numbers that launches read by address. They never change, so that graphs may hold on to them.

    Args:
        gpu: whose memory they are in.
        on_host: whether TensorRT wants this tensor in memory of the host.
    """

    def __init__(self, gpu: Gpu, *, on_host: bool) -> None:
        self._gpu, self._on_host = gpu, on_host
        self._lock = threading.Lock()
        self._addresses: dict[int, int] = {}
        self._pages: list[tuple[Memory, Pinned]] = []
        self._stream = Stream(gpu)

    def address(self, number: int) -> int:
        """Return where the number lies."""
        with self._lock:
            if number not in self._addresses:
                self._addresses[number] = self._add(number)
            return self._addresses[number]

    def _add(self, number: int) -> int:
        place = len(self._addresses) % _NUMBERS
        if place == 0:
            self._pages.append((Memory(self._gpu, 8 * _NUMBERS), Pinned(self._gpu, 8 * _NUMBERS)))
        memory, pinned = self._pages[-1]
        pinned.array(np.int64, (_NUMBERS,))[place] = number
        self._stream.copy(memory.address + 8 * place, pinned.address + 8 * place, 8)
        self._stream.finish()
        return (pinned if self._on_host else memory).address + 8 * place
